import logging
import threading

import pytest

from darts.display.transfers import TransferState, duration_text, size_text, transferring


def test_the_state_tells_bytes_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("darts.display.transfers.time.monotonic", lambda: clock[0])
    state = TransferState("scenes", 4, 1_000_000)
    clock[0] += 10
    state.add(items=1, n_bytes=250_000)
    assert state.text() == "1 of 4 scenes, 250.0 kB of 1.0 MB, 25.0 kB/s, about 30 s left"


def test_without_sizes_the_time_left_goes_by_items(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("darts.display.transfers.time.monotonic", lambda: clock[0])
    state = TransferState("chunks", 3, None)
    assert state.text() == "0 of 3 chunks"
    clock[0] = 60
    state.add(items=1, n_bytes=6_000_000)
    assert state.text() == "1 of 3 chunks, 6.0 MB, 100.0 kB/s, about 2 min left"
    state.add(items=2)
    assert "left" not in state.text()


def test_the_rate_is_that_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("darts.display.transfers.time.monotonic", lambda: clock[0])
    state = TransferState("scenes", 2, 10_000_000)
    state.add(n_bytes=5_000_000)
    for _ in range(200):  # a dead network
        clock[0] += 1
        state.add(n_bytes=0)
    assert "B/s" not in state.text()


def test_bytes_from_many_threads_are_all_counted() -> None:
    state = TransferState("scenes", 1, None)
    threads = [threading.Thread(target=lambda: [state.add(n_bytes=1) for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state.bytes_done == 8000


def test_plain_lines_name_what_is_there_and_what_failed(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("darts")
    logger.propagate = True
    logger.handlers.clear()
    with caplog.at_level(logging.INFO, "darts"), transferring("scenes", 2, None) as display:
        display.received(1500)
        display.done("one")
        display.failed("two", ValueError("no such asset"))
    assert "one is there; 1 of 2 scenes, 1.5 kB" in caplog.text
    assert "two failed: no such asset" in caplog.text


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"), (3e12, "3.0 TB")]
)
def test_sizes_read_well(n_bytes: float, text: str) -> None:
    assert size_text(n_bytes) == text


@pytest.mark.parametrize(("seconds", "text"), [(20, "20 s"), (150, "2 min"), (7200, "2.0 h")])
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
