import numpy as np
import pytest

from darts_acquisition.quality import pack_udm2, quality_from_scl, quality_from_udm2, quality_from_valid

SCL_QUALITY = {0: 0, 1: 0, 2: 2, 3: 1, 4: 2, 5: 2, 6: 2, 7: 2, 8: 1, 9: 1, 10: 2, 11: 1}


@pytest.mark.parametrize(("scl", "quality"), [*SCL_QUALITY.items(), (12, 0), (255, 0)])
def test_each_scl_class_has_the_quality_of_the_specification(scl, quality):
    assert quality_from_scl(np.array([[scl]], "uint8"), np.array([[True]])) == quality


@pytest.mark.parametrize("scl", range(12))
def test_a_missing_optical_band_is_invalid_whatever_the_class(scl):
    assert quality_from_scl(np.array([[scl]], "uint8"), np.array([[False]])) == 0


def _udm2(**bands: int) -> np.ndarray:
    udm2 = np.zeros((8, 1, 1), "uint8")
    for name, value in bands.items():
        udm2[int(name[1:]) - 1] = value
    return udm2


@pytest.mark.parametrize(
    ("udm2", "quality", "packed"),
    [
        (_udm2(b1=1), 2, 0b1),
        (_udm2(), 2, 0),
        (_udm2(b2=1), 1, 0b10),
        (_udm2(b3=1), 1, 0b100),
        (_udm2(b4=1), 1, 0b1000),
        (_udm2(b5=1), 1, 0b10000),
        (_udm2(b6=1, b7=90), 1, 0b100000),
        (_udm2(b1=1, b7=100), 2, 0b1),
        (_udm2(b8=0b1), 0, 0b10000000),
        # Bit 1 of the old mask is cloud, which bands 2 to 6 tell better; bits 6 and 7 are not named.
        (_udm2(b1=1, b8=0b10), 2, 0b1),
        (_udm2(b6=1, b8=0b10), 1, 0b100000),
        *[(_udm2(b1=1, b8=1 << bit), 0, 0b10000001) for bit in (2, 3, 4, 5)],
        *[(_udm2(b1=1, b8=1 << bit), 2, 0b1) for bit in (6, 7)],
        (_udm2(b2=1, b3=1, b8=0b100100), 0, 0b10000110),
    ],
)
def test_udm2_gives_the_quality_of_the_specification(udm2, quality, packed):
    assert quality_from_udm2(udm2, np.array([[True]])) == quality
    assert quality_from_udm2(udm2, np.array([[False]])) == 0
    assert pack_udm2(udm2) == packed
    assert pack_udm2(udm2).dtype == np.uint8


def test_without_a_mask_valid_pixels_are_of_high_quality():
    quality = quality_from_valid(np.array([[True, False]]))
    assert quality.tolist() == [[2, 0]]
    assert quality.dtype == np.uint8
