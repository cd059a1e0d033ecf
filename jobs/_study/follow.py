"""One stage as a process of its own: what it prints is seen as it comes, and kept in its log."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from slurm.launch import FORCE_AFTER, PATIENCE_S
from slurm.processes import end_tree, python

STOPPED = 130
"""Exit code of a stage that was asked to stop."""
LAST_SECONDS = 60.0
"""A stage that is ended by force gets so long to save."""
_COLOURS = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


class Asked:
    """Counts requests to stop (Ctrl-C, TERM, HUP) while a `with` block runs, instead of breaking it off."""

    def __init__(self) -> None:
        """Nothing has been asked yet."""
        self.times = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[Asked]:
        """Take the signals, and give them back afterwards; one that is ignored (HUP under nohup) stays so."""

        def count(number: int, frame: object) -> None:
            del number, frame
            self.times += 1

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        taken = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, count) for number in taken}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def follow(words: Sequence[str], log: Path, lock: Path, heading: str, asked: Asked) -> int:
    """Run `cxrdist WORDS`, show what it prints, add it to its log and return its exit code.

    On a terminal the stage has one as well, so that its progress bars are what they are without a study; of a bar the
    log keeps the last state. The stage is asked to stop as often as this process is, and ended by force at the third
    time, or when it does not end. Where this process is killed, the stage is interrupted (Linux).

    Args:
        words: of the command.
        log: file to add to; its folder is made.
        lock: file that the stage keeps locked until it has ended.
        heading: line before the output, in the log only.
        asked: requests to stop; those that came before are passed on, too.

    Returns:
        its exit code, 128 + N for a death by signal N.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    reader, writer = _terminal() if sys.stdout.isatty() else os.pipe()
    try:
        with log.open("ab") as kept:
            kept.write(f"# {heading}\n".encode("utf-8", "backslashreplace"))
            process = subprocess.Popen(
                python("-m", "jobs._study.stage", str(os.getpid()), str(lock), *words),
                stdin=subprocess.DEVNULL, stdout=writer, stderr=writer,
                start_new_session=True,  # Ctrl-C reaches it once, through us
            )  # fmt: skip
            os.close(writer)
            try:
                _copy(reader, process, _Lines(kept.write), asked)
                code = process.wait()
            except BaseException:  # nobody reads our output any more, or the disk of the log is full
                end_tree(process, LAST_SECONDS)
                raise
    finally:
        os.close(reader)
    return code if code >= 0 else 128 - code


def _terminal() -> tuple[int, int]:
    """A terminal as large as ours, which passes lines on as they are."""
    reader, writer = pty.openpty()
    settings = termios.tcgetattr(writer)
    settings[1] &= ~termios.OPOST
    termios.tcsetattr(writer, termios.TCSANOW, settings)
    size = shutil.get_terminal_size()
    termios.tcsetwinsize(writer, (size.lines, size.columns))
    return reader, writer


def _copy(reader: int, process: subprocess.Popen[bytes], lines: _Lines, asked: Asked) -> None:
    """Pass output on until the process has ended; what its own children keep open is not waited for."""
    told, since = 0, 0.0
    opened = True
    while True:
        ready = opened and select.select([reader], [], [], 0.1)[0]
        if not opened:
            time.sleep(0.05)
        if ready:
            chunk = b""
            with contextlib.suppress(OSError):  # a terminal whose other end is closed
                chunk = os.read(reader, 1 << 16)
            opened = bool(chunk)
            sys.stdout.buffer.write(chunk)
            sys.stdout.flush()
            lines.take(chunk)
        elif process.poll() is not None:
            break
        if asked.times > told and process.poll() is None:
            told, since = asked.times, since or time.monotonic()
            process.send_signal(signal.SIGINT)
        if told and (told >= FORCE_AFTER or time.monotonic() - since > PATIENCE_S + 60):
            end_tree(process, LAST_SECONDS)
    lines.close()


class _Lines:
    """Output as whole lines, of one that was written over (a progress bar) its last state."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write, self._rest = write, b""

    def take(self, chunk: bytes) -> None:
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        for line in whole:
            self._put(line)

    def close(self) -> None:
        if self._rest:
            self._put(self._rest)

    def _put(self, line: bytes) -> None:
        shown = line.rstrip(b"\r").rpartition(b"\r")[2]
        self._write(_COLOURS.sub(b"", shown) + b"\n")
