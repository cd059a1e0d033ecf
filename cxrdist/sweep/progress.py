"""What a sweep shows while it runs: finished cells, what runs now, time left."""

from __future__ import annotations

import sys
import time
from typing import Any

from cxrdist.sweep import cost


class SweepProgress:
    """A bar with a line above it for every finished cell on a terminal; lines alone in a log."""

    def __init__(self, total: int, done: int):
        self.total, self.count = total, done
        self.terminal = sys.stderr.isatty()
        self.bar: Any = None
        self._last = time.monotonic()

    def __enter__(self) -> SweepProgress:
        if self.terminal:
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, initial=self.count, unit="cell", file=sys.stderr, dynamic_ncols=True)
            self.bar.bar_format = "{l_bar}{bar}| {n_fmt}/{total_fmt} cells [{elapsed}{postfix}]"
        self.line(f"{self.count} of {self.total} cells are done, {self.total - self.count} to run")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def line(self, text: str) -> None:
        """One line that stays."""
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def done(self, text: str) -> None:
        """One more cell is done."""
        self.count += 1
        self.line(f"[{self.count:>{len(str(self.total))}}/{self.total}] {text}")
        if self.bar is not None:
            self.bar.update(1)

    def state(self, running: int, failed: int, left: float | None) -> None:
        """What runs now and how long it will take; on a terminal in the bar, in a log every half minute."""
        text = f"{running} running"
        text += f", {failed} failed" if failed else ""
        text += f", about {cost.spoken(left)} left" if left is not None else ""
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=True)
        elif time.monotonic() - self._last > 30:
            self._last = time.monotonic()
            self.line(f"{self.count}/{self.total} done, {text}")
