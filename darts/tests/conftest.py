"""A clock that is set by hand, a log that is put back, and reports of tests that travel whatever text was logged."""

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from darts.display.logs import configure_logging, logger

from .display_samples import Clock


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Spell out lone surrogates in what a test printed and logged: xdist sends UTF-8."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fresh_log() -> Iterator[None]:
    """Let no handlers of the log stay for the tests that follow."""
    yield
    configure_logging("after", plain=True)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
