import threading

import pytest

from darts.display.transfers import SILENT
from darts.pipelines.preparation import Download, Preparation, fetch_all, print_preparation, receiving, total_bytes


def test_a_failed_download_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise OSError("the disk is full")

    result = Preparation(present=["there"])
    downloads = [Download("bad", None, fail), *(Download(name, 1, lambda: None) for name in "abc")]
    with receiving("scenes", len(downloads), total_bytes(downloads), result) as display:
        fetch_all(downloads, display, result)
    assert sorted(result.fetched) == ["a", "b", "c"]
    assert result.failed == {"bad": "OSError: the disk is full"}
    assert result.exit_code == 1
    print_preparation(result)
    shown = capsys.readouterr().err
    assert "3 fetched, 1 already there, 1 failed" in shown
    assert "the disk is full" in shown


def test_received_bytes_are_added_up_and_may_be_taken_back() -> None:
    result = Preparation()
    with receiving("scenes", 1, 100, result) as display:
        display.received(70)
        display.received(-70)  # a transfer that broke and begins again
        display.received(100)
    assert result.n_bytes == 100
    assert result.seconds > 0


def test_several_downloads_are_in_flight_at_once() -> None:
    meeting = threading.Barrier(2, timeout=20)  # breaks unless two are there at the same time
    result = Preparation()
    fetch_all([Download(name, None, meeting.wait) for name in "ab"], SILENT, result, at_once=2)
    assert sorted(result.fetched) == ["a", "b"], result.failed


def test_the_total_is_unknown_where_one_size_is() -> None:
    assert total_bytes([Download("a", 3, int), Download("b", 4, int)]) == 7
    assert total_bytes([Download("a", 3, int), Download("b", None, int)]) is None


def test_an_interrupt_stops_what_has_not_begun() -> None:
    begun: list[str] = []

    def interrupt() -> None:
        begun.append("first")
        raise KeyboardInterrupt

    downloads = [
        Download("first", None, interrupt),
        *(Download(str(i), None, lambda: begun.append("x")) for i in range(50)),
    ]
    with pytest.raises(KeyboardInterrupt):
        fetch_all(downloads, SILENT, Preparation(), at_once=1)
    assert begun[0] == "first"
    assert len(begun) < 50


def test_brackets_in_messages_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_preparation(Preparation(failed={"a[/b]": "put keys under [default] in the file [/x]"}))
    shown = capsys.readouterr().err
    assert "a[/b]" in shown
    assert "[default]" in shown
