import os
import signal
import threading

import pytest

from darts_utils.stopping import stopping_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number, caplog):
    with stopping_on_signals("stopping after this one") as stop:
        assert not stop.asked
        signal.raise_signal(number)
        assert stop.asked
        assert [record.getMessage() for record in caplog.records] == ["stopping after this one"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_signals_do_afterwards_what_they_did_before():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stopping_on_signals(""):
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) != before
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_another_thread_leaves_signals_alone():
    seen = []

    def work():
        with stopping_on_signals("") as stop:
            seen.append((stop.asked, signal.getsignal(signal.SIGINT)))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_hears_nothing():
    with stopping_on_signals("") as stop:
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGTERM)
            os._exit(1 if stop.asked else 0)
        assert os.waitpid(child, 0)[1] == 0
    assert not stop.asked
