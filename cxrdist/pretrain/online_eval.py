"""What is measured while a run goes on: is it learning, or collapsing?

Shapes: N samples, D features, E embedding width, L labels.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from cxrdist.core import rng
from cxrdist.core.augment import Augment
from cxrdist.core.device import autocast
from cxrdist.core.distributed import Ranks
from cxrdist.pretrain.config import PretrainConfig
from cxrdist.pretrain.methods import Method
from cxrdist.pretrain.samples import Pool
from cxrdist.pretrain.step import JointEmbedding
from cxrdist.pretrain.union import own_scale
from results.stats.metrics import auroc
from shards import ShardSet, ShardUnion
from shards.labels import NEGATIVE, POSITIVE
from shards.read.order import eval_slice

_BATCH = 128


class CollapseWarning(UserWarning):
    """The embeddings have lost nearly all their dimensions."""


def alignment(z1: torch.Tensor, z2: torch.Tensor) -> float:
    """Mean squared distance of two views' unit embeddings, (N, E) each; 0 best (Wang and Isola, ICML 2020)."""
    z1, z2 = F.normalize(z1.float(), dim=1), F.normalize(z2.float(), dim=1)
    return float((z1 - z2).square().sum(1).mean())


def uniformity(z: torch.Tensor) -> float:
    """Log of the mean Gaussian potential exp(-2 d^2) over pairs of unit embeddings (N, E); lower is more uniform
    (Wang and Isola 2020). 0 when all are equal.
    """  # noqa: D205
    z = F.normalize(z.float(), dim=1)
    pairs = (2 - 2 * (z @ z.T)).clamp_(min=0)  # squared distances of unit vectors
    n = len(z)
    return float(((pairs.mul_(-2).exp_().sum() - n) / max(1, n * (n - 1))).log())


def effective_rank(z: torch.Tensor) -> float:
    """Exponential of the entropy of the normalised singular values of centred unit embeddings (N, E).

    Between 1 (all on one line) and E (Roy and Vetterli, "The effective rank", EUSIPCO 2007). 0 when all are equal.
    """
    z = F.normalize(z.double(), dim=1)
    values = torch.linalg.svdvals(z - z.mean(0))
    total = values.sum()
    if total <= 1e-9 * len(z) ** 0.5:
        return 0.0
    p = values / total
    return float(torch.exp(-(p * torch.log(p.clamp(min=1e-300))).sum()))


def knn_scores(bank: torch.Tensor, bank_labels: np.ndarray, queries: torch.Tensor, k: int) -> np.ndarray:
    """Share of the weighted votes that call each query positive, float64 (M, L); see `knn_auroc`. 0 without a vote."""
    similarity, nearest = (queries.float() @ bank.float().T).topk(min(k, len(bank)), dim=1)
    weight, near = torch.exp((similarity - 1) / 0.07).double().cpu().numpy(), nearest.cpu().numpy()
    scores = np.empty((len(queries), bank_labels.shape[1]))
    for column in range(bank_labels.shape[1]):
        votes = bank_labels[near, column]
        counted = weight * ((votes == POSITIVE) | (votes == NEGATIVE))
        scores[:, column] = (weight * (votes == POSITIVE)).sum(1) / np.maximum(counted.sum(1), 1e-12)
    return scores


def knn_auroc(
    bank: torch.Tensor, bank_labels: np.ndarray, queries: torch.Tensor, labels: np.ndarray, k: int
) -> float | None:
    """Macro AUROC of a weighted k-nearest-neighbour vote (Wu et al., CVPR 2018; weights exp(similarity / 0.07)).

    Args:
        bank: unit features (N, D) of labelled samples, which vote.
        bank_labels: int8 (N, L); 1 and 0 vote, anything else does not.
        queries: unit features (M, D).
        labels: int8 (M, L); entries other than 1 and 0 are left out.
        k: neighbours.

    Returns:
        Mean over the labels with both classes among the queries; None when there is no such label.
    """
    scores: list[float] = []
    for column, score in enumerate(knn_scores(bank, bank_labels, queries, k).T):
        truth = labels[:, column]
        known = (truth == POSITIVE) | (truth == NEGATIVE)
        positive = truth[known] == POSITIVE
        if positive.any() and not positive.all():
            scores.append(auroc(positive, score[known]))
    return float(np.mean(scores)) if scores else None


@dataclass(frozen=True)
class _Sample:
    """The samples that every evaluation of a run uses."""

    shards: ShardSet | ShardUnion
    positions: np.ndarray


class OnlineEvaluation:
    """Evaluations of a run: always the same samples and views, so that their numbers can be compared.

    Args:
        config: of the run.
        pool: its samples.
        augment: its augmentation; validation views come from a stream of their own.
        ranks: every rank takes part and gets the same numbers.
        precision: in which the model runs.
        method: whose loss is measured on validation images.
    """

    def __init__(
        self, config: PretrainConfig, pool: Pool, augment: Augment, ranks: Ranks, precision: str, method: Method
    ) -> None:
        self.config, self.augment, self.ranks, self.precision = config, augment, ranks, precision
        self.method = method
        self.val = None if pool.val is None else self._some(pool.val, 0)
        self.bank = self._some(pool.train, 1)
        self.labels = pool.train.labels  # a union's val may be of fewer sets, which have more labels in common
        self.labelled = self.val is not None and config.watch.knn > 0 and len(self.labels) > 0

    def _some(self, shards: ShardSet | ShardUnion, step: int) -> _Sample:
        count = min(len(shards), self.config.watch.samples)
        order = rng.order(self.config.seed, rng.Stream.WATCH, step, len(shards))
        return _Sample(shards, np.sort(order[:count]))

    def evaluate(self, model: JointEmbedding) -> dict[str, float]:
        """Measure: val_loss, alignment, uniformity, effective_rank, knn_auroc; what cannot be measured is absent."""
        was_training = model.training
        model.eval()
        self.ranks.copy_buffers_from_first(model)  # running statistics are each rank's own
        try:
            with torch.inference_mode():
                return self._evaluate(model)
        finally:
            model.train(was_training)

    def _evaluate(self, model: JointEmbedding) -> dict[str, float]:
        found: dict[str, float] = {}
        if self.val is not None and len(self.val.positions) > 1:
            z1, z2 = self._embeddings(model, self.val)
            found["val_loss"] = self._loss(z1, z2)
            found |= {"alignment": alignment(z1, z2), "uniformity": uniformity(z1)}
            found["effective_rank"] = effective_rank(z1)
            if found["effective_rank"] < self.config.watch.min_rank and self.ranks.is_first:
                warnings.warn(
                    f"the embeddings have an effective rank of {found['effective_rank']:.2f}: they are collapsing; "
                    f"lower optim.lr or {self.method.remedy}",
                    CollapseWarning,
                    stacklevel=2,
                )
        if self.labelled and self.val is not None:
            bank, queries = self._features(model, self.bank), self._features(model, self.val)
            score = knn_auroc(bank, self._labels(self.bank), queries, self._labels(self.val), self.config.watch.knn)
            if score is not None:
                found["knn_auroc"] = score
        return found

    def _labels(self, sample: _Sample) -> np.ndarray:
        return sample.shards.labels_matrix(self.labels)[sample.positions]

    def _loss(self, z1: torch.Tensor, z2: torch.Tensor) -> float:
        """The method's loss in batches of the training size, weighted by their sizes; every sample counts once."""
        size = min(self.config.global_batch, len(z1))
        batches = max(1, len(z1) // size)
        total = 0.0
        for a, b in zip(z1.tensor_split(batches), z2.tensor_split(batches), strict=True):
            total += len(a) * float(self.method.loss(a, b, gather=False))
        return total / len(z1)

    def _embeddings(self, model: JointEmbedding, sample: _Sample) -> tuple[torch.Tensor, torch.Tensor]:
        seed, stream = self.config.seed, rng.Stream.VALIDATION

        def views(images: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
            scale = self._scale(sample, rows)
            both = [self.augment.apply(images, self.augment.draw(seed, 0, rows, v, stream), scale) for v in (0, 1)]
            return torch.cat(both)

        def embed(images: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
            z = self._run(model, views(images, rows))
            return torch.stack(z.chunk(2), dim=1)  # (B, 2, E)

        z = self._over(sample, embed)
        return z[:, 0], z[:, 1]

    def _features(self, model: JointEmbedding, sample: _Sample) -> torch.Tensor:
        def features(images: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
            return F.normalize(self._run(model.backbone, self.augment.plain(images, self._scale(sample, rows))), dim=1)

        return self._over(sample, features)

    def _scale(self, sample: _Sample, rows: np.ndarray) -> np.ndarray | None:
        """Mean and deviation that each image is normalised with, float32 (B, 2); None: the augmentation's for all."""
        return own_scale(sample.shards, sample.positions[rows]) if self.config.normalise == "set" else None

    def _run(self, module: Any, views: torch.Tensor) -> torch.Tensor:
        with autocast(self.ranks.device, self.precision):
            return module(views).float()

    def _over(self, sample: _Sample, function: Any) -> torch.Tensor:
        """Apply a function to every sample, the work divided among ranks, the result complete on each."""
        count, world = len(sample.positions), self.ranks.world
        slices = [eval_slice(count, rank, world) for rank in range(world)]
        mine = slices[self.ranks.rank]
        parts: list[torch.Tensor] = []
        for at in range(mine.start, mine.stop, _BATCH):
            rows = np.arange(at, min(at + _BATCH, mine.stop))
            parts.append(function(sample.shards.images(sample.positions[rows], self.augment.in_size), rows))
        width = self._width(parts, function, sample)
        part = torch.cat(parts) if parts else width
        return self.ranks.gather_rows(part, [s.stop - s.start for s in slices])

    def _width(self, parts: list[torch.Tensor], function: Any, sample: _Sample) -> torch.Tensor:
        """An empty result of the right shape, for a rank that has no sample."""
        if parts:
            return parts[0][:0]
        rows = np.arange(1)
        return function(sample.shards.images(sample.positions[rows], self.augment.in_size), rows)[:0]
