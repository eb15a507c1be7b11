"""Pytest's set-up for the whole workspace."""

import logging

import pytest
from hypothesis import settings

# The folder `darts/` has the name of the package inside it. Pytest names test modules after their folders
# (`darts.tests.test_cli`), so the real package has to be in place first.
import darts  # noqa: F401

settings.register_profile("untimed", deadline=None)  # machines are noisy, and the first case loads libraries
settings.load_profile("untimed")


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What is logged, that of darts too where an earlier test has set its log up and nothing passes on."""
    monkeypatch.setattr(logging.getLogger("darts"), "propagate", True)
    return caplog
