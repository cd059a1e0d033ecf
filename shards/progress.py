"""How far the work is: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

LINE_EVERY = 30.0
"""Seconds between two lines in a log."""


class Progress:
    """Counts finished samples; a context manager.

    Args:
        total: how many there are.
        what: is done with them, as the first words of a line.
        say: takes the lines of a log; None: they go to stderr.
        unit: of the bar.
        quiet: neither bar nor lines.
        leave: the bar stays on the terminal when all is done.
    """

    def __init__(
        self, total: int, what: str, say: Callable[[str], None] | None = None, unit: str = "img", *,
        quiet: bool = False, leave: bool = True,
    ) -> None:  # fmt: skip
        self.total, self.what, self.say, self.unit = total, what, say or _to_stderr, unit
        self.quiet, self.leave = quiet, leave
        self.done = 0
        self.start = self.last_line = time.monotonic()
        self.at_start = 0
        self.bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and not self.quiet:
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, unit=self.unit, desc=self.what, leave=self.leave)
        return self

    def add(self, count: int, **facts: Any) -> None:
        """Note `count` more; the first call may count what an earlier run had done."""
        if self.done == 0 and not facts:
            self.at_start = count
        self.done += count
        if self.bar is not None:
            self.bar.set_postfix(facts, refresh=False)
            self.bar.update(count)
            return
        now = time.monotonic()
        if now - self.last_line >= LINE_EVERY and not self.quiet:
            self.last_line = now
            speed = (self.done - self.at_start) / (now - self.start)
            shown = "".join(f", {name} {value}" for name, value in facts.items())
            self.say(f"{self.what} {self.done} of {self.total}, {speed:.0f}/s{shown}")

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
