"""Augmentation of X-rays: drawn per global row from counters, applied to whole batches on the device.

All geometry is one affine warp, all grey-value changes are one table of 256 entries, so a view is read and
written few times. Parameters come from `cxrdist.rng`: row r of step s has the same view whatever rank holds it.
Every operation works row by row with a fixed order of additions, so a picture does not depend on its batch either.

Shapes: B rows, S side of the stored image, s side of the view.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from cxrdist import rng
from cxrdist.config import AUGMENT_PARTS, AugmentConfig
from cxrdist.errors import InputError

PRESETS: dict[str, dict[str, Any]] = {
    "medical": {
        "crop": (0.4, 1.0),
        "aspect": 1.2,
        "rotate": 15.0,
        "translate": 0.05,
        "flip": 0.5,
        "brightness": 0.2,
        "contrast": 0.4,
        "gamma": 1.5,
        "tone_p": 0.8,
        "blur": (0.1, 2.0),
        "blur_p": 0.5,
        "noise": 0.05,
        "noise_p": 0.3,
        "erase": (0.02, 0.1),
        "erase_p": 0.2,
    },
    # Chen et al. 2020, appendix A, for one channel: brightness 0.8 and contrast 0.8, no hue and saturation.
    "natural": {
        "crop": (0.08, 1.0),
        "aspect": 4 / 3,
        "flip": 0.5,
        "brightness": 0.4,
        "contrast": 0.8,
        "tone_p": 0.8,
        "blur": (0.1, 2.0),
        "blur_p": 0.5,
    },
    "none": {},
}
_OFF: dict[str, Any] = {
    "crop": (1.0, 1.0),
    "aspect": 1.0,
    "rotate": 0.0,
    "translate": 0.0,
    "flip": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "gamma": 1.0,
    "tone_p": 0.0,
    "blur": (0.0, 0.0),
    "blur_p": 0.0,
    "noise": 0.0,
    "noise_p": 0.0,
    "erase": (0.0, 0.0),
    "erase_p": 0.0,
}
_SWITCH = {"blur": "blur_p", "noise": "noise_p", "erase": "erase_p"}
# One column of random numbers per decision, never shared: switching one part off leaves the others as they were.
# fmt: off
_COLUMNS = (
    "area", "aspect", "x", "y", "rotate", "shift_x", "shift_y", "flip",
    "brightness_p", "brightness", "contrast_p", "contrast", "gamma_p", "gamma", "blur_p", "blur",
    "noise_p", "noise", "noise_at", "noise_sign", "erase_p", "erase_area", "erase_aspect", "erase_x", "erase_y",
)
# fmt: on
_BANK = 1 << 20  # length of the table of normal numbers that noise is cut from
_CHUNK = 16  # rows worked on together on a CPU, so that they stay in its cache


def resolve(config: AugmentConfig) -> dict[str, Any]:
    """The numbers a configuration stands for: preset, then fields that are set, then parts switched off.

    Raises:
        InputError: for an unknown preset or part.
    """
    if config.preset not in PRESETS:
        raise InputError(f"augment.preset {config.preset!r} is unknown; use {', '.join(PRESETS)}")
    values = {**_OFF, **PRESETS[config.preset]}
    for name in _OFF:
        given = getattr(config, name)
        if given is not None:
            values[name] = given
            for part, chance in _SWITCH.items():  # a part that is asked for by size acts, with probability 0.5
                if name == part and values[chance] == 0 and getattr(config, chance) is None:
                    values[chance] = 0.5
            if name in ("brightness", "contrast", "gamma") and values["tone_p"] == 0 and config.tone_p is None:
                values["tone_p"] = 0.8
    for part in config.off:
        if part not in AUGMENT_PARTS:
            raise InputError(f"augment.off names {part!r}; the parts are {' '.join(AUGMENT_PARTS)}")
        values[part] = _OFF[part]
        if part in _SWITCH:
            values[_SWITCH[part]] = 0.0
        if part == "crop":
            values["aspect"] = 1.0
    low, high = values["crop"]
    if not 0 < low <= high <= 1:
        raise InputError(f"augment.crop is {low}, {high}; it must be two shares with 0 < smallest <= largest <= 1")
    if values["gamma"] < 1 or values["aspect"] < 1:
        raise InputError("augment.gamma and augment.aspect must be at least 1")
    return values


@dataclass(frozen=True)
class Params:
    """What was drawn for B rows; indexing with a slice or int array gives some of the rows."""

    theta: np.ndarray
    """float32 (B, 2, 3): view coordinates in [-1, 1] -> image coordinates in [-1, 1]."""
    table: np.ndarray
    """float32 (B, 256): grey value of the stored image -> grey value in [0, 1]."""
    shrink: np.ndarray
    """float32 (B,): share of the image's side that the view covers (the larger of width and height)."""
    sigma: np.ndarray
    """float32 (B,): blur, as a share of the view's side; 0: none."""
    noise: np.ndarray
    """float32 (B,): signed standard deviation of the noise in [0, 1] grey values; 0: none."""
    noise_at: np.ndarray
    """float64 (B,): in [0, 1), where in the noise table this row's noise begins."""
    box: np.ndarray
    """float32 (B, 4): left, top, right, bottom of the blanked rectangle as shares of the side; all 0: none."""

    def __len__(self) -> int:
        return len(self.theta)

    def __getitem__(self, rows: slice | np.ndarray) -> Params:
        return Params(**{f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)})


class Augment:
    """Draws and applies augmentations.

    Args:
        config: what may happen to a picture.
        in_size: S, side of the stored images, pixels.
        out_size: s, side of the views, pixels.
        device: where `apply` computes.
        mean, std: of the training pixels in [0, 1]; views are normalised with them.
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
        seed: int = 0,
    ) -> None:
        if std <= 0:
            raise InputError(f"pixel std is {std}; the shard set's images are all one grey value")
        self.values = resolve(config)
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
        """Parameters of some rows of a step's global batch.

        Args:
            seed: the run's seed.
            step: optimiser step.
            rows: G for the whole global batch, or a slice or int array of global row numbers.
            view: 0 or 1 for the two views of SimCLR.
            stream: family of random numbers; validation uses its own.
        """
        v = self.values
        u: dict[str, np.ndarray] = dict(
            zip(_COLUMNS, rng.uniform(seed, stream + view, step, rows, len(_COLUMNS)).T, strict=True)
        )

        def between(name: str, low: float, high: float) -> np.ndarray:
            return low + (high - low) * u[name]

        area = between("area", *v["crop"])
        ratio = np.exp(between("aspect", -1, 1) * np.log(v["aspect"]))
        wide, high = np.minimum(1, np.sqrt(area * ratio)), np.minimum(1, np.sqrt(area / ratio))
        x = between("x", -1, 1) * (1 - wide) + between("shift_x", -2, 2) * v["translate"]
        y = between("y", -1, 1) * (1 - high) + between("shift_y", -2, 2) * v["translate"]
        angle = np.deg2rad(between("rotate", -1, 1) * v["rotate"])
        mirror = np.where(u["flip"] < v["flip"], -1.0, 1.0)
        cos, sin = np.cos(angle), np.sin(angle)
        theta = np.stack([wide * cos * mirror, -high * sin, x, wide * sin * mirror, high * cos, y], axis=1)

        def maybe(chance: str, p: float, value: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
            return np.where(u[chance] < p, value, otherwise)

        bright = maybe("brightness_p", v["tone_p"], between("brightness", -1, 1) * v["brightness"])
        factor = maybe("contrast_p", v["tone_p"], 1 + between("contrast", -1, 1) * v["contrast"], 1.0)
        gamma = maybe("gamma_p", v["tone_p"], np.exp(between("gamma", -1, 1) * np.log(v["gamma"])), 1.0)
        grey = np.arange(256) / 255.0
        tone = (grey + bright[:, None] - self.mean) * factor[:, None] + self.mean
        table = np.clip(tone, 0, 1) ** gamma[:, None]
        sigma = maybe("blur_p", v["blur_p"], between("blur", *v["blur"])) / 224
        sign = np.where(u["noise_sign"] < 0.5, -1.0, 1.0)
        noise = maybe("noise_p", v["noise_p"], between("noise", 0, 1) * v["noise"] * sign)
        return Params(
            theta=theta.reshape(-1, 2, 3).astype(np.float32),
            table=table.astype(np.float32),
            shrink=np.maximum(wide, high).astype(np.float32),
            sigma=sigma.astype(np.float32),
            noise=noise.astype(np.float32),
            noise_at=u["noise_at"],
            box=self._boxes(u, between).astype(np.float32),
        )

    def _boxes(self, u: dict[str, np.ndarray], between: Any) -> np.ndarray:
        v = self.values
        area = between("erase_area", *v["erase"])
        ratio = np.exp(between("erase_aspect", -1, 1) * np.log(3.0))
        wide, high = np.minimum(1, np.sqrt(area * ratio)), np.minimum(1, np.sqrt(area / ratio))
        left, top = u["erase_x"] * (1 - wide), u["erase_y"] * (1 - high)
        box = np.stack([left, top, left + wide, top + high], axis=1)
        return box * (u["erase_p"] < v["erase_p"])[:, None]

    def apply(self, images: torch.Tensor, params: Params) -> torch.Tensor:
        """Views of stored images.

        Args:
            images: uint8 (B, 1, S, S), on any device; moved to this one's.
            params: for the same B rows.

        Returns:
            float32 (B, 1, s, s), normalised with mean and std. What lies outside the image is black.

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
            return self._apply(images, params)
        out = torch.empty((len(images), 1, self.out_size, self.out_size), dtype=torch.float32)
        for at in range(0, len(images), _CHUNK):
            rows = slice(at, at + _CHUNK)
            out[rows] = self._apply(images[rows], params[rows])
        return out

    def plain(self, images: torch.Tensor) -> torch.Tensor:
        """What evaluation sees: resized to s and normalised. uint8 (B, 1, S, S) -> float32 (B, 1, s, s)."""
        count = len(images)
        one = np.tile(np.array([[1, 0, 0], [0, 1, 0]], dtype=np.float32), (count, 1, 1))
        zeros = np.zeros(count, dtype=np.float32)
        table = np.tile((np.arange(256) / 255.0).astype(np.float32), (count, 1))
        box = np.zeros((count, 4), dtype=np.float32)
        return self.apply(images, Params(one, table, zeros + 1, zeros, zeros, zeros.astype(np.float64), box))

    def _apply(self, images: torch.Tensor, params: Params) -> torch.Tensor:
        grey = self._to(params.table).gather(1, images.flatten(1).long()).view(images.shape)
        view = self._warp(grey, params)
        self._blur(view, params.sigma * self.out_size)
        self._add_noise(view, params)
        view.sub_(self.mean).mul_(1 / self.std)
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
