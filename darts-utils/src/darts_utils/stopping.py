"""Ctrl-C once finishes what is in flight, twice stops now."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger("darts.stopping")


class Stop:
    """Whether work was asked to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def stopping_on_signals(message: str) -> Iterator[Stop]:
    """Turn the first interrupt, or a batch system's SIGTERM, into a stop that is asked for; the next one interrupts.

    Signals are the main thread's; elsewhere nothing is changed, and an interrupt does what it did.

    Args:
        message: what the log says when a stop is asked for.

    Raises:
        KeyboardInterrupt: interrupted once more.
    """
    stop, process = Stop(), os.getpid()

    def ask(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # one that has just been forked, such as a loader of torch
            return
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        logger.warning("%s", message)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    former = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
