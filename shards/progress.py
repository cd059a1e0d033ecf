"""How far the work is: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

LINE_EVERY = 30.0
"""Seconds between two lines in a log."""


class Progress:
    """Counts finished samples; a context manager."""

    def __init__(self, total: int, what: str, say: Callable[[str], None], unit: str = "img") -> None:
        self.total, self.what, self.say, self.unit = total, what, say, unit
        self.done = 0
        self.start = self.last_line = time.monotonic()
        self.at_start = 0
        self.bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, unit=self.unit, desc=self.what)
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
        if now - self.last_line >= LINE_EVERY:
            self.last_line = now
            speed = (self.done - self.at_start) / (now - self.start)
            shown = "".join(f", {name} {value}" for name, value in facts.items())
            self.say(f"{self.what} {self.done} of {self.total}, {speed:.0f}/s{shown}")

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
