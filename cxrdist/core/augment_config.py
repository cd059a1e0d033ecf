"""Settings of the augmentation, of pretraining and fine-tuning alike. Free of torch and NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from cxrdist.errors import InputError

AUGMENT_PARTS = ("crop", "rotate", "translate", "flip", "brightness", "contrast", "gamma", "blur", "noise", "erase")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How one image becomes a view. A field left None takes the preset's value."""

    preset: Literal["medical", "natural", "none"] = "medical"
    """medical: mild geometry and X-ray grey values; natural: SimCLR's crop, jitter and blur; none: resize only."""
    off: list[str] = field(default_factory=list)
    """Parts to switch off, for ablations: crop rotate translate flip brightness contrast gamma blur noise erase."""
    crop: Annotated[tuple[float, float] | None, "(0, 1]"] = None
    """Smallest and largest share of the area that a crop keeps, in (0, 1]."""
    aspect: Annotated[float | None, "[1, 100]"] = None
    """Largest aspect ratio of a crop, >= 1; ratios are drawn log-uniformly between 1/aspect and aspect."""
    rotate: Annotated[float | None, "[0, 180]"] = None
    """Largest rotation, degrees either way."""
    translate: Annotated[float | None, "[0, 1]"] = None
    """Largest shift, as a share of the image side."""
    flip: Annotated[float | None, "[0, 1]"] = None
    """Probability of a left-right flip."""
    brightness: Annotated[float | None, "[0, 1]"] = None
    """Largest change added to grey values in [0, 1]."""
    contrast: Annotated[float | None, "[0, 1]"] = None
    """Contrast about the dataset's mean is scaled by a factor in [1 - contrast, 1 + contrast]."""
    gamma: Annotated[float | None, "[1, 10]"] = None
    """Largest gamma, >= 1; drawn log-uniformly between 1/gamma and gamma."""
    tone_p: Annotated[float | None, "[0, 1]"] = None
    """Probability with which each of brightness, contrast and gamma acts."""
    blur: Annotated[tuple[float, float] | None, "[0, 100]"] = None
    """Smallest and largest sigma of the Gaussian blur, pixels of a 224-pixel view (scaled to the view's size)."""
    blur_p: Annotated[float | None, "[0, 1]"] = None
    """Probability of the blur."""
    noise: Annotated[float | None, "[0, 1]"] = None
    """Largest standard deviation of added Gaussian noise, grey values in [0, 1]."""
    noise_p: Annotated[float | None, "[0, 1]"] = None
    """Probability of the noise."""
    erase: Annotated[tuple[float, float] | None, "[0, 1)"] = None
    """Smallest and largest share of the area that a random rectangle blanks out."""
    erase_p: Annotated[float | None, "[0, 1]"] = None
    """Probability of the rectangle."""


def check_augment(config: AugmentConfig) -> None:
    """Refuse an augmentation that cannot be, in pretraining and fine-tuning alike.

    Raises:
        InputError: naming the setting.
    """
    unknown = sorted(set(config.off) - set(AUGMENT_PARTS))
    if unknown:
        raise InputError(f"augment.off names {', '.join(unknown)}; the parts are {' '.join(AUGMENT_PARTS)}")
    for name in ("crop", "blur", "erase"):
        low, high = getattr(config, name) or (0.0, 0.0)
        if low > high:
            raise InputError(f"augment.{name} is {low}, {high}; it must be the smallest, then the largest")
