"""What is drawn for a view: the presets, the numbers a configuration stands for, and each row's parameters.

Parameters come from `cxrdist.core.rng`: row r of step s has the same view whatever rank holds it.
`cxrdist.core.augment` applies them.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cxrdist.core import rng
from cxrdist.core.augment_config import AUGMENT_PARTS, AugmentConfig
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
_ATTEMPTS = 10  # crops that are tried, as in torchvision
# One column of random numbers per decision, never shared: switching one part off leaves the others as they were.
# fmt: off
_COLUMNS = (
    "area", "aspect", "x", "y", "rotate", "shift_x", "shift_y", "flip",
    "brightness_p", "brightness", "contrast_p", "contrast", "gamma_p", "gamma", "blur_p", "blur",
    "noise_p", "noise", "noise_at", "noise_sign", "erase_p", "erase_area", "erase_aspect", "erase_x", "erase_y",
    *(f"{name}{attempt}" for attempt in range(1, _ATTEMPTS) for name in ("area", "aspect")),
)
# fmt: on


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


def load_size(asked: int | None, image_size: int, stored: int) -> int:
    """Side at which images are decoded before the augmentation, pixels: with room, since crops are enlarged.

    Args:
        asked: the configuration's; None = 1.25 times the view, a multiple of 8.
        image_size: side of the views.
        stored: side of the images in the shard set, which is never exceeded.
    """
    return min(stored, asked or 8 * math.ceil(1.25 * image_size / 8))


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


class Recipe:
    """Draws the parameters of views.

    Args:
        config: what may happen to an image.
        mean: of the training pixels in [0, 1], about which contrast turns.
    """

    def __init__(self, config: AugmentConfig, mean: float) -> None:
        self.values = resolve(config)
        self.mean = mean

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

        wide, high = self._crops(between)
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

    def _crops(self, between: Any) -> tuple[np.ndarray, np.ndarray]:
        """Width and height (R,) of the crops, as shares of the side.

        As Inception's random crop, which SimCLR uses, and torchvision's RandomResizedCrop: area and aspect ratio are
        drawn until the crop fits into the image, ten times at most; else the whole image is taken. (Cutting off what
        does not fit would enlarge and distort the crops: small areas are those that fit.)
        """
        names = ["", *map(str, range(1, _ATTEMPTS))]
        area = np.stack([between(f"area{name}", *self.values["crop"]) for name in names])
        ratio = np.exp(np.stack([between(f"aspect{name}", -1, 1) for name in names]) * np.log(self.values["aspect"]))
        wide, high = np.sqrt(area * ratio), np.sqrt(area / ratio)  # (10, R)
        fits = (wide <= 1) & (high <= 1)
        first, rows = fits.argmax(0), np.arange(fits.shape[1])
        found = fits.any(0)
        return np.where(found, wide[first, rows], 1.0), np.where(found, high[first, rows], 1.0)

    def _boxes(self, u: dict[str, np.ndarray], between: Any) -> np.ndarray:
        v = self.values
        area = between("erase_area", *v["erase"])
        ratio = np.exp(between("erase_aspect", -1, 1) * np.log(3.0))
        wide, high = np.minimum(1, np.sqrt(area * ratio)), np.minimum(1, np.sqrt(area / ratio))
        left, top = u["erase_x"] * (1 - wide), u["erase_y"] * (1 - high)
        box = np.stack([left, top, left + wide, top + high], axis=1)
        return box * (u["erase_p"] < v["erase_p"])[:, None]
