"""Model, optimiser and files of a pretraining run on one rank, and how far the run has come."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from cxrdist.core import checkpoint, rng
from cxrdist.core.augment import Augment
from cxrdist.core.backbones import load_init, save_encoder
from cxrdist.core.checkpoint_writer import CheckpointWriter, copied
from cxrdist.core.device import (
    gradient_scaler,
    refuse_lowest_scale,
    resolve_precision,
    take_deterministic_kernels,
)
from cxrdist.core.distributed import Ranks, data_parallel
from cxrdist.errors import FailedError
from cxrdist.pretrain.config import PretrainConfig
from cxrdist.pretrain.logger import Logger
from cxrdist.pretrain.methods import METHODS
from cxrdist.pretrain.online_eval import OnlineEvaluation
from cxrdist.pretrain.optim import build_optimizer, set_rate
from cxrdist.pretrain.patients import Partners, names, patients_of
from cxrdist.pretrain.samples import Pool
from cxrdist.pretrain.state import TrainingState
from cxrdist.pretrain.step import JointEmbedding, Step
from cxrdist.pretrain.sync_norm import synchronise
from cxrdist.pretrain.union import own_scale, per_set_facts
from results.run import Run
from shards import Order, ShardUnion


class Job:
    """Model, optimiser and files of a run on one rank."""

    def __init__(self, config: PretrainConfig, run: Run, ranks: Ranks, pool: Pool, augment: Augment) -> None:
        self.config, self.run, self.ranks, self.pool, self.augment = config, run, ranks, pool, augment
        self.info = run.read_info()
        self.signature = str(self.info["signature"])
        on_cpu = ranks.device.type == "cpu"
        deterministic = config.deterministic or (config.deterministic is None and on_cpu)
        torch.backends.cudnn.benchmark = not on_cpu and not deterministic
        if deterministic:
            take_deterministic_kernels(required=bool(config.deterministic))
        torch.manual_seed(rng.mix(config.seed, 0))
        own_pixels = config.init_mean is not None
        asked = (config.init, config.arch, config.image_size)
        backbone, self.origin = load_init(*asked, stem=config.stem, own_pixels=own_pixels)
        self.method = METHODS[config.method].build(config)
        head = self.method.head(int(backbone.num_features))  # pyright: ignore[reportArgumentType]
        self.model: Any = JointEmbedding(backbone, head)
        if config.sync_bn:
            self.model = synchronise(self.model, ranks)
        self.model = self.model.to(ranks.device).to(memory_format=torch.channels_last).train()
        self.optimizer = build_optimizer(config.optim, [self.model], on_gpu=not on_cpu)
        asked = (config.precision, ranks.device, config.image_size, self.origin["stem"])
        self.precision = resolve_precision(*asked, scaled=True)
        self.scaler = gradient_scaler(ranks.device, self.precision)
        self.watch = OnlineEvaluation(config, pool, augment, ranks, self.precision, self.method)
        self.partners = Partners(patients_of(pool.train), config.seed) if config.positives == "patient" else None
        self.patients = patients_of(pool.train) if config.negatives == "other_patients" else None
        self.per_set = config.normalise == "set"
        self._step = self._build_step()
        self._pending: tuple[int, torch.Tensor, Any] | None = None
        self._writer = CheckpointWriter()

    def _build_step(self) -> Step:
        """The step; with several ranks after a pass that was thrown away."""
        config, ranks = self.config, self.ranks
        # A compiled model is compiled for the number and layout of a step's own views.
        count = 2 * config.global_batch // ranks.world if config.compile else 2
        views = torch.zeros(count, 1, config.image_size, config.image_size, device=ranks.device)
        parallel = data_parallel(self.model, ranks, views[:2], config.comm_hook)
        forward: Any = torch.compile(parallel) if config.compile else parallel
        parts = config.optim.micro_batch
        step = Step(forward, ranks.device, self.precision, self.method.loss, parts, self.scaler)
        if ranks.world > 1:
            step.rehearse(views)
        return step

    def describe(self, order: Order, steps: int, workers: int, done: TrainingState) -> str:
        """What is about to run, in one line."""
        config, ranks = self.config, self.ranks
        count = sum(p.numel() for p in self.model.backbone.parameters())
        begins = f"continues at step {done.step} of" if done.step else "starts,"
        return (
            f"pretrain {config.arch} by {config.method} ({count / 1e6:.1f} M, {self.origin['stem']} stem, "
            f"{self.origin['init']}) on {order.n} images at {config.image_size} pixels; {begins} {steps} steps of "
            f"{config.global_batch}; {ranks.world} rank{'s' if ranks.world > 1 else ''} on {ranks.device.type}, "
            f"{self.precision}, {torch.get_num_threads()} threads, {workers} decoding"
        )

    def step(
        self, step: int, part: slice, positions: np.ndarray, images: torch.Tensor, rate: float
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """One optimiser step.

        Args:
            step: its number.
            part: this rank's rows of the global batch.
            positions: which samples the global batch holds, int64 (G,).
            images: this rank's, uint8 (B, 1, S, S); with partners those of the second views behind them, (2B, 1, S, S).
            rate: the learning rate.

        Returns:
            The loss and, where it is clipped, the gradient's norm; both on the device, so that nothing waits for them.
        """
        config = self.config
        torch.manual_seed(rng.mix(config.seed, 1 + step, self.ranks.rank))  # dropout, stochastic depth
        images = images.to(self.ranks.device, non_blocking=True)
        second = None if self.partners is None else self.partners(step, positions)
        shown = ((images, positions),) * 2 if second is None else zip(images.chunk(2), (positions, second), strict=True)
        views = [
            self.augment.apply(
                seen, self.augment.draw(config.seed, step, part, view), self._scale(held[part])
            ).contiguous(memory_format=torch.channels_last)
            for view, (seen, held) in enumerate(shown)
        ]
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._step(views[0], views[1], names(positions, second, self.patients))
        self._check(step, loss)
        set_rate(self.optimizer, rate)
        return loss, self._move()

    def _scale(self, positions: np.ndarray) -> np.ndarray | None:
        """Mean and deviation that each sample's pixels are normalised with; None: the union's for all."""
        return own_scale(self.pool.train, positions) if self.per_set else None

    def _move(self) -> torch.Tensor | None:
        """Clip the gradient and let the optimiser step; with a scaler only if the gradient is finite."""
        limit, norm = self.config.optim.clip_norm, None
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if limit is not None:
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return norm

    def _check(self, step: int, loss: torch.Tensor) -> None:
        """Stop at a loss that is not finite. On a GPU it is read one step late, so that nothing waits for it."""
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
            self.settle()
            kept = checkpoint.steps(self.run.checkpoints)
            last = f"the checkpoint of step {kept[-1]} is kept" if kept else "there is no checkpoint yet"
            raise FailedError(
                f"the loss is {loss} at step {step + 1} of {self.run.path}; {last}. Lower optim.lr, set "
                "optim.clip_norm, or use --precision float32 (in a new --out)"
            )

    def evaluate(self, done: TrainingState, logger: Logger) -> bool:
        """Measure, and remember the best; returns whether this is the best so far."""
        self.flush()
        found = self.watch.evaluate(self.model)
        done.evaluated = done.step
        if found:
            logger.evaluation(done.step, found)
        if "val_loss" not in found:
            return False
        better = found["val_loss"] < done.best_loss
        if better:
            done.best_loss, done.best_step, done.without_gain = found["val_loss"], done.step, 0
        else:
            done.without_gain += 1
        return better

    def save(self, done: TrainingState, logger: Logger, *, must: bool = False) -> None:
        """Write a checkpoint on rank 0: a thread writes a copy of the state, the training goes on meanwhile.

        Args:
            done: how far the run has come.
            logger: is told of a failure.
            must: wait until it is written, and fail if it is not.

        Raises:
            FailedError: the weights are no longer finite, gradients are not at any scale, or it had to be saved and was
                not.
        """
        self.flush()
        if not self.ranks.is_first:
            return
        if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
            raise FailedError(f"weights are no longer finite at step {done.step}; the last good checkpoint is kept")
        if self.scaler is not None:
            refuse_lowest_scale(self.scaler, done.step)
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "progress": asdict(done)}
        if self.scaler is not None:
            state["scaler"] = self.scaler.state_dict()
        self.settle(logger)
        held, root, step = copied(state), self.run.checkpoints, done.step
        facts, keep, best = {"signature": self.signature} | self._facts(), self.config.checkpoint.keep, done.best_step

        def write() -> None:
            checkpoint.save(root, step, held, facts)
            checkpoint.prune(root, keep, best or None)

        self._writer.start(write)
        if must:
            self._writer.settle()

    def settle(self, logger: Logger | None = None) -> None:
        """Wait until no checkpoint is being written; a failure costs that checkpoint alone, and the logger is told."""
        try:
            self._writer.settle()
        except FailedError as error:
            if logger is not None:
                logger.say(f"warning: {error}; going on with the earlier one")

    def _facts(self) -> dict[str, Any]:
        return {"world": self.ranks.world, "precision": self.precision, "device": self.ranks.device.type}

    def resume(self) -> TrainingState:
        """Load the newest usable checkpoint, the same one on every rank."""
        found = checkpoint.load_latest(self.run.checkpoints, self.signature) if self.ranks.is_first else None
        step = self.ranks.share(found[1]["step"] if found else 0)
        if step == 0:
            return TrainingState()
        if found is None:
            found = checkpoint.load(checkpoint.folder(self.run.checkpoints, step), self.signature)
        state, meta = found
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler is not None and "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])
        if meta.get("precision") != self.precision and self.ranks.is_first:
            warnings.warn(
                f"step {step} was reached in {meta.get('precision')}, this machine goes on in {self.precision}; "
                "give --precision to fix it",
                stacklevel=2,
            )
        return TrainingState(**state["progress"])

    def finish(self, done: TrainingState, steps: int, logger: Logger) -> None:
        """Write the encoder and, last, done.json."""
        self.flush()
        self.settle(logger)
        if self.ranks.is_first:
            exported, weights = self._export(done, logger)
            gpus = self.ranks.world if self.ranks.device.type == "cuda" else 0
            facts = {
                "steps": done.step,
                "images_seen": done.step * self.config.global_batch,
                "stopped_early": done.step < steps,
                "exported_step": exported,
                "weights_sha256": weights,
                "best_step": done.best_step or None,
                "best_val_loss": done.best_loss if done.best_step else None,
                "order_sha256": done.order_sha256,
                "method": self.config.method,
                "wall_seconds": round(done.seconds, 3),
                "gpu_seconds": round(done.seconds * gpus, 3),
                "world": self.ranks.world,
                "precision": self.precision,
                "dataset": self.pool.facts.name,
                "dataset_hash": self.pool.facts.sha256,
                "n_parameters": sum(p.numel() for p in self.model.parameters()),
            }
            self.run.finish(**facts)
            logger.say(f"done: {self.run.encoder} after {done.step} steps, {done.seconds:.0f} s")
        self.ranks.any(False)  # no rank leaves before the last file is there

    def _export(self, done: TrainingState, logger: Logger) -> tuple[int, str]:
        """Write the encoder; return the step of its weights and their hash."""
        step = done.step
        if self.config.export == "best" and done.best_step:
            try:
                best = checkpoint.folder(self.run.checkpoints, done.best_step)
                self.model.load_state_dict(checkpoint.load(best, self.signature)[0]["model"])
                step = done.best_step
            except FailedError as error:
                logger.say(f"warning: {error}; the last weights are exported instead")
        learnt_from = self.pool.facts
        facts = {
            "arch": self.config.arch,
            "in_chans": 1,
            "image_size": self.config.image_size,
            "mean": self.augment.mean,
            "std": self.augment.std,
            "stem": self.origin["stem"],
            "num_features": self.model.backbone.num_features,
            "signature": self.signature,
            "job": "pretrain",
            "method": self.config.method,
            "init": self.config.init,
            "dataset": learnt_from.name,
            "shards_sha256": learnt_from.sha256,
            "step": step,
            "seed": self.config.seed,
            "precision": self.precision,
        }
        if self.per_set and isinstance(self.pool.train, ShardUnion):
            facts |= per_set_facts(self.pool.train)
        return step, save_encoder(self.run.encoder, self.model.backbone, facts)
