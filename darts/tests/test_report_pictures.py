"""Pictures in a report: how small they are made, which are shown, and where they lead."""

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darts.report.report_pictures import LONGEST_SIDE_PX, MOST_BYTES, MOST_PICTURES, evenly, shrink

from .report_samples import outcome, page


def picture(path: Path, shape: tuple[int, int] = (768, 1024), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (*shape, 3), np.uint8)
    assert cv2.imwrite(str(path), noise)


def test_pictures_are_small_whatever_they_were(tmp_path: Path) -> None:
    for shape in ((768, 1024), (1024, 3), (100, 90), (1, 1)):
        picture(tmp_path / "x.jpg", shape)
        small = shrink(tmp_path / "x.jpg")
        assert small is not None
        assert len(small) <= MOST_BYTES
        height, width = cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        assert max(height, width) == min(max(shape), LONGEST_SIDE_PX)


@pytest.mark.parametrize("content", [None, b"", b"no picture", b"\xff\xd8\xff\xe0broken"])
def test_a_picture_that_cannot_be_read_is_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.jpg").write_bytes(content)
    assert shrink(tmp_path / "x.jpg") is None


@given(st.integers(0, 500), st.integers(2, 60))
def test_the_choice_is_even_and_holds_the_first_and_the_last(number: int, most: int) -> None:
    chosen = evenly(range(number), most)
    assert len(chosen) == min(number, most)
    if number:
        assert (chosen[0], chosen[-1]) == (0, number - 1)
    steps = np.diff(chosen)
    assert len(steps) == 0 or (steps.min() >= 1 and steps.max() - steps.min() <= 1)


def test_pictures_link_to_the_page_of_their_tile(tmp_path: Path) -> None:
    ids = [f"t {i:03}#%?" for i in range(MOST_PICTURES + 30)]
    for number, tile_id in enumerate(ids[:5]):
        picture(tmp_path / "out" / tile_id / "thumbnail.jpg", (90, 120), number)
    (tmp_path / "out" / ids[1] / "preview.html").write_text("")
    found = page([outcome(i, output_path=str(tmp_path / "out" / i)) for i in ids[:5]], tmp_path / "out")
    links = [attrs["href"] for tag, attrs in found.tags if tag == "a"]
    assert links == [
        f"./t%20{i:03}%23%25%3F/{'preview.html' if i == 1 else 'thumbnail.jpg'}" for i in range(5)
    ]  # fmt: skip
    moved = tmp_path / "moved"
    (tmp_path / "out").rename(moved)
    again = page([outcome(i, output_path=str(tmp_path / "out" / i)) for i in ids[:5]], moved)
    assert again.count("img") == 5


def test_at_most_sixty_pictures_are_shown(tmp_path: Path) -> None:
    records = []
    for number in range(MOST_PICTURES + 7):
        path = tmp_path / f"t{number}" / "thumbnail.jpg"
        picture(path, (20, 30), number)
        records.append(outcome(f"t{number}", output_path=str(path.parent), files={"thumbnail.jpg": (1, "")}))
    records.append(outcome("none", output_path=str(tmp_path / "t0"), files={"other.tif": (1, "")}))
    found = page(records, tmp_path)
    assert found.count("img") == MOST_PICTURES
    assert f"Pictures of {MOST_PICTURES} of {MOST_PICTURES + 8} tiles" in found.text
    sources = [attrs["src"] or "" for tag, attrs in found.tags if tag == "img"]
    assert all(
        base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))[:2] == b"\xff\xd8" for source in sources
    )
