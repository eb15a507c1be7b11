"""Quality of optical pixels: 0 invalid, 1 low, 2 high, from the masks that scenes bring."""

from typing import Any

from darts_utils.arrays import array_namespace

INVALID, LOW, HIGH = 0, 1, 2

SCL_HIGH = (2, 4, 5, 6, 7, 10)
"""Classes that count as high quality: dark, vegetation, bare, water, unclassified, thin cirrus."""
SCL_LOW = (3, 8, 9, 11)
"""Classes that count as low quality: cloud shadow, cloud (medium and high probability), snow."""

UDM2_FLAGS = (2, 3, 4, 5, 6)
"""Bands of UDM2 (from 1) that lower the quality: snow, shadow, light haze, heavy haze, cloud."""
UDM2_UNUSABLE = 0b0011_1101
"""Bits of UDM2 band 8 that make a pixel invalid: blackfill (0), missing or suspect data in a band (2 to 5)."""
UDM_UNUSABLE_BIT = 0b1000_0000
"""Bit of `planet_udm` of a pixel that band 8 makes invalid."""


def quality_from_scl(scl: Any, valid: Any) -> Any:
    """Return quality (uint8) from the Sentinel-2 scene classification (uint8).

    `valid` (bool) is True where every optical band has a value; elsewhere quality is 0 whatever the class. Classes
    0, 1 and those the product does not define are 0.
    """
    xp = array_namespace(scl, valid)
    table = xp.full(256, INVALID, "uint8")
    table[list(SCL_LOW)] = LOW
    table[list(SCL_HIGH)] = HIGH
    quality = table[scl]
    quality[~valid] = INVALID
    return quality


def quality_from_udm2(udm2: Any, valid: Any) -> Any:
    """Return quality (uint8) from the eight bands of Planet's UDM2 (array (8, y, x), uint8) and the valid pixels."""
    xp = array_namespace(udm2, valid)
    quality = xp.full(valid.shape, HIGH, "uint8")
    for number in UDM2_FLAGS:
        quality[udm2[number - 1] != 0] = LOW
    quality[unusable_in_udm2(udm2) | ~valid] = INVALID
    return quality


def quality_from_valid(valid: Any) -> Any:
    """Return quality (uint8) of a scene without a mask: 2 where all bands are valid, else 0."""
    return valid.astype("uint8") * HIGH


def pack_udm2(udm2: Any) -> Any:
    """Return `planet_udm` (uint8): bit k−1 set for UDM2 band k (1 to 6), bit 7 for an unusable pixel."""
    xp = array_namespace(udm2)
    packed = xp.zeros(udm2.shape[1:], "uint8")
    for number in range(1, 7):
        packed |= (udm2[number - 1] != 0).astype("uint8") << (number - 1)
    packed[unusable_in_udm2(udm2)] |= UDM_UNUSABLE_BIT
    return packed


def unusable_in_udm2(udm2: Any) -> Any:
    """Return True where band 8 of UDM2 says blackfill or missing or suspect data."""
    return (udm2[7] & UDM2_UNUSABLE) != 0
