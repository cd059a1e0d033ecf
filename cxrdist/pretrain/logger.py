"""What a run says while it goes on: metrics.jsonl, TensorBoard, and a progress bar or lines. Rank 0 only."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

from cxrdist.core.device import memory_mib
from cxrdist.core.distributed import Ranks
from results.run import Run

_LINE_EVERY_S = 20.0


class Logger:
    """Writes for rank 0 and is silent elsewhere.

    Args:
        run: where metrics.jsonl and tb/ are.
        ranks: who this process is.
        start: steps done already.
        steps: steps in all.
        global_batch: images per step.
        tensorboard: whether to write events.
    """

    def __init__(self, run: Run, ranks: Ranks, *, start: int, steps: int, global_batch: int, tensorboard: bool) -> None:
        self.run, self.ranks, self.steps, self.global_batch = run, ranks, steps, global_batch
        self._tb: Any = None
        self._bar: Any = None
        self._since, self._since_step, self._since_wait = time.perf_counter(), start, 0.0
        self._next_line = 0.0
        if not ranks.is_first:
            return
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # Events of steps that a killed run had done beyond its checkpoint are hidden.
            self._tb = SummaryWriter(str(run.tb), purge_step=start + 1 if start else None)
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True)

    def say(self, text: str) -> None:
        """One line on stderr."""
        if not self.ranks.is_first:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def advance(self) -> None:
        """One more step is done."""
        if self._bar is not None:
            self._bar.update(1)

    def restart_clock(self, step: int, waited: float) -> None:
        """Leave the time until now (evaluation, saving, start-up) out of images per second."""
        self._since, self._since_step, self._since_wait = time.perf_counter(), step, waited

    def step(self, step: int, waited: float, **values: float) -> None:
        """Log a step's values with the speed since the last call: images_per_s, data_wait (share), memory_mib."""
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        values["images_per_s"] = round((step - self._since_step) * self.global_batch / seconds, 2)
        values["data_wait"] = round(max(0.0, waited - self._since_wait) / seconds, 4)
        values["memory_mib"] = round(memory_mib(self.ranks.device), 1)
        self.restart_clock(step, waited)
        self._write(step, values)
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{values['loss']:.4f}", img_s=f"{values['images_per_s']:.0f}")
        elif now >= self._next_line or step == self.steps:
            self._next_line = now + _LINE_EVERY_S
            left = (self.steps - step) * self.global_batch / max(values["images_per_s"], 1e-9)
            self.say(
                f"step {step}/{self.steps}  epoch {values['epoch']:.2f}  loss {values['loss']:.4f}  "
                f"{values['images_per_s']:.0f} images/s  data wait {100 * values['data_wait']:.0f} %  {left:.0f} s left"
            )

    def evaluation(self, step: int, found: dict[str, float]) -> None:
        """Log an evaluation."""
        self._write(step, found)
        self.say(f"step {step}/{self.steps}  " + "  ".join(f"{k} {v:.4f}" for k, v in found.items()))

    def _write(self, step: int, values: dict[str, float]) -> None:
        if not self.ranks.is_first:
            return
        # A full disk must not end a run that can still be saved once there is room again.
        with contextlib.suppress(OSError):
            self.run.log(step, **values)
            if self._tb is not None:
                for name, value in values.items():
                    self._tb.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and release."""
        with contextlib.suppress(OSError):
            if self._tb is not None:
                self._tb.close()
        if self._bar is not None:
            self._bar.close()
