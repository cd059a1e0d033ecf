"""The loop that trains a classifier's layers: phases, steps, validations, the best weights, early stopping, resuming.

Everything random is a function of (seed, step), so a trial resumed from a checkpoint ends with the same bits as one
that was never stopped (CPU, same number of threads).

Shapes: n training samples, G global batch, L labels.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from cxrdist.core import rng
from cxrdist.core.device import autocast, gradient_scaler, refuse_lowest_scale
from cxrdist.errors import FailedError
from cxrdist.finetune.config import FinetuneConfig
from cxrdist.finetune.heads import head_penalty, masked_bce
from cxrdist.finetune.phases import Phase, optimiser, order_of, phases, schedule
from results.run import Run
from results.stats.metrics import auroc

log = logging.getLogger("cxrdist.finetune")

MOST_VALIDATIONS = 12
"""Validations in a trial, unless eval_steps says otherwise."""

NOTHING = (-math.inf, -math.inf)
"""Merit (val AUROC, minus val loss) before the first validation."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What one validation found."""

    step: int
    epoch: float
    auroc: float | None
    """Macro over the labels that have both classes in val; None when no label has."""
    loss: float | None
    """Mean loss on val; None without a val split."""
    best: bool
    """Whether this is the best validation so far."""


@dataclass
class State:
    """What a checkpoint holds beside the model and the optimiser."""

    step: int = 0
    """Of the plan: steps taken, and those left out when patience ended a phase early."""
    skipped: int = 0
    """Those left out."""
    phase: int = 0
    """Number of the phase that the next two belong to."""
    phase_merit: list[float] = field(default_factory=lambda: list(NOTHING))
    """Best validation of this phase."""
    since_best: int = 0
    """Validations since then."""
    best_merit: list[float] = field(default_factory=lambda: list(NOTHING))
    """Best validation of all."""
    best_step: int = 0
    best_phase: int = 0
    """The phase that it was in."""
    best_auroc: float | None = None
    seconds: float = 0.0


class Stopped(Exception):
    """The process was asked to stop; a checkpoint was written."""


@dataclass
class FitInputs:
    """What is trained, and on what."""

    network: nn.Module
    """Inputs of `batch` -> logits (G, L)."""
    head: nn.Module
    """The part of the network that counts as its head."""
    unfreeze: Callable[[int | None, bool], Any]
    """Makes the last stages or layers trainable; see `Classifier.unfreeze`."""
    batch: Callable[[int, np.ndarray], torch.Tensor]
    """(step, indices (G,) into the training samples) -> inputs."""
    y: torch.Tensor
    """float32 (n, L)."""
    mask: torch.Tensor
    """bool (n, L)."""
    weights: tuple[torch.Tensor, torch.Tensor]
    """Class weights (L,) each, of positives and negatives."""
    val_logits: Callable[[], np.ndarray] | None
    """Logits of val with the present weights, float32 (n_val, L); None without val."""
    val_y: np.ndarray | None
    val_mask: np.ndarray | None
    trainable: np.ndarray
    """bool (L,): labels whose val AUROC counts."""
    precision: str


class Fit:
    """Trains a problem; iterate over it for the validations.

    After the last validation the network holds the best weights (the last ones without a val split).
    """

    def __init__(self, config: FinetuneConfig, problem: FitInputs, run: Run, saver: Any, stop: Any = None):
        self.config, self.problem, self.run, self.saver, self.stop = config, problem, run, saver, stop
        self.n = len(problem.y)
        self.order = order_of(config, self.n)
        self.phases = phases(config, self.n)
        self.total = sum(phase.steps for phase in self.phases)
        self.per_epoch = self.n / self.order.global_batch
        every = max(math.ceil(self.per_epoch), math.ceil(self.total / MOST_VALIDATIONS))
        self.eval_steps = config.eval_steps or every
        self.state = State()
        self.best: dict[str, torch.Tensor] | None = None
        self._optimiser: torch.optim.Optimizer | None = None
        self._phase = -1
        self.scaler = gradient_scaler(problem.y.device, problem.precision)
        self._since_save = time.monotonic()
        self.earlier_seconds = 0.0

    def __iter__(self) -> Iterator[Validation]:
        """Train, and yield a validation every `eval_steps` steps and at the end."""
        self._restore()
        began = time.monotonic() - self.earlier_seconds
        # On a terminal only: workers of a sweep and jobs write logs, which get a line a validation instead.
        with tqdm(total=self.total, initial=self.state.step, desc="fine-tuning", unit="step", disable=None) as bar:
            yield from self._train(began, bar)
        if self.best is not None:
            self.problem.network.load_state_dict(self.best)

    def _train(self, began: float, bar: tqdm) -> Iterator[Validation]:
        while self.state.step < self.total:
            if self._patience_over() and not self._end_phase():
                break
            loss = self._step(self.state.step)
            self.state.step += 1
            bar.update(self.state.step - bar.n)
            done = self.state.step == self.total
            if self.state.step % self.config.log_every == 0 or done:
                self._log(loss)
            found = self._validate() if self.state.step % self.eval_steps == 0 or done else None
            self.state.seconds = time.monotonic() - began
            self._maybe_save()
            if found is not None:
                self._say(found, loss, bar)
                yield found

    def _say(self, found: Validation, loss: torch.Tensor, bar: tqdm) -> None:
        """What a validation found, on the bar or as a line of the log."""
        auroc = "undefined" if found.auroc is None else f"{found.auroc:.4f}"
        if not bar.disable:
            bar.set_postfix(loss=f"{float(loss):.4f}", val_auroc=auroc)
            return
        line = f"step {found.step}/{self.total}  epoch {found.epoch:.2f}  loss {float(loss):.4f}  val AUROC {auroc}"
        log.info("%s%s", line, "  best so far" if found.best else "")

    def _patience_over(self) -> bool:
        patience = self.config.patience
        return self.problem.val_logits is not None and patience is not None and self.state.since_best >= patience

    def _end_phase(self) -> bool:
        """Go on with the next phase, if there is one."""
        end = sum(phase.steps for phase in self.phases[: self.state.phase + 1])
        if end >= self.total:
            return False
        self.state.skipped += max(0, end - self.state.step)
        self.state.step = max(end, self.state.step)
        self._count_anew(self.state.phase + 1)
        return True

    def _count_anew(self, phase: int) -> None:
        """Patience is each phase's own: a head that no longer gains says nothing about the layers below it."""
        self.state.phase, self.state.since_best, self.state.phase_merit = phase, 0, list(NOTHING)

    def _enter_phase(self, step: int) -> tuple[Phase, int]:
        """The phase of a step and the step within it; sets up the phase's optimiser when it begins."""
        number, inside = 0, step
        while inside >= self.phases[number].steps:
            inside -= self.phases[number].steps
            number += 1
        phase = self.phases[number]
        if number > self.state.phase:
            self._count_anew(number)
        if number != self._phase:
            self.problem.unfreeze(phase.last, phase.layers)
            self._optimiser = optimiser(self.config, self.problem.network, self.problem.head, phase)
            self._phase = number
        return phase, inside

    def _step(self, step: int) -> torch.Tensor:
        """One optimiser step; returns the loss, still on the device."""
        phase, inside = self._enter_phase(step)
        problem, optim = self.problem, self._optimiser
        assert optim is not None
        share = schedule(self.config, phase, inside)
        for group in optim.param_groups:
            group["lr"] = group["peak"] * share
        problem.network.train()
        rows = self.order.positions(step)
        inputs = problem.batch(step, rows)
        torch.manual_seed(rng.mix(self.config.seed, int(rng.Stream.DROPOUT), step))
        with autocast(inputs.device, problem.precision):
            logits = problem.network(inputs)
        at = torch.from_numpy(rows).to(problem.y.device)
        loss = masked_bce(logits, problem.y[at], problem.mask[at], problem.weights)
        penalty = head_penalty(self.config.head, problem.head)
        optim.zero_grad(set_to_none=True)
        whole = loss if penalty is None else loss + penalty
        (whole if self.scaler is None else self.scaler.scale(whole)).backward()
        self._move(optim)
        return loss.detach()

    def _move(self, optim: torch.optim.Optimizer) -> None:
        """Clip the gradient and let the optimiser step; with a scaler only if the gradient is finite."""
        if self.scaler is not None:
            self.scaler.unscale_(optim)
        if self.config.optim.clip_norm is not None:
            nn.utils.clip_grad_norm_(
                [p for group in optim.param_groups for p in group["params"]], self.config.optim.clip_norm
            )
        if self.scaler is None:
            optim.step()
        else:
            self.scaler.step(optim)
            self.scaler.update()

    def _log(self, loss: torch.Tensor) -> None:
        value = float(loss)
        if not math.isfinite(value):
            raise FailedError(
                f"the loss became {value} at step {self.state.step}; lower optim.lr{self._wider()} and run again"
            )
        if self.scaler is not None:
            refuse_lowest_scale(self.scaler, self.state.step)
        assert self._optimiser is not None
        rate = max(group["lr"] for group in self._optimiser.param_groups)
        self.run.log(self.state.step, epoch=round(self.state.step / self.per_epoch, 3), loss=value, lr=rate)

    def _wider(self) -> str:
        """What else helps against numbers that are not finite: fp16 ends at 65,504."""
        return " or take --precision bf16 or float32" if self.problem.precision == "fp16" else ""

    def _validate(self) -> Validation:
        state, problem = self.state, self.problem
        epoch = round(state.step / self.per_epoch, 3)
        if problem.val_logits is None:
            return Validation(step=state.step, epoch=epoch, auroc=None, loss=None, best=True)
        problem.network.eval()
        logits = problem.val_logits()
        assert problem.val_y is not None and problem.val_mask is not None
        value = macro_auroc(logits, problem.val_y, problem.val_mask, problem.trainable)
        loss = self._val_loss(logits)
        if not math.isfinite(loss):
            raise FailedError(
                f"the val loss became {loss} at step {state.step}; lower optim.lr{self._wider()} and run again"
            )
        merit = [-math.inf if value is None else value, -loss]
        best = merit > state.best_merit
        gained = merit > state.phase_merit
        state.since_best = 0 if gained else state.since_best + 1
        if gained:
            state.phase_merit = merit
        if best:
            state.best_merit, state.best_step, state.best_auroc = merit, state.step, value
            state.best_phase = self._phase
            self.best = {name: tensor.detach().clone() for name, tensor in problem.network.state_dict().items()}
        self.run.log(state.step, epoch=epoch, val_auroc=value, val_loss=loss)
        return Validation(step=state.step, epoch=epoch, auroc=value, loss=loss, best=best)

    def _val_loss(self, logits: np.ndarray) -> float:
        problem = self.problem
        assert problem.val_y is not None and problem.val_mask is not None
        known = torch.from_numpy(problem.val_mask & problem.trainable)
        ones = torch.ones(logits.shape[1])
        return float(masked_bce(torch.from_numpy(logits), torch.from_numpy(problem.val_y), known, (ones, ones)))

    def _maybe_save(self) -> None:
        asked = self.stop is not None and self.stop.requested
        if not asked and time.monotonic() - self._since_save < self.config.checkpoint_seconds:
            return
        self.save()
        if asked:
            raise Stopped(f"asked to stop after step {self.state.step}")

    def save(self) -> None:
        """Write a checkpoint of this step."""
        if self.saver is not None:
            optim = self._optimiser
            self.saver.save(self.state, self.problem.network, optim, self.best, self.scaler)
        self._since_save = time.monotonic()

    def _restore(self) -> None:
        """Take up the latest checkpoint, if there is one."""
        found = None if self.saver is None else self.saver.latest()
        if found is None:
            return
        self.state = State(**found["state"])
        self.problem.network.load_state_dict(found["network"])
        self.best = found["best"] or None
        if self.state.step < self.total and found["optimiser"] is not None:
            # The optimiser belongs to the phase of the step that was saved last, which may have just ended.
            self._enter_phase(self.state.step - 1)
            assert self._optimiser is not None
            self._optimiser.load_state_dict(found["optimiser"])
        if self.scaler is not None and found.get("scaler"):
            self.scaler.load_state_dict(found["scaler"])
        self.earlier_seconds = self.state.seconds


def macro_auroc(logits: np.ndarray, y: np.ndarray, mask: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean AUROC over the labels (bool (L,)) that have both classes among the known samples; None when none has."""
    values = []
    for column in np.flatnonzero(labels):
        known = mask[:, column]
        truth = y[known, column] > 0
        if truth.any() and not truth.all():
            values.append(auroc(truth, logits[known, column]))
    return float(np.mean(values)) if values else None
