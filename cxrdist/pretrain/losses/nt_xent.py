"""NT-Xent, the loss of SimCLR (Chen et al., "A simple framework for contrastive learning", ICML 2020, equation 1).

Shapes: B local batch, G global batch = world x B, D width of the embedding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F

from cxrdist.core.distributed import gather_views

_CHUNK_BYTES = 64 * 2**20  # of logits at a time


def nt_xent(
    z1_BD: torch.Tensor,
    z2_BD: torch.Tensor,
    temperature: float = 0.2,
    *,
    gather: bool = True,
    images: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean cross-entropy of telling each view's partner from the 2G - 2 other views of the global batch.

    Every rank compares its 2B views with all 2G, in float32 (float64 for float64 input), a chunk of rows at a time:
    memory is O(G D) plus a fixed 64 MiB, whatever the batch.
    Each term is l(i, j) = -log(exp(s_ij / t) / sum over k != i of exp(s_ik / t)) with cosine similarities s.

    Args:
        z1_BD: embeddings of the first views, not normalised; any floating type.
        z2_BD: embeddings of the second views of the same images, in the same order.
        temperature: t > 0.
        gather: compare with the views of all ranks where torch.distributed runs with more than one. All ranks must
            call it then, with equal B.
        images: int64 (G,), which image (or patient) stands at each place of the global batch, in rank order; other
            views of a view's own image are then no negatives of it. (2G,): of the first and the second views, where
            these are of different images. None: all G images differ.

    Returns:
        A scalar: the mean over the global batch, the same on every rank. Its gradient flows through the gather
        and is scaled so that averaging parameter gradients over ranks, as data parallelism does, gives the
        gradient of that mean. It can be differentiated once.

    Raises:
        ValueError: shapes differ, or fewer than two images are compared.
    """
    if z1_BD.shape != z2_BD.shape or z1_BD.ndim != 2:
        raise ValueError(f"two (B, D) embeddings of the same shape are needed, not {z1_BD.shape} and {z2_BD.shape}")
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    world = dist.get_world_size() if gather and dist.is_available() and dist.is_initialized() else 1
    if len(z1_BD) * world < 2:
        raise ValueError("NT-Xent compares views with those of other images: at least two images are needed")
    z_2BD = torch.stack([z1_BD, z2_BD])
    z_2BD = F.normalize(z_2BD if z_2BD.dtype == torch.float64 else z_2BD.float(), dim=-1)
    if images is not None and images.shape not in ((len(z1_BD) * world,), (2 * len(z1_BD) * world,)):
        raise ValueError(f"{len(z1_BD) * world} images are compared, but {tuple(images.shape)} are named")
    return _NTXent.apply(z_2BD, temperature, world, images)  # pyright: ignore[reportReturnType]


class _NTXent(torch.autograd.Function):
    """Value and gradient in one pass over the chunks, so that no chunk's logits are kept or computed twice."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, temperature: float, world: int, images: torch.Tensor | None) -> torch.Tensor:
        with torch.autocast(z.device.type, enabled=False):
            return _NTXent._forward(ctx, z, temperature, world, images)

    @staticmethod
    def _forward(
        ctx: Any, z: torch.Tensor, temperature: float, world: int, images: torch.Tensor | None
    ) -> torch.Tensor:
        local, width = z.shape[1], z.shape[2]
        rank = dist.get_rank() if world > 1 else 0
        both = gather_views(z, world)  # (2, G, D)
        total = both.shape[1]
        columns = both.reshape(2 * total, width)
        rows = z.reshape(2 * local, width)
        view = torch.arange(2 * local, device=z.device) // local
        own = view * total + rank * local + torch.arange(2 * local, device=z.device) % local
        partner = (own + total) % (2 * total)
        named = None if images is None else images.to(z.device).repeat(2 * total // len(images))  # (2G,)
        needs_grad = ctx.needs_input_grad[0]
        grad_rows = torch.empty_like(rows) if needs_grad else None
        grad_columns = torch.zeros_like(columns) if needs_grad else None
        loss = torch.zeros((), dtype=torch.float64, device=z.device)
        chunk = max(1, _CHUNK_BYTES // (4 * 2 * total))
        for at in range(0, 2 * local, chunk):
            part = slice(at, at + chunk)
            logits = (rows[part] @ columns.T).div_(temperature)
            if named is not None:
                positive = logits.gather(1, partner[part, None])
                logits.masked_fill_(named[own[part], None] == named[None], float("-inf"))
                logits.scatter_(1, partner[part, None], positive)
            logits.scatter_(1, own[part, None], float("-inf"))
            lse = torch.logsumexp(logits, dim=1, keepdim=True)
            loss += (lse - logits.gather(1, partner[part, None])).double().sum()
            if grad_rows is not None and grad_columns is not None:
                weight = logits.sub_(lse).exp_()  # softmax; minus one at the partner it is d loss / d logits
                weight.scatter_add_(1, partner[part, None], weight.new_full((len(weight), 1), -1.0))
                grad_rows[part] = weight @ columns
                grad_columns.addmm_(weight.T, rows[part])
        if world > 1:
            dist.all_reduce(loss)
        if grad_rows is not None and grad_columns is not None:
            if world > 1:
                dist.all_reduce(grad_columns)
            ours = grad_columns.view(2, total, width)[:, rank * local : (rank + 1) * local]
            # Averaging over ranks divides by world; the sum over all 2G rows is what the mean's gradient needs.
            scale = world / (2 * total * temperature)
            ctx.save_for_backward((grad_rows.view_as(z) + ours).mul_(scale))
        return (loss / (2 * total)).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0], None, None, None
