"""What `cxrdist shard phantom` is asked for."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhantomConfig:
    """Generated chest X-rays, as a shard set or in a published layout."""

    out: str
    """Folder to write."""
    style: str = "nih"
    """Whose data to imitate: nih (PNG, positives only) or chexpert (JPEG, 1, 0, -1 and blanks, mostly AP)."""
    patients: int | None = None
    """Number of patients, each with one or more pictures; None = as many as `images` asks for, or 1000."""
    images: int | None = None
    """About how many pictures (patients are drawn whole, about 2.5 pictures each); None = as `patients` says."""
    seed: int = 0
    """The same seed gives the same patients and pictures."""
    size: int = 256
    """Shorter side of a picture in pixels."""
    workers: int | None = None
    """Processes that draw; None = all cores, 0 = this process."""
    layout_only: bool = False
    """Write the published layout (images and tables) itself into `out`, and no shards."""
