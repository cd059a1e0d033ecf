"""Augmentation of X-rays: drawn per global row from counters, applied to whole batches on the device.

All geometry is one affine warp, all grey-value changes are one table of 256 entries, so a view is read and
written few times. Parameters come from `cxrdist.core.augment_params`, by counter and row of the global batch.
Every operation works row by row with a fixed order of additions, so an image does not depend on its batch either.

Shapes: B rows, S side of the stored image, s side of the view.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from cxrdist.core import rng
from cxrdist.core.augment_config import AugmentConfig
from cxrdist.core.augment_params import Params, Recipe
from cxrdist.errors import InputError

_BANK = 1 << 20  # length of the table of normal numbers that noise is cut from
_CHUNK = 16  # rows worked on together on a CPU, so that they stay in its cache


class Augment:
    """Draws and applies augmentations.

    Args:
        config: what may happen to an image.
        in_size: S, side of the stored images, pixels.
        out_size: s, side of the views, pixels.
        device: where `apply` computes.
        mean, std: of pixels in [0, 1], as the network expects them; views are normalised with them.
        grey: mean of the training pixels in [0, 1], about which contrast turns; None = `mean`.
        seed: of the noise table.
    """

    def __init__(
        self,
        config: AugmentConfig,
        in_size: int,
        out_size: int,
        device: torch.device | str = "cpu",
        *,
        mean: float = 0.5,
        std: float = 0.25,
        grey: float | None = None,
        seed: int = 0,
    ) -> None:
        if std <= 0:
            raise InputError(f"pixel std is {std}; the shard set's images are all one grey value")
        self._recipe = Recipe(config, float(mean if grey is None else grey))
        self.values = self._recipe.values
        self.in_size, self.out_size = int(in_size), int(out_size)
        self.device = torch.device(device)
        self.mean, self.std = float(mean), float(std)
        centres = (torch.arange(self.out_size, dtype=torch.float32) * 2 + 1) / self.out_size - 1
        self._centres = centres.to(self.device)
        self._bank: torch.Tensor | None = None
        if self.values["noise"] > 0 and self.values["noise_p"] > 0:
            length = max(_BANK, 4 * self.out_size**2)
            self._bank = torch.from_numpy(rng.normal(seed, rng.Stream.NOISE, 0, length)).to(self.device)
        radius = max(1, int(np.ceil(3 * self.values["blur"][1] * self.out_size / 224)))
        self._taps = np.arange(-radius, radius + 1, dtype=np.float64)

    def draw(
        self, seed: int, step: int, rows: int | slice | np.ndarray, view: int = 0, stream: int = rng.Stream.AUGMENT
    ) -> Params:
        """Parameters of some rows of a step's global batch; see `cxrdist.core.augment_params.Recipe.draw`."""
        return self._recipe.draw(seed, step, rows, view, stream)

    def apply(self, images: torch.Tensor, params: Params, scale: np.ndarray | None = None) -> torch.Tensor:
        """Views of stored images.

        Args:
            images: uint8 (B, 1, S, S), on any device; moved to this one's.
            params: for the same B rows.
            scale: mean and std that each row is normalised with, float32 (B, 2); None = `mean` and `std` for all.

        Returns:
            float32 (B, 1, s, s), normalised. What lies outside the image is black.

        Raises:
            InputError: the images have another shape or number than expected.
        """
        size = self.in_size
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (1, size, size):
            raise InputError(f"images are {images.dtype} {tuple(images.shape)}; expected uint8 (B, 1, {size}, {size})")
        if len(images) != len(params):
            raise InputError(f"{len(images)} images and parameters for {len(params)}")
        images = images.to(self.device, non_blocking=True)
        if self.device.type != "cpu":
            return self._apply(images, params, scale)
        out = torch.empty((len(images), 1, self.out_size, self.out_size), dtype=torch.float32)
        for at in range(0, len(images), _CHUNK):
            rows = slice(at, at + _CHUNK)
            out[rows] = self._apply(images[rows], params[rows], None if scale is None else scale[rows])
        return out

    def plain(self, images: torch.Tensor, scale: np.ndarray | None = None) -> torch.Tensor:
        """What evaluation sees: resized to s and normalised. uint8 (B, 1, S, S) -> float32 (B, 1, s, s)."""
        count = len(images)
        one = np.tile(np.array([[1, 0, 0], [0, 1, 0]], dtype=np.float32), (count, 1, 1))
        zeros = np.zeros(count, dtype=np.float32)
        table = np.tile((np.arange(256) / 255.0).astype(np.float32), (count, 1))
        box = np.zeros((count, 4), dtype=np.float32)
        return self.apply(images, Params(one, table, zeros + 1, zeros, zeros, zeros.astype(np.float64), box), scale)

    def _apply(self, images: torch.Tensor, params: Params, scale: np.ndarray | None) -> torch.Tensor:
        grey = self._to(params.table).gather(1, images.flatten(1).long()).view(images.shape)
        view = self._warp(grey, params)
        self._blur(view, params.sigma * self.out_size)
        self._add_noise(view, params)
        if scale is None:
            view.sub_(self.mean).mul_(1 / self.std)
        else:
            own = self._to(scale)[:, :, None, None, None]
            view.sub_(own[:, 0]).mul_(1 / own[:, 1])
        self._erase(view, params.box)
        return view

    def _to(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _warp(self, grey: torch.Tensor, params: Params) -> torch.Tensor:
        """One bilinear warp per row, from the level of an area-averaged pyramid that is nearest in scale.

        Levels halve the image (Williams, "Pyramidal parametrics", 1983), so that no view skips over pixels.
        """
        reduction = params.shrink * self.in_size / self.out_size
        levels = np.clip(np.round(np.log2(np.maximum(reduction, 1))), 0, int(np.log2(self.in_size))).astype(int)
        theta = self._to(params.theta)
        xs, ys = self._centres[None, None, :], self._centres[None, :, None]
        grid = torch.stack(
            [
                theta[:, i, 0, None, None] * xs + (theta[:, i, 1, None, None] * ys + theta[:, i, 2, None, None])
                for i in (0, 1)
            ],
            dim=-1,
        )
        if not levels.any():
            return F.grid_sample(grey, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        view = grey.new_empty((len(grey), 1, self.out_size, self.out_size))
        for level in range(levels.max() + 1):
            rows = np.flatnonzero(levels == level)
            if rows.size:
                at = self._to(rows)
                view[at] = F.grid_sample(grey[at], grid[at], mode="bilinear", padding_mode="zeros", align_corners=False)
            if level < levels.max():
                grey = F.adaptive_avg_pool2d(grey, grey.shape[-1] // 2)  # keeps the extent of odd sides, too
        return view

    def _blur(self, view: torch.Tensor, sigma: np.ndarray) -> None:
        rows = np.flatnonzero(sigma > 0)
        if not rows.size:
            return
        kernel = np.exp(-0.5 * (self._taps[None, :] / sigma[rows, None].astype(np.float64)) ** 2)
        kernel /= kernel.sum(1, keepdims=True)
        if self.device.type == "cpu":
            # Filled up with repeats to full groups: the convolution's kernel, and so its last bits, depend on how many
            # channels there are, and a row's view must not depend on the rows beside it.
            rows = np.resize(rows, -(-len(rows) // _CHUNK) * _CHUNK)
            kernel = np.resize(kernel, (len(rows), kernel.shape[1]))
        at, taps = self._to(rows), self._to(kernel.astype(np.float32))
        radius, count = len(self._taps) // 2, len(rows)
        part = F.pad(view[at].transpose(0, 1), (radius, radius, radius, radius), mode="replicate")
        part = F.conv2d(part, taps[:, None, None, :], groups=count)
        part = F.conv2d(part, taps[:, None, :, None], groups=count)
        view[at] = part.transpose(0, 1)

    def _add_noise(self, view: torch.Tensor, params: Params) -> None:
        rows = np.flatnonzero(params.noise)
        if not rows.size or self._bank is None:
            return
        at, pixels = self._to(rows), self.out_size**2
        begin = (params.noise_at[rows] * (len(self._bank) - pixels)).astype(np.int64)
        noise = self._bank.unfold(0, pixels, 1)[self._to(begin)]
        noise *= self._to(params.noise[rows])[:, None]
        view[at] += noise.view(len(rows), 1, self.out_size, self.out_size)

    def _erase(self, view: torch.Tensor, box: np.ndarray) -> None:
        rows = np.flatnonzero(box[:, 2] > 0)
        if not rows.size:
            return
        at, edges = self._to(rows), self._to(box[rows] * 2 - 1)
        inside_x = (self._centres >= edges[:, 0:1]) & (self._centres < edges[:, 2:3])
        inside_y = (self._centres >= edges[:, 1:2]) & (self._centres < edges[:, 3:4])
        view[at] = view[at].masked_fill((inside_y[:, :, None] & inside_x[:, None, :])[:, None], 0.0)
