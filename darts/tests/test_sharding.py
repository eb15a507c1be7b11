import pytest
from hypothesis import given
from hypothesis import strategies as st

from darts.records.sharding import Shard, parse_shard
from darts_utils.errors import ConfigError


@given(st.text(), st.integers(1, 50))
def test_every_tile_is_in_exactly_one_share(tile_id: str, count: int) -> None:
    assert sum(Shard(number, count).holds(tile_id) for number in range(1, count + 1)) == 1


def test_an_id_that_is_no_unicode_is_in_exactly_one_share() -> None:
    assert sum(Shard(number, 7).holds("tile-\udce4") for number in range(1, 8)) == 1


def test_shares_stay_the_same_for_ever() -> None:
    # Tiles of a campaign keep their shard through releases: a change here makes shards do each other's work.
    ids = ["S2B_MSIL2A_20240715T211529_T08WNB", "4372514/5790392_4372514_2022-07-16_2459", "ä → b", ""]
    assert [next(n for n in range(1, 17) if Shard(n, 16).holds(name)) for name in ids] == [10, 11, 3, 5]


def test_shares_are_about_equal() -> None:
    names = [f"S2A_MSIL2A_2024071{n % 10}T211529_T{n:05d}" for n in range(16_000)]
    sizes = [sum(map(Shard(number, 16).holds, names)) for number in range(1, 17)]
    assert sum(sizes) == len(names)
    assert 850 < min(sizes) <= max(sizes) < 1150  # 1000 ± 5 standard deviations


def test_one_share_of_one_is_everything() -> None:
    assert all(map(Shard(1, 1).holds, "abcdefgh"))


@given(st.integers(1, 999_999), st.data())
def test_a_share_is_read_as_it_is_written(count: int, data: st.DataObject) -> None:
    shard = Shard(data.draw(st.integers(1, count)), count)
    assert parse_shard(str(shard)) == parse_shard(f" {shard}\n") == shard


def test_names_of_shares_sort_by_number() -> None:
    names = [Shard(number, 12).file_name for number in range(1, 13)]
    assert names == sorted(names)
    assert names[2] == "shard03of12"


@pytest.mark.parametrize(
    "text",
    ["", "3", "3/", "/16", "0/16", "17/16", "-1/16", "1/0", "0/0", "3-16", "3/16/2", "3.0/16", "a/b", "3 / 16",
     "٣/١٦", "1/" + "9" * 5000, "nan/1"],
)  # fmt: skip
def test_what_is_no_share_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="like 3/16"):
        parse_shard(text)
