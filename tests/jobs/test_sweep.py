"""`cxrdist sweep` as a process: what stops it."""

from __future__ import annotations

import signal
import time

import pytest

from cxrdist.sweep import run
from cxrdist.sweep.config import SweepConfig
from jobs import sweep


@pytest.fixture
def handlers():
    """Gives back the handlers of the signals that the command takes."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_a_request_to_stop_that_is_repeated_does_not_break_off_the_clearing_up(monkeypatch, capsys):
    cleared = []

    def work(config: SweepConfig) -> int:
        del config
        try:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(60)
        finally:
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
                signal.raise_signal(number)
                cleared.append(number)
        return 0

    monkeypatch.setattr(run, "run", work)
    assert sweep.run(SweepConfig(out="runs/sweep")) == 130
    assert len(cleared) == 3
    assert "the same command goes on" in capsys.readouterr().err
