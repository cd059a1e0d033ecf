"""What is trained: a backbone, a head, and one step of the loss's gradient through both.

Shapes: B local batch, V = 2B views, D features, E embedding width.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cxrdist.core.device import autocast
from cxrdist.core.distributed import thrown_away
from cxrdist.pretrain.parted_norm import PartedNorm


class JointEmbedding(nn.Module):
    """Backbone and head, which both views of an image go through."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        """Join the two; parameters are named backbone.* and head.*."""
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """Views (V, 1, s, s) -> embeddings (V, E)."""
        return self.head(self.backbone(views))


class Step:
    """Loss and gradient of one global batch.

    Args:
        model: images (V, 1, s, s) -> embeddings (V, E): a module, what `data_parallel` made of it, either compiled.
        device, precision: see `cxrdist.core.device.autocast`.
        loss: of the first views' embeddings (B, E), the second's, and `images`; see
            `cxrdist.pretrain.methods.Method.loss`.
        micro_batch: at most so many views per forward pass, 2 or more; None: all at once.
        scaler: multiplies the loss before the backward pass, so that small gradients survive in fp16; None: none.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        precision: str,
        loss: Callable[..., torch.Tensor],
        micro_batch: int | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.model, self.device, self.precision = model, device, precision
        self._scaled = (lambda loss: loss) if scaler is None else scaler.scale
        self.loss, self.micro_batch = loss, micro_batch
        self._bare = _bare(model)
        self._without_exchange: Any = getattr(model, "no_sync", contextlib.nullcontext)
        self._norms = None if micro_batch is None else PartedNorm(self._bare)

    def rehearse(self, views: torch.Tensor) -> None:
        """Throw one pass away, so that the first step of a process is computed as every later one.

        Args:
            views: any (V, 1, s, s); a compiled model is compiled for their number.
        """
        with thrown_away(self._bare, self.device), warnings.catch_warnings():
            # A filter with a side of 1 has two spellings of one layout, on which DDP remarks once a process.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
            count = self._count(views)
            self._embed(views if count == 1 else views.tensor_split(count)[0]).float().sum().backward()

    def __call__(self, first: torch.Tensor, second: torch.Tensor, images: torch.Tensor | None = None) -> torch.Tensor:
        """Leave the global batch's gradient in the parameters, times the scaler's scale.

        Args:
            first: one view of each of this rank's images, (B, 1, s, s).
            second: the other views, in the same order.
            images: which image stands at each place of the global batch, int64 (G,); None: all differ.

        Returns:
            The loss over the global batch, a float32 scalar, detached; the same on every rank.
        """
        views = torch.cat([first, second])
        count = self._count(views)
        if count > 1:
            loss = self._in_parts(views, count, images)
        else:
            loss = self._loss(self._embed(views), images)
            self._scaled(loss).backward()
        return loss.detach()

    def _count(self, views: torch.Tensor) -> int:
        """In how many parts views go through the model."""
        return 1 if self.micro_batch is None else -(-len(views) // self.micro_batch)

    def _embed(self, views: torch.Tensor) -> torch.Tensor:
        with autocast(self.device, self.precision):
            return self.model(views)

    def _loss(self, z: torch.Tensor, images: torch.Tensor | None) -> torch.Tensor:
        half = len(z) // 2
        return self.loss(z[:half], z[half:], images=images)

    def _in_parts(self, views: torch.Tensor, count: int, images: torch.Tensor | None) -> torch.Tensor:
        """The whole batch's gradient with the memory of a part (Gao et al., "Scaling deep contrastive learning batch
        size under memory limited setup", 2021): embed all without a graph, take the loss's gradient by the
        embeddings, then embed part by part again and push that gradient through.
        """  # noqa: D205
        assert self._norms is not None
        parts = views.tensor_split(count)  # of equal size, or one more: BatchNorm needs some in each
        dice = [torch.get_rng_state()]  # the second pass must drop out what the first dropped out
        on_gpu = self.device.type == "cuda"
        gpu_dice = [torch.cuda.get_rng_state(self.device)] if on_gpu else []
        embeddings = []
        with torch.no_grad(), self._norms.measuring(parts):
            for part in parts:
                embeddings.append(self._embed(part))
                self._norms.measured(part)
        z = torch.cat(embeddings).detach().requires_grad_()
        loss = self._loss(z, images)
        self._scaled(loss).backward()
        assert z.grad is not None
        torch.set_rng_state(dice[0])
        if on_gpu:
            torch.cuda.set_rng_state(gpu_dice[0], self.device)
        with self._norms.holding():
            for index, (part, grad) in enumerate(zip(parts, z.grad.tensor_split(count), strict=True)):
                with contextlib.nullcontext() if index == len(parts) - 1 else self._without_exchange():
                    self._embed(part).backward(grad)
        return loss


def _bare(model: nn.Module) -> nn.Module:
    """The module inside what torch.compile and DDP made of it."""
    model = getattr(model, "_orig_mod", model)
    return model.module if isinstance(model, DistributedDataParallel) else model
