"""Checksums of files as STAC items give them: multihash, in hexadecimal."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger("darts.acquisition")

_ALGORITHMS: dict[int, tuple[str, Callable[..., Any]]] = {
    0x11: ("SHA-1", hashlib.sha1),
    0x12: ("SHA-256", hashlib.sha256),
    0x13: ("SHA-512", hashlib.sha512),
    0x14: ("SHA3-512", hashlib.sha3_512),
    0x15: ("SHA3-384", hashlib.sha3_384),
    # What the Copernicus Data Space gives for images, taken over from the manifest of the product.
    0x16: ("SHA3-256", hashlib.sha3_256),
    0x17: ("SHA3-224", hashlib.sha3_224),
    0xD5: ("MD5", hashlib.md5),
}
"""Code → algorithm, from the table of multicodec."""
_SAID: set[str] = set()


@dataclass(frozen=True)
class Checksum:
    """An expected checksum."""

    algorithm: str
    digest: str
    """Hexadecimal, in small letters."""

    def hasher(self) -> Any:
        """Return a new object of hashlib to feed the bytes to."""
        new = next(new for name, new in _ALGORITHMS.values() if name == self.algorithm)
        return new(usedforsecurity=False)


def parse_multihash(text: str | None) -> Checksum | None:
    """Return the checksum that a multihash in hexadecimal holds.

    None where there is none, where the algorithm is not known here, and where length and algorithm do not fit together
    (items with a digest of 32 bytes that is called MD5 are in circulation); the latter two are logged once each.
    """
    if text is None:
        return None
    try:
        code, rest = _varint(bytes.fromhex(text))
        length, digest = _varint(rest)
    except (ValueError, TypeError):
        _say_once(str(text)[:8], "is no multihash")
        return None
    if code not in _ALGORITHMS:
        _say_once(f"{code:#x}", "is of an algorithm that is not known here")
        return None
    name, new = _ALGORITHMS[code]
    if not length == len(digest) == new().digest_size:
        _say_once(f"{code:#x}", f"is called {name} but has {len(digest)} bytes")
        return None
    return Checksum(name, digest.hex())


def _varint(data: bytes) -> tuple[int, bytes]:
    """Return the number that `data` begins with (seven bits a byte, lowest first) and the rest."""
    value = 0
    for position, byte in enumerate(data[:9]):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return value, data[position + 1 :]
    raise ValueError("the number does not end")


def _say_once(what: str, why: str) -> None:
    if what not in _SAID:
        _SAID.add(what)
        logger.warning("a checksum (%s) %s; files with such are checked by their size alone", what, why)
