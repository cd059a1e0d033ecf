"""Contact sheets: one small image per finding, to look at."""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np

from .anatomy import draw_anatomy
from .case import STYLES, Case
from .drawings import DRAWINGS
from .findings import Finding
from .pose import draw_pose
from .render import render


def sample_case(
    name: str | None, *, seed: int, size: float = 0.6, ap: bool = False, devices: Sequence[str] = ()
) -> Case:
    """One image with exactly one finding (None = healthy), for sheets, tests and teaching."""
    rng = np.random.default_rng([seed, 31])
    findings = ()
    if name is not None:
        own = np.random.default_rng([seed, 32])
        side, u, v = int(own.integers(2)), float(own.random()), float(own.random())
        findings = (Finding(name=name, size=size, side=side, u=u, v=v, seed=int(own.integers(2**31))),)
    anatomy = draw_anatomy(rng)
    return Case(
        patient=seed,
        number=0,
        anatomy=anatomy,
        pose=draw_pose(rng, ap_share=float(ap)),
        age=anatomy.age,
        findings=findings,
        devices=tuple((device, seed) for device in devices),
        texture_seed=seed,
    )


def contact_sheet(
    path: str | os.PathLike[str],
    *,
    names: Sequence[str] | None = None,
    style: str = "nih",
    size: int = 256,
    columns: int = 4,
    severity: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    seed: int = 0,
    boxes: bool = False,
) -> None:
    """Write a sheet (JPEG or PNG by the name's ending): each finding once per severity, titled.

    `names` are canonical finding names, "healthy" or a device's name; None = all findings. `boxes` draws their boxes.
    """
    tiles = []
    for row, name in enumerate(names or ("healthy", *DRAWINGS)):
        for column, level in enumerate(severity):
            device = () if name in DRAWINGS or name == "healthy" else (name,)
            finding = name if name in DRAWINGS else None
            case = sample_case(
                finding, seed=seed + 100 * row + column, size=level, ap=(row + column) % 3 == 0, devices=device
            )
            picture = render(case, STYLES[style], size, size)
            tile = cv2.cvtColor(picture.image, cv2.COLOR_GRAY2BGR)
            for _, x, y, w, h in picture.boxes if boxes else ():
                corner, far = (int(x * size), int(y * size)), (int((x + w) * size), int((y + h) * size))
                cv2.rectangle(tile, corner, far, (60, 200, 255), 1)
            title = f"{name.replace('_', ' ')} {level:g} {case.pose.view}"
            cv2.putText(
                tile, title, (4, size - 6), cv2.FONT_HERSHEY_SIMPLEX, size / 640, (60, 255, 255), 1, cv2.LINE_AA
            )
            tiles.append(tile)
    while len(tiles) % columns:
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    options = [cv2.IMWRITE_JPEG_QUALITY, 80] if os.fspath(path).endswith((".jpg", ".jpeg")) else []
    if not cv2.imwrite(os.fspath(path), np.vstack(rows), options):
        raise OSError(f"could not write {path}")


__all__ = ["contact_sheet", "sample_case"]
