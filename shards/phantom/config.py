"""What `cxrdist shard phantom` is asked for."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, Literal

from shards.ranges import SEEDS

PICTURES_PER_PATIENT = 2.5
DEFAULT_PATIENTS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhantomConfig:
    """Generated chest X-rays, as a shard set or in a published layout."""

    out: str
    """Folder to write."""
    style: Literal["nih", "chexpert"] = "nih"
    """Whose data to imitate: nih (PNG, positives only) or chexpert (JPEG, 1, 0, -1 and blanks, mostly AP)."""
    patients: Annotated[int | None, "[1, inf)"] = None
    """Number of patients, each with one or more images; None = as many as `images` asks for, or 1000."""
    images: Annotated[int | None, "[1, inf)"] = None
    """About how many images (patients are drawn whole, about 2.5 images each); None = as `patients` says."""
    seed: Annotated[int, SEEDS] = 0
    """The same seed gives the same patients and images."""
    size: Annotated[int, "[16, 4096]"] = 256
    """Shorter side of an image in pixels."""
    workers: Annotated[int | None, "[0, 1024]"] = None
    """Processes that draw; None = all cores, 0 = this process."""
    layout_only: bool = False
    """Write the published layout (images and tables) itself into `out`, and no shards."""

    @property
    def n_patients(self) -> int:
        """How many patients are asked for."""
        if self.patients is not None:
            return self.patients
        return DEFAULT_PATIENTS if self.images is None else max(1, math.ceil(self.images / PICTURES_PER_PATIENT))

    def recorded(self) -> dict[str, Any]:
        """Return what determines the shard set, as its card has it beside the settings of the conversion."""
        drawn = {"style": self.style, "patients": self.n_patients, "seed": self.seed}
        return {"phantom": drawn, "size": self.size}
