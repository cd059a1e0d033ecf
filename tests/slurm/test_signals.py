"""The flag by which a worker is asked to stop."""

from __future__ import annotations

import subprocess
import sys

ASKED_AT_EVERY_LINE = """
import signal, sys
from slurm.signals import StopRequest

stop = StopRequest().install()
sent = []

def at_each_line(frame, event, argument):
    if event == "line":
        sent.append(frame.f_code.co_name)
        signal.raise_signal(signal.SIGUSR2)
    return at_each_line

sys.settrace(at_each_line)
signal.raise_signal(signal.SIGUSR1)
stop.request()
sys.settrace(None)
print(stop.requested, *sorted(set(sent)))
"""


def test_a_signal_at_any_line_of_the_handler_of_another_is_taken_without_waiting():
    # Where the flag is a threading.Event this hangs: the interrupted handler holds the lock that the next one wants.
    done = subprocess.run([sys.executable, "-c", ASKED_AT_EVERY_LINE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    requested, *interrupted = done.stdout.split()
    assert requested == "True" and {"_handle", "request"} <= set(interrupted)
