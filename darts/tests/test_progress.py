"""How a run gets on: its rate and the time left, its lines, and its summary."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darts.display.console import ALIKE, Failure, grouped, print_summary
from darts.display.course import RATE_OVER_S, RATE_OVER_TILES, Course
from darts.display.line_display import LineReporter
from darts.display.logs import configure_logging
from darts.display.progress import reporting

from .display_samples import Clock, failed, outcome

pytestmark = pytest.mark.usefixtures("fresh_log")

# ---- rate and time left ----


def test_before_the_first_tile_nothing_is_said_of_rate_and_time(clock: Clock) -> None:
    course = Course(10, clock)
    course.begin_work()
    clock.now += 100
    assert (course.per_second(), course.seconds_left(), course.rate_text(), course.left_text()) == (None, None, "", "")


def test_the_rate_is_that_of_ends_however_long_each_tile_took(clock: Clock) -> None:
    course = Course(100, clock)
    course.begin_work()
    for _ in range(10):
        clock.now += 6
        course.count(outcome(seconds={"Segmenting": 60.0}))  # ten at once
    assert course.per_second() == pytest.approx(1 / 6)
    assert course.seconds_left() == pytest.approx(90 * 6)
    assert (course.rate_text(), course.left_text()) == ("10.0 tiles/min", "about 9 min left")


def test_skips_neither_speed_up_the_rate_nor_slow_it_down(clock: Clock) -> None:
    course = Course(1000, clock)
    for _ in range(500):
        clock.now += 1
        course.count(outcome(status="skipped"))
    assert course.left_text() == ""
    course.begin_work()
    for _ in range(4):
        clock.now += 5
        course.count(outcome())
    assert course.per_second() == pytest.approx(1 / 5)
    assert course.left == 496


def test_the_rate_stays_between_two_ends_and_falls_once_the_next_is_overdue(clock: Clock) -> None:
    course = Course(10, clock)
    course.begin_work()
    for _ in range(4):
        clock.now += 60
        course.count(outcome())
    rates, left = [], []
    for _ in range(6):
        rates.append(course.per_second())
        left.append(course.seconds_left())
        clock.now += 30
    assert rates[:3] == pytest.approx([1 / 60] * 3)
    assert rates[3] > rates[4] > rates[5]
    assert left[:3] == pytest.approx([360, 330, 300]), "it counts down while one waits"


def test_the_rate_follows_what_tiles_take_now(clock: Clock) -> None:
    course = Course(10_000, clock)
    course.begin_work()
    for wait, number in ((1, 1000), (30, int(RATE_OVER_S / 30) + RATE_OVER_TILES)):
        for _ in range(number):
            clock.now += wait
            course.count(outcome())
    assert course.per_second() == pytest.approx(1 / 30, rel=0.1)


def test_failures_count_as_work_and_attempts_that_are_made_again_as_nothing(clock: Clock) -> None:
    course = Course(3, clock)
    course.begin_work()
    clock.now += 10
    course.count(failed(again=True))
    assert course.ended == 0
    course.count(failed())
    assert (course.failed, course.left, course.per_second()) == (1, 2, pytest.approx(0.1))


@given(st.lists(st.tuples(st.sampled_from(["success", "failed", "skipped"]), st.floats(0, 1e4)), max_size=60))
def test_whatever_happens_the_numbers_make_sense(events: list[tuple[str, float]]) -> None:
    clock = Clock()
    course = Course(len(events), clock)
    for status, wait in events:
        clock.now += wait
        course.count(outcome(status=status))
        rate, left = course.per_second(), course.seconds_left()
        assert rate is None or rate > 0
        assert left is None or left >= 0
        assert course.ended + course.left == len(events)
    assert course.left_text() == ""


# ---- lines ----


def plain_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what plain log lines say, without their times."""
    return [line.split(" ", 2)[2] for line in capsys.readouterr().err.splitlines()]


def test_plain_lines_tell_of_each_tile(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    configure_logging("run", plain=True)
    reporter = LineReporter(4, clock)
    reporter.finished(outcome("s", "skipped"))
    reporter.step("a", "Segmenting", "cpu")
    clock.now += 12
    reporter.finished(failed("a", attempt=1, again=True, worker="cpu"))
    clock.now += 18
    reporter.finished(outcome("a", attempt=2, seconds={"Segmenting": 10.0, "Exporting": 2.5}, worker="cpu"))
    clock.now += 30
    reporter.finished(failed("b", worker="cuda:0"))
    reporter.finished(outcome("c", worker="cuda:0", seconds={}))
    assert plain_lines(capsys) == [
        "INFO tile 1 of 4, s: skipped, already complete",
        "WARNING a: attempt 1 failed and is made again: MissingDataError: no DEM",
        "INFO tile 2 of 4, 2.0 tiles/min, about 60 s left, a: done in 12.5 s",
        "ERROR tile 3 of 4, 2.0 tiles/min, about 30 s left, b: failed on cuda:0: MissingDataError: no DEM",
        "INFO tile 4 of 4, 3.0 tiles/min, c: done in 0.0 s on cuda:0",
    ]


def test_steps_show_as_debug_messages_only(capsys: pytest.CaptureFixture[str]) -> None:
    for verbosity, lines in ((0, 0), (1, 1)):
        configure_logging("run", plain=True, verbosity=verbosity)
        LineReporter(1).step("a", "Segmenting", "cpu")
        assert len(capsys.readouterr().err.splitlines()) == lines


def test_without_a_terminal_reporting_gives_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("run", plain=True)
    with reporting(1) as reporter:
        reporter.finished(outcome("a"))
    assert len(plain_lines(capsys)) == 1


# ---- the summary ----


def summary_of(capsys: pytest.CaptureFixture[str], *args: Any, **kwargs: Any) -> str:
    configure_logging("run", plain=True)
    print_summary(*args, **kwargs)
    return capsys.readouterr().err


def test_the_summary_counts_what_ended_and_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = [outcome("a"), outcome("b", "skipped"), failed("c", again=True)]
    text = summary_of(capsys, outcomes, 12.34, left=3, reason="interrupted")
    assert text == (
        "5 tiles in 12.3 s: 1 done, 1 skipped, 0 failed, 3 left; interrupted; run the same command again to go on\n"
    )
    assert summary_of(capsys, [outcome("a")], 7200) == "1 tile in 2.0 h: 1 done, 0 skipped, 0 failed\n"


def test_the_table_of_failures_shows_markup_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = summary_of(capsys, [failed("[bold]x[/bold]", "E: [/] y")], 1)
    assert "[bold]x[/bold]" in text
    assert "E: [/] y" in text


def test_more_than_twenty_failures_of_one_cause_share_a_row() -> None:
    few = [Failure(f"f{i}", f"Few: {i}", "Few") for i in range(ALIKE)]
    many = [Failure(f"m{i}", f"Many: {i}") for i in range(ALIKE + 1)]
    mixed = [failure for pair in zip(many, few, strict=False) for failure in pair] + many[len(few) :]
    rows = grouped(mixed)
    assert rows[0] == ("21, such as m0, m1, m2", "for example Many: 0")
    assert rows[1:] == [(failure.name, failure.error) for failure in few]
    assert grouped([]) == []


def test_time_is_not_asked_of_a_clock_that_can_be_set_back() -> None:
    assert Course(1)._clock is time.monotonic
