import hashlib
import logging

import pytest

from darts_acquisition import checksums
from darts_acquisition.checksums import parse_multihash

DATA = b"some bytes of a band"


@pytest.mark.parametrize(
    ("front", "algorithm"),
    [
        ("1114", "sha1"),
        ("1220", "sha256"),
        ("1340", "sha512"),
        ("1620", "sha3_256"),
        ("1440", "sha3_512"),
        ("d50110", "md5"),
    ],
)
def test_a_multihash_gives_the_checksum_of_its_algorithm(front, algorithm):
    digest = hashlib.new(algorithm, DATA).hexdigest()
    checksum = parse_multihash(front + digest.upper())
    hasher = checksum.hasher()
    hasher.update(DATA)
    assert hasher.hexdigest() == checksum.digest == digest


def test_a_checksum_as_the_copernicus_data_space_gives_it_is_sha3_256():
    checksum = parse_multihash("16204ac2245edc8ad07b97be5f34e3705018946cab2533c09fc6b60f5c3717f4df66")
    assert checksum.algorithm == "SHA3-256"
    assert checksum.digest == "4ac2245edc8ad07b97be5f34e3705018946cab2533c09fc6b60f5c3717f4df66"


def test_no_checksum_is_none():
    assert parse_multihash(None) is None


@pytest.mark.parametrize(
    "text",
    [
        "1e20" + "ab" * 32,  # BLAKE3, which Python does not have
        "d50120" + "ab" * 32,  # called MD5, but 32 bytes, as in older items of the Copernicus Data Space
        "1220abcd",
        "not hexadecimal",
        "",
        "ff" * 20,
    ],
)
def test_a_checksum_that_cannot_be_used_is_none_and_is_told_once(text, caplog, monkeypatch):
    monkeypatch.setattr(checksums, "_SAID", set())
    with caplog.at_level(logging.WARNING):
        assert parse_multihash(text) is None
        assert parse_multihash(text) is None
    assert len(caplog.records) == 1
    assert "size alone" in caplog.text
