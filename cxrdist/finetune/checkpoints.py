"""A trial's checkpoints: everything that a trial which was stopped needs to end as if it had not been."""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

import torch

from cxrdist.core import checkpoint
from results.run import Run


class Saver:
    """Writes and finds the checkpoints of one trial."""

    def __init__(self, run: Run):
        self.run = run
        self.signature = str(run.read_info()["signature"])

    def save(
        self,
        state: Any,
        network: torch.nn.Module,
        optimiser: torch.optim.Optimizer | None,
        best: dict[str, torch.Tensor] | None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        """Write a checkpoint of the state's step; the one before stays until it is complete."""
        content = {
            "state": dataclasses.asdict(state),
            "network": network.state_dict(),
            "optimiser": None if optimiser is None else optimiser.state_dict(),
            "best": best,
        }
        if scaler is not None:
            content["scaler"] = scaler.state_dict()
        checkpoint.save(self.run.checkpoints, state.step, content, {"signature": self.signature})
        checkpoint.prune(self.run.checkpoints, keep=2)

    def latest(self) -> dict[str, Any] | None:
        """The newest usable checkpoint's content; None when there is none."""
        found = checkpoint.load_latest(self.run.checkpoints, self.signature)
        return None if found is None else found[0]

    def clear(self) -> None:
        """Delete the checkpoints of a finished trial: its model file holds the best weights."""
        shutil.rmtree(self.run.checkpoints, ignore_errors=True)
