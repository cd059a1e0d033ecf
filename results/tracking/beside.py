"""The process that mirrors a run while another one trains it.

It ends when the training's end of a pipe is closed, however the training ends, after one more attempt to send what is
left. Whatever a tracker does, it does in this process: it cannot slow the training, and cannot stop it.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from results.errors import InputError
from results.tracking.backends import names

EVERY_S = 5.0
"""Seconds between two looks at the files."""

GRACE_S = 20.0
"""Seconds that a run which is done waits for its last numbers to be sent."""

STOPPED_GRACE_S = 3.0
"""The same of one that was stopped: a job that is preempted has little time, and the next one sends the rest."""


@contextlib.contextmanager
def tracked(folder: Path, trackers: str | None, is_done: Callable[[], bool] | None = None) -> Iterator[None]:
    """Mirror the runs below a folder while a `with` block trains them.

    Args:
        folder: a run, or a folder of runs.
        trackers: names separated by commas; None or empty mirrors nothing.
        is_done: whether the block has done all there is to do, asked at its end; None = the folder has a done.json.

    Nothing of it raises an error: what a tracker needs is checked where the configuration is (`backends.names`).
    """
    child = _start(folder, trackers) if trackers else None
    try:
        yield
    finally:
        if child is not None:
            assert child.stdin is not None
            with contextlib.suppress(OSError):
                child.stdin.close()
            done = (folder / "done.json").is_file() if is_done is None else is_done()
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(GRACE_S if done else STOPPED_GRACE_S)
            finally:  # also where a second Ctrl-C ends the waiting
                if child.poll() is None:
                    child.kill()
                    child.wait()
                    print(
                        f"cxrdist: not all could be sent to {trackers};"
                        f" cxrdist track {shlex.quote(str(folder))} --to {trackers} sends the rest",
                        file=sys.stderr,
                    )


def _start(folder: Path, trackers: str) -> subprocess.Popen[bytes] | None:
    """Start the process, or say why not: training goes on without it."""
    command = [sys.executable, "-m", "results.tracking.beside", str(folder), trackers]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONSAFEPATH": "1"}
    try:
        names(trackers)
        with (folder / "tracking.log").open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=None, env=env, start_new_session=True
            )
    except (OSError, InputError) as error:
        print(f"cxrdist: nothing is sent to {trackers}: {error}", file=sys.stderr)
        return None


def main(folder: str, trackers: str) -> int:
    """Mirror until stdin is closed."""
    from results.tracking.mirror import Mirror

    os.nice(10)  # where cores are few, they are the training's
    mirror = Mirror(Path(folder), names(trackers))
    is_open = True
    while is_open:
        mirror.sync()
        ready, _, _ = select.select([sys.stdin], [], [], EVERY_S)
        is_open = not ready or bool(os.read(sys.stdin.fileno(), 4096))
    began = time.monotonic()
    while not mirror.sync() and time.monotonic() - began < GRACE_S / 2:
        time.sleep(1.0)
    mirror.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
