"""The worker of a pretraining run: `python -m cxrdist.pretrain RUN`, alone or as one of torchrun's ranks.

Everything it needs to know is in RUN/config.toml; where to go on is found by looking into RUN/checkpoints.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.deterministic

from cxrdist import checkpoint, rng
from cxrdist.augment import Augment
from cxrdist.config import PretrainConfig, from_dict, validate
from cxrdist.device import pick_device, resolve_precision, set_threads, usable_cores
from cxrdist.distributed import GradientMean, Ranks, join
from cxrdist.errors import FailedError
from cxrdist.journal import Journal
from cxrdist.model import load_init, save_encoder
from cxrdist.optim import build_optimizer, learning_rate, set_rate
from cxrdist.pool import Pool, open_pool
from cxrdist.simclr import SimCLR, Step, build_projection
from cxrdist.sync_norm import synchronise
from cxrdist.watch import Watch
from results.run import Run
from shards import Order
from shards.loader import Loader
from shards.order import rank_slice
from slurm.signals import StopRequest


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0
    """Optimiser steps done."""
    seconds: float = 0.0
    """Wall time of all attempts that led here."""
    evaluated: int = 0
    """Step of the latest evaluation."""
    best_loss: float = math.inf
    """Lowest validation loss."""
    best_step: int = 0
    """Its step; 0: none yet."""
    without_gain: int = 0
    """Evaluations since then."""
    order_sha256: str = ""
    """Hash over the positions of all global batches so far: equal for runs that saw the same samples in order."""


def main(path: str | os.PathLike[str]) -> None:
    """Do, continue, or find done the run in a folder.

    Returns normally when the run is done or was stopped by a signal after saving; only done.json tells which.

    Raises:
        InputError: the configuration or the shard set cannot be used.
        FailedError: training broke off; the message names the step and the checkpoint that is kept.
    """
    stop = StopRequest().install()
    run = Run.open(path)
    if run.is_done:
        return
    config: PretrainConfig = from_dict(PretrainConfig, run.read_config())
    validate(config)
    device = pick_device(config.device)
    set_threads(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    with join(device) as ranks:
        train(config, run, ranks, stop)


def train(config: PretrainConfig, run: Run, ranks: Ranks, stop: StopRequest) -> None:
    """The whole run on this rank, from what is found in its folder to the last file or a stop."""
    part = rank_slice(config.global_batch, ranks.rank, ranks.world)
    pool, order, augment = open_data(config)
    steps = order.steps(config.epochs) if config.steps is None else config.steps
    per_epoch = order.n / config.global_batch
    job = Job(config, run, ranks, pool, augment)
    done = job.resume()
    journal = Journal(
        run, ranks, start=done.step, steps=steps, global_batch=config.global_batch, tensorboard=config.tensorboard
    )
    workers = default_workers(ranks) if config.workers is None else config.workers
    loader = Loader(
        pool.train, order, rank=ranks.rank, world=ranks.world, start_step=done.step, stop_step=steps,
        workers=workers, size=augment.in_size, pin=ranks.device.type == "cuda",
    )  # fmt: skip
    journal.say(job.describe(order, steps, workers, done))
    every = max(1, round(config.watch.every_epochs * per_epoch)) if config.watch.every_epochs > 0 else 0
    save_every = config.checkpoint.every_steps or max(1, math.ceil(per_epoch))
    began, saved_at = time.monotonic() - done.seconds, time.monotonic()
    try:
        if every and done.step and done.step % every == 0 and done.evaluated < done.step:
            job.evaluate(done, journal)  # the signal that stopped the run left no time for it
        for step, positions, images in batches(loader, done, steps, config):
            stopping = ranks.ask(stop.requested)
            rate = learning_rate(config.optim, config.global_batch, step, steps, per_epoch)
            loss, norm = job.step(step, part, images, rate)
            done.step, done.seconds = step + 1, time.monotonic() - began
            done.order_sha256 = chain(done.order_sha256, positions)
            journal.advance()
            if done.step % config.log_every == 0 or done.step == steps or step == 0:
                values = {"loss": job.read(loss), "lr": rate, "epoch": done.step / per_epoch}
                journal.step(done.step, loader.wait_seconds, **values, **({} if norm is None else {"grad_norm": norm}))
            stopped = stopping.answer()
            better = False
            if every and (done.step % every == 0 or done.step == steps) and (not stopped or done.step == steps):
                better = job.evaluate(done, journal)
            late = time.monotonic() - saved_at > 60 * config.checkpoint.every_minutes
            if better or stopped or late or done.step % save_every == 0 or done.step == steps:
                job.save(done, journal, must=stopped)
                saved_at = time.monotonic()
                journal.restart_clock(done.step, loader.wait_seconds)
            if stopped and done.step < steps:
                journal.say(f"stopped at step {done.step} of {steps}, saved; the same command goes on from here")
                return
        job.finish(done, steps, journal)
    finally:
        journal.close()


def batches(loader: Loader, done: Progress, steps: int, config: PretrainConfig) -> Iterator[Any]:
    """The loader's batches from where the run stands, until the last step or the early stop."""
    patience = config.watch.patience
    if done.step >= steps or (patience is not None and done.without_gain >= patience):
        return
    for batch in loader:
        yield batch
        if patience is not None and done.without_gain >= patience:
            return


def chain(before: str, positions: np.ndarray) -> str:
    """Extend the hash over all positions seen by one global batch."""
    return hashlib.sha256(before.encode() + positions.astype("<i8").tobytes()).hexdigest()


def open_data(config: PretrainConfig) -> tuple[Pool, Order, Augment]:
    """Samples, their order, and the augmentation that fits their size."""
    pool = open_pool(config.shards, config.pool, config.seed, stage=config.stage)
    card = pool.train.card
    wanted = config.load_size or 8 * math.ceil(1.25 * config.image_size / 8)
    order = Order(
        len(pool.train),
        seed=config.seed,
        global_batch=config.global_batch,
        shard_sizes=pool.train.shard_sizes if config.window else None,
        window=config.window,
    )
    augment = Augment(
        config.augment, min(card.image_size, wanted), config.image_size, pick_device(config.device),
        mean=card.mean, std=card.std, seed=config.seed,
    )  # fmt: skip
    return pool, order, augment


def default_workers(ranks: Ranks) -> int:
    """Decoding threads of a rank: all its cores beside a GPU (16 at most), one beside a computing CPU."""
    if ranks.device.type != "cuda":
        return 1
    return max(1, min(16, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


class Job:
    """Model, optimiser and files of a run on one rank."""

    def __init__(self, config: PretrainConfig, run: Run, ranks: Ranks, pool: Pool, augment: Augment) -> None:
        self.config, self.run, self.ranks, self.pool, self.augment = config, run, ranks, pool, augment
        self.info = run.read_info()
        self.signature = str(self.info["signature"])
        on_cpu = ranks.device.type == "cpu"
        if config.deterministic or (config.deterministic is None and on_cpu):
            torch.use_deterministic_algorithms(True, warn_only=not config.deterministic)
            # A debugging aid that would cost time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
        torch.manual_seed(rng.mix(config.seed, 0))
        backbone, self.origin = load_init(config.init, config.arch, config.image_size, stem=config.stem)
        head = build_projection(config.head, int(backbone.num_features))  # pyright: ignore[reportArgumentType]
        self.model: Any = SimCLR(backbone, head)
        if config.sync_bn:
            self.model = synchronise(self.model, ranks)
        self.model = self.model.to(ranks.device).to(memory_format=torch.channels_last).train()
        ranks.copy_from_first(self.model)
        self.optimizer = build_optimizer(config.optim, [self.model])
        self.precision = resolve_precision(config.precision, ranks.device, config.image_size, self.origin["stem"])
        self.watch = Watch(config, pool, augment, ranks, self.precision)
        mean = GradientMean(self.model, ranks)
        forward: Any = torch.compile(self.model) if config.compile else self.model
        self._step = Step(
            forward,
            ranks.device,
            self.precision,
            config.temperature,
            mean,
            config.optim.micro_batch,
        )
        self._pending: tuple[int, torch.Tensor, Any] | None = None

    def describe(self, order: Order, steps: int, workers: int, done: Progress) -> str:
        """What is about to run, in one line."""
        config, ranks = self.config, self.ranks
        count = sum(p.numel() for p in self.model.backbone.parameters())
        begins = f"continues at step {done.step} of" if done.step else "starts,"
        return (
            f"pretrain {config.arch} ({count / 1e6:.1f} M, {self.origin['stem']} stem, {self.origin['init']}) on "
            f"{order.n} images at {config.image_size} pixels; {begins} {steps} steps of {config.global_batch}; "
            f"{ranks.world} rank{'s' if ranks.world > 1 else ''} on {ranks.device.type}, {self.precision}, "
            f"{torch.get_num_threads()} threads, {workers} decoding"
        )

    def step(self, step: int, part: slice, images: torch.Tensor, rate: float) -> tuple[torch.Tensor, float | None]:
        """One optimiser step; returns the loss and, where it is clipped or logged, the gradient's norm."""
        config = self.config
        torch.manual_seed(rng.mix(config.seed, 1 + step, self.ranks.rank))  # dropout, stochastic depth
        images = images.to(self.ranks.device, non_blocking=True)
        views = [
            self.augment.apply(images, self.augment.draw(config.seed, step, part, view)).contiguous(
                memory_format=torch.channels_last
            )
            for view in (0, 1)
        ]
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._step(views[0], views[1])
        self._check(step, loss)
        norm = None
        if config.optim.clip_norm is not None:
            norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.optim.clip_norm))
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        return loss, norm

    def _check(self, step: int, loss: torch.Tensor) -> None:
        """Stop at a loss that is no number. On a GPU it is read one step late, so that nothing waits for it."""
        if self.ranks.device.type == "cpu":
            self._refuse(step, float(loss))
            return
        self.flush()
        copy = loss.to("cpu", non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._pending = (step, copy, event)

    def flush(self) -> None:
        """Read the loss that is still on its way from the GPU."""
        if self._pending is not None:
            step, copy, event = self._pending
            self._pending = None
            event.synchronize()
            self._refuse(step, float(copy))

    def read(self, loss: torch.Tensor) -> float:
        """The value of a loss that has been checked or now is."""
        self.flush()
        return float(loss)

    def _refuse(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            kept = checkpoint.steps(self.run.checkpoints)
            last = f"the checkpoint of step {kept[-1]} is kept" if kept else "there is no checkpoint yet"
            raise FailedError(
                f"the loss is {loss} at step {step + 1} of {self.run.path}; {last}. Lower optim.lr, set "
                "optim.clip_norm, or use --precision float32 (in a new --out)"
            )

    def evaluate(self, done: Progress, journal: Journal) -> bool:
        """Measure, and remember the best; returns whether this is the best so far."""
        self.flush()
        found = self.watch.evaluate(self.model)
        done.evaluated = done.step
        if found:
            journal.evaluation(done.step, found)
        if "val_loss" not in found:
            return False
        better = found["val_loss"] < done.best_loss
        if better:
            done.best_loss, done.best_step, done.without_gain = found["val_loss"], done.step, 0
        else:
            done.without_gain += 1
        return better

    def save(self, done: Progress, journal: Journal, *, must: bool = False) -> None:
        """Write a checkpoint on rank 0; a failure is fatal only if it `must` succeed.

        Raises:
            FailedError: the weights are no longer finite, or it had to be saved and was not.
        """
        self.flush()
        if not self.ranks.is_first:
            return
        if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
            raise FailedError(f"weights are no longer finite at step {done.step}; the last good checkpoint is kept")
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "progress": asdict(done)}
        try:
            checkpoint.save(self.run.checkpoints, done.step, state, {"signature": self.signature} | self._facts())
        except FailedError as error:
            if must:
                raise
            journal.say(f"warning: {error}; going on with the earlier one")
            return
        best = done.best_step if self.config.export == "best" or self.config.watch.patience is not None else None
        checkpoint.prune(self.run.checkpoints, self.config.checkpoint.keep, best or done.best_step or None)

    def _facts(self) -> dict[str, Any]:
        return {"world": self.ranks.world, "precision": self.precision, "device": self.ranks.device.type}

    def resume(self) -> Progress:
        """Load the newest usable checkpoint, the same one on every rank."""
        found = checkpoint.load_latest(self.run.checkpoints, self.signature) if self.ranks.is_first else None
        step = self.ranks.share(found[1]["step"] if found else 0)
        if step == 0:
            return Progress()
        if found is None:
            found = checkpoint.load(checkpoint.folder(self.run.checkpoints, step), self.signature)
        state, meta = found
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if meta.get("precision") != self.precision and self.ranks.is_first:
            warnings.warn(
                f"step {step} was reached in {meta.get('precision')}, this machine goes on in {self.precision}; "
                "give --precision to fix it",
                stacklevel=2,
            )
        return Progress(**state["progress"])

    def finish(self, done: Progress, steps: int, journal: Journal) -> None:
        """Write the encoder and, last, done.json."""
        self.flush()
        if self.ranks.is_first:
            exported = self._export(done, journal)
            gpus = self.ranks.world if self.ranks.device.type == "cuda" else 0
            facts = {
                "steps": done.step,
                "images_seen": done.step * self.config.global_batch,
                "stopped_early": done.step < steps,
                "exported_step": exported,
                "best_step": done.best_step or None,
                "best_val_loss": done.best_loss if done.best_step else None,
                "order_sha256": done.order_sha256,
                "wall_seconds": round(done.seconds, 3),
                "gpu_seconds": round(done.seconds * gpus, 3),
                "world": self.ranks.world,
                "precision": self.precision,
            }
            self.run.finish(**facts)
            journal.say(f"done: {self.run.encoder} after {done.step} steps, {done.seconds:.0f} s")
        self.ranks.any(False)  # nobody leaves before the last file is there

    def _export(self, done: Progress, journal: Journal) -> int:
        step = done.step
        if self.config.export == "best" and done.best_step:
            try:
                best = checkpoint.folder(self.run.checkpoints, done.best_step)
                self.model.load_state_dict(checkpoint.load(best, self.signature)[0]["model"])
                step = done.best_step
            except FailedError as error:
                journal.say(f"warning: {error}; the last weights are exported instead")
        card = self.pool.train.card
        facts = {
            "arch": self.config.arch,
            "in_chans": 1,
            "image_size": self.config.image_size,
            "mean": card.mean,
            "std": card.std,
            "stem": self.origin["stem"],
            "num_features": self.model.backbone.num_features,
            "signature": self.signature,
            "job": "pretrain",
            "init": self.config.init,
            "dataset": card.name,
            "shards_sha256": card.sha256,
            "step": step,
            "seed": self.config.seed,
            "precision": self.precision,
        }
        save_encoder(self.run.encoder, self.model.backbone, facts)
        return step


def run_worker(argv: list[str]) -> int:
    """The command line of a worker: one argument, the run's folder. Errors become one line and an exit code."""
    if len(argv) != 1:
        print("usage: python -m cxrdist.pretrain RUN", file=sys.stderr)
        return 2
    warnings.simplefilter("default")
    warnings.showwarning = _one_line
    try:
        main(Path(argv[0]))
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        print(f"cxrdist: {error}", file=sys.stderr, flush=True)
        return int(code)
    return 0


def _one_line(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
    print(f"warning: {message}", file=file or sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(run_worker(sys.argv[1:]))
