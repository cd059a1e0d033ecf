"""One fine-tuning trial: labelled fraction -> model -> test numbers. No Ray here; a sweep calls `run_trial` too.

python -m cxrdist.finetune RUN      everything is read from RUN/config.toml
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cxrdist.core import preparation, shard_sets
from cxrdist.core.augment import Augment
from cxrdist.core.augment_params import load_size, resolve
from cxrdist.core.device import pick_device, resolve_precision, set_threads
from cxrdist.core.initialisation import refuse_another
from cxrdist.finetune import classifier, labelled_data, linear_probe, rbf_probe, tester
from cxrdist.finetune.checkpoints import Saver
from cxrdist.finetune.classifier import Classifier
from cxrdist.finetune.config import FinetuneConfig, words
from cxrdist.finetune.decoded_images import StepImages
from cxrdist.finetune.features import Network
from cxrdist.finetune.heads import class_weights
from cxrdist.finetune.labelled_data import TrialData
from cxrdist.finetune.loop import Fit, FitInputs, Stopped, Validation, macro_auroc
from cxrdist.finetune.parse import from_plain
from cxrdist.finetune.phases import order_of, phases
from cxrdist.finetune.studies import check_studies
from results.run import Run
from results.tracking.beside import tracked

log = logging.getLogger("cxrdist.finetune")


def run_trial(config: FinetuneConfig, run: Run, stop: Any = None) -> None:
    """Train, test, and write everything into the run; done.json comes last.

    A run that is done is left as it is; one that was stopped continues from its last checkpoint.

    Args:
        config: resolved (see `identity.resolve`).
        run: the run folder, made for this configuration.
        stop: a StopRequest, looked at after every step; None = never stop.

    Raises:
        InputError: input that cannot be used.
        FailedError: the loss is no longer finite, or the disk is full.
        Stopped: `stop` was requested; a checkpoint was written.
    """
    for _ in validations(config, run, stop):
        pass


def validations(config: FinetuneConfig, run: Run, stop: Any = None) -> Iterator[Validation]:
    """As `run_trial`, one validation at a time; a caller that closes the iterator early ends the training there.

    Closing it early (a scheduler gave the trial up) still tests the best weights so far and finishes the run.
    """
    if run.is_done:
        return
    began = time.monotonic()
    trial = Trial(config, run, stop)
    ended = "early stopping"
    try:
        yield from trial.train()
        if trial.steps_left == 0:
            ended = "end"
    except GeneratorExit:
        trial.keep_best()
        ended = "scheduler"
    trial.finish(ended, time.monotonic() - began)


class Trial:
    """The parts of one trial, in the order in which they are used."""

    def __init__(self, config: FinetuneConfig, run: Run, stop: Any = None):
        self.config, self.run, self.stop = config, run, stop
        set_threads(1, config.threads)
        self.device = pick_device(config.device)
        assert config.image_size is not None
        layers = config.mode != "linear"
        self.precision = resolve_precision(config.precision, self.device, config.image_size, scaled=layers)
        refuse_another(run, config.init)
        self.data: TrialData = labelled_data.load(config, shard_sets.expected(run, config.shards))
        check_studies(self.data.test, [config.level])
        for path in words(config.eval_shards) or []:  # before hours of training, not after them
            tester.labels_shared(tester.test_set(run, path, config.stage), self.data.labels, self.data.unlearnt)
        self.data.manifest.write(run.manifest)
        card = self.data.card
        self.model: Classifier = classifier.build(config, self.data.labels, (card.mean, card.std))
        self.model.to(self.device)
        self.network = Network(config, self.model, self.precision)
        self.fit: Fit | None = None
        self._images: StepImages | None = None
        self.facts: dict[str, Any] = {}

    @property
    def steps_left(self) -> int:
        """Steps of the plan that were not taken."""
        return 0 if self.fit is None else self.fit.total - self.fit.state.step

    def train(self) -> Iterator[Validation]:
        """Fit what the mode says; afterwards the model holds the best weights."""
        if self.config.mode == "linear":
            yield from self._frozen()
        else:
            yield from self._layers()

    def keep_best(self) -> None:
        """Give the model its best weights so far."""
        if self.fit is not None and self.fit.best is not None:
            self.fit.problem.network.load_state_dict(self.fit.best)

    def _weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        y, mask = torch.from_numpy(self.data.train.y), torch.from_numpy(self.data.train.mask)
        return class_weights(y, mask, self.config.class_weights, self.config.weight_factor)

    def _frozen(self) -> Iterator[Validation]:
        """Mode linear: features once, then a probe, or the layers of another head."""
        data, config = self.data, self.config
        self.model.eval()
        x = self.network.features(data.train)
        val = None if data.val is None or not len(data.val) else data.val
        x_val = None if val is None else self.network.features(val)
        if config.head.kind not in ("linear", "rbf"):
            self._count_head()
            yield from self._head_on(x, x_val)
            return
        seen = None if val is None or x_val is None else (x_val, val.y, val.mask)
        penalties = self._probe(x, seen)
        self._count_head()
        value = None
        if val is not None and seen is not None:
            value = macro_auroc(self.network.logits(val), seen[1], seen[2], data.trainable)
        self.facts["val_auroc"] = value
        self.facts["probe_l2"] = [None if np.isnan(chosen) else float(chosen) for chosen in penalties]
        self.run.log(0, epoch=0.0, val_auroc=value)
        yield Validation(step=0, epoch=0.0, auroc=value, loss=None, best=True)

    def _count_head(self) -> None:
        trained, total = classifier.parameters(self.model.head), classifier.parameters(self.model)
        self.facts |= {"n_trained": trained, "trained_share": round(trained / total, 6)}

    def _probe(self, x: np.ndarray, val: tuple[np.ndarray, np.ndarray, np.ndarray] | None) -> np.ndarray:
        """Fit a linear or an rbf head on features (n, D), and return the penalty chosen for each label."""
        data, head = self.data, self.config.head
        positive, negative = (part.numpy() for part in self._weights())
        known = (x, data.train.y, data.train.mask & data.trainable, (positive, negative))
        if head.kind == "rbf":
            fitted, penalties = rbf_probe.fit(*known, head, val, self.config.seed)
            self.model.head = fitted.to(self.device)
            return penalties
        found = linear_probe.fit(*known, head.probe_l2, val)
        assert isinstance(self.model.head, nn.Linear)
        with torch.no_grad():
            self.model.head.weight.copy_(torch.from_numpy(found.weight))
            self.model.head.bias.copy_(torch.from_numpy(found.bias))
        return found.l2

    def _head_on(self, x: np.ndarray, x_val: np.ndarray | None) -> Iterator[Validation]:
        """Train a head with hidden layers on features."""
        inputs, head = torch.from_numpy(x).to(self.device), self.model.head
        seen = None if x_val is None else torch.from_numpy(x_val).to(self.device)

        def val_logits() -> np.ndarray:
            assert seen is not None
            with torch.inference_mode():
                return head(seen).float().cpu().numpy()

        yield from self._fit(
            network=head,
            unfreeze=lambda last, layers: None,
            batch=lambda step, rows: inputs[torch.from_numpy(rows).to(self.device)],
            val_logits=None if x_val is None else val_logits,
            precision="float32",
        )

    def _layers(self) -> Iterator[Validation]:
        """Modes full, last_n and two_stage: augmented images through the network."""
        config, data = self.config, self.data
        last = phases(config, len(data.train))[-1]
        trained, total = self.model.trained(last.last, last.layers), classifier.parameters(self.model)
        self.facts |= {"n_trained": trained, "trained_share": round(trained / total, 6)}
        unit = "last_layers" if last.layers else "last_n"
        what = f"{unit} {last.last}" if config.mode == "last_n" else config.mode
        log.info("%s trains %s of %s weights (%.1f %%)", what, f"{trained:,}", f"{total:,}", 100 * trained / total)

        val = data.val if data.val is not None and len(data.val) else None

        def val_logits() -> np.ndarray:
            assert val is not None
            return self.network.logits(val)

        try:
            yield from self._fit(
                network=self.model,
                unfreeze=self.model.unfreeze,
                batch=self.training_views(),
                val_logits=None if val is None else val_logits,
                precision=self.precision,
            )
        finally:
            if self._images is not None:
                self._images.close()

    def training_views(self) -> Callable[[int, np.ndarray], torch.Tensor]:
        """A function (step, indices (G,) into the training samples) -> augmented views (G, 1, S, S) on the device.

        Images whose crops are enlarged are decoded with room for it: at model size the views would be blurrier than
        what the model is tested on.
        """
        config, data, size = self.config, self.data, self.config.image_size
        assert size is not None
        enlarged = resolve(config.augment)["crop"][0] < 1
        side = load_size(config.load_size, size, data.card.image_size) if enlarged else size
        facts = self.model.facts
        augment = Augment(
            config.augment, side, size, self.device, mean=facts["mean"], std=facts["std"], seed=config.seed
        )
        pixels, order = self.network.pixels(data.train, side), order_of(config, len(data.train))
        if not pixels.kept:
            self._images = StepImages(
                data.train.shards, data.train.positions, order,
                steps=sum(phase.steps for phase in phases(config, len(data.train))),
                size=side, threads=pixels.threads, pin=self.device.type == "cuda",
            )  # fmt: skip

        def images_of(step: int, rows: np.ndarray) -> torch.Tensor:
            if self._images is not None and np.array_equal(rows, order.positions(step)):
                return self._images.take(step)
            return pixels.take(data.train.positions[rows])

        def views(step: int, rows: np.ndarray) -> torch.Tensor:
            params = augment.draw(config.seed, step, len(rows))
            view = augment.apply(images_of(step, rows), params)
            return view.contiguous(memory_format=torch.channels_last)

        return views

    def _fit(self, **given: Any) -> Iterator[Validation]:
        data, config = self.data, self.config
        weights = self._weights()
        problem = FitInputs(
            head=self.model.head,
            y=torch.from_numpy(data.train.y).to(self.device),
            mask=torch.from_numpy(data.train.mask & data.trainable).to(self.device),
            weights=(weights[0].to(self.device), weights[1].to(self.device)),
            val_y=None if data.val is None else data.val.y,
            val_mask=None if data.val is None else data.val.mask,
            trainable=data.trainable,
            **given,
        )
        self.fit = Fit(config, problem, self.run, Saver(self.run), self.stop)
        yield from self.fit
        self._remember_fit()
        if self.facts.get("best_stage") == 1:
            log.warning("the weights that are kept are of stage 1: training all layers gave no better val AUROC")

    def _remember_fit(self) -> None:
        assert self.fit is not None
        state = self.fit.state
        steps = state.step - state.skipped
        self.facts |= {"val_auroc": state.best_auroc, "best_step": state.best_step, "steps": steps}
        self.facts["epochs"] = round(steps / self.fit.per_epoch, 2)
        if self.config.mode == "two_stage":
            # Without a validation no weights are best: the last ones are kept.
            self.facts["best_stage"] = 1 + (state.best_phase if self.fit.best else state.phase)

    def finish(self, ended: str, seconds: float) -> None:
        """Save the model, test it, write the results, and call the run done."""
        if self.fit is not None:
            self._remember_fit()
            seconds += self.fit.earlier_seconds
        data = self.data
        counts = {
            "n_labelled": len(data.train),
            "fraction_hash": data.manifest.sha256,
            "n_parameters": classifier.parameters(self.model),
            "n_val": 0 if data.val is None else len(data.val),
        }
        clock = time.monotonic()
        backbones = Path(self.config.backbones) if self.config.backbones and self.config.mode == "linear" else None
        signature = self.run.read_info()["signature"]
        pixels = {preparation.KEY: preparation.settings_of(data.card)}
        weights = classifier.save(self.run.model, self.model, backbones, signature=signature, **pixels)
        spent = {"wall_seconds": seconds, "gpu_seconds": seconds if self.device.type == "cuda" else 0.0}
        tested = tester.write_own(self.run, self.config, data, self.network, counts | spent)
        self.run.finish(
            **self.facts,
            **tested,
            **counts,
            weights_sha256=weights,
            ended=ended,
            unlearnt=data.unlearnt,
            n_train_patients=data.manifest.n_patients,
            precision=self.precision,
            wall_seconds=seconds + time.monotonic() - clock,
            gpu_seconds=spent["gpu_seconds"],
        )
        Saver(self.run).clear()


def main(path: str) -> int:
    """The worker: train the run whose folder is given; 0 also when it was asked to stop (then it is not done)."""
    from slurm.signals import StopRequest

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run = Run.open(path)
    config = dataclasses.replace(from_plain(run.read_config(), str(run.config)), out=str(run.path))
    stop = StopRequest().install()
    try:
        with tracked(run.path, config.track):
            run_trial(config, run, stop)
    except Stopped as stopped:
        log.info("%s: %s; the same command goes on from there", run.path, stopped)
    return 0
