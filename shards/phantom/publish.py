"""Write drawn X-rays in the layouts in which NIH ChestX-ray14 and CheXpert are published."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from shards.processes import cores, safe_path

from ..atomic import write_bytes
from ..errors import InputError
from ..labels import NIH_BOXED
from ..progress import Progress
from .case import CHEXPERT, NIH, Case, Style, patient_cases
from .labels import BOX_NAMES, CHEXPERT_NAMES, chexpert_labels, nih_label
from .render import Box, Picture, render

MARKER = "phantom.json"
"""Says which images a folder holds; `complete` turns true when the last file is there."""
NIH_PIXELS = 1024
"""BBox_List counts in pixels of the 1024 x 1024 image, whatever the size of the files."""
_TEST_SHARE = 0.22
_VALID_SHARE = 0.18
_DETECTORS = ((2048, 2500, 0.168), (2500, 2048, 0.171), (2992, 2991, 0.143), (2682, 2749, 0.143), (3056, 2544, 0.139))
_NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
_TRUTH_HEADER = "Image,Width,Height,Finding,Size,Side,Bbox x,Bbox y,Bbox w,Bbox h"
Row = dict[str, Any]


def write_nih(
    out: str | os.PathLike[str], *, n_patients: int, seed: int = 0, size: int = 256, workers: int | None = None
) -> int:
    """Write an NIH ChestX-ray14 folder of drawn X-rays and return how many images it holds.

    `size` is the side of the square PNGs in pixels; `workers` the number of processes (None = all cores,
    0 = this process). Files: images_NNN/images/PPPPPPPP_FFF.png, Data_Entry_2017_v2020.csv, train_val_list.txt,
    test_list.txt, BBox_List_2017.csv, and truth.csv: every finding drawn, with its box as shares of the image.

    Raises:
        InputError: a number is out of range, or `out` holds something else.
    """
    root = Path(out)
    if not _claim(root, {"style": "nih", "n_patients": n_patients, "seed": seed, "size": size}):
        return int(json.loads((root / MARKER).read_text())["images"])
    rows = _draw_all(root, NIH, n_patients, seed, size, workers)
    names = [row["name"] for row in rows]
    _write_text(root / "Data_Entry_2017_v2020.csv", _NIH_HEADER, (row["table"] for row in rows))
    _write_text(root / "train_val_list.txt", None, ([n] for n, row in zip(names, rows, strict=True) if not row["test"]))
    _write_text(root / "test_list.txt", None, ([n] for n, row in zip(names, rows, strict=True) if row["test"]))
    boxes = ([row["name"], BOX_NAMES[b[0]], *_in_pixels(b)] for row in rows for b in row["boxes"] if b[0] in NIH_BOXED)
    _write_text(root / "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", boxes)
    return _finish(root, rows)


def write_chexpert(
    out: str | os.PathLike[str], *, n_patients: int, seed: int = 0, size: int = 256, workers: int | None = None
) -> int:
    """Write a CheXpert-v1.0-small folder of drawn X-rays under `out` and return how many images it holds.

    `size` is the shorter side of the JPEGs in pixels; `workers` as in `write_nih`. Files:
    CheXpert-v1.0-small/{train,valid}/patientNNNNN/studyK/view1_frontal.jpg, train.csv (1, 0, -1, blank),
    valid.csv (1 and 0 only), and truth.csv.

    Raises:
        InputError: a number is out of range, or `out` holds something else.
    """
    root = Path(out)
    if not _claim(root, {"style": "chexpert", "n_patients": n_patients, "seed": seed, "size": size}):
        return int(json.loads((root / MARKER).read_text())["images"])
    rows = _draw_all(root, CHEXPERT, n_patients, seed, size, workers)
    titles = ",".join(["Path,Sex,Age,Frontal/Lateral,AP/PA", *CHEXPERT_NAMES.values()])
    for name, wanted in (("train", False), ("valid", True)):
        table = (row["table"] for row in rows if row["test"] == wanted)
        _write_text(root / "CheXpert-v1.0-small" / f"{name}.csv", titles, table)
    return _finish(root, rows)


def _claim(root: Path, config: Row) -> bool:
    """Mark the folder as ours; False when it is complete already."""
    for key, least in (("n_patients", 1), ("seed", 0), ("size", 16)):
        if config[key] < least:
            raise InputError(f"phantom: {key} is {config[key]}, must be at least {least}")
    if root.exists() and not root.is_dir():
        raise InputError(f"phantom: {root} is a file, not a folder; choose another output folder")
    marker = root / MARKER
    if marker.is_file():
        found = json.loads(marker.read_text())
        if {key: found.get(key) for key in config} != config:
            raise InputError(f"phantom: {root} holds other drawn X-rays ({found}); choose another output folder")
        return not found["complete"]
    if root.is_dir() and any(not path.name.startswith(f".{MARKER}.") for path in root.iterdir()):
        raise InputError(f"phantom: {root} holds something else; choose another or an empty output folder")
    root.mkdir(parents=True, exist_ok=True)
    write_bytes(marker, [json.dumps(config | {"complete": False}).encode()])
    return True


def _finish(root: Path, rows: list[Row]) -> int:
    truth = (line for row in rows for line in row["truth"])
    _write_text(root / "truth.csv", _TRUTH_HEADER, truth)
    marker = root / MARKER
    write_bytes(marker, [json.dumps(json.loads(marker.read_text()) | {"complete": True, "images": len(rows)}).encode()])
    return len(rows)


def _write_text(path: Path, header: str | None, rows: Iterable[Iterable[Any]]) -> None:
    text = io.StringIO()
    if header is not None:
        text.write(header + "\n")
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_bytes(path, [text.getvalue().encode()])


def _in_pixels(box: Box) -> list[float]:
    return [round(value * NIH_PIXELS, 6) for value in box[1:]]


def _draw_all(root: Path, style: Style, n_patients: int, seed: int, size: int, workers: int | None) -> list[Row]:
    """Draw every patient, in parallel; rows come back in the patients' order."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    count = cores() if workers is None else workers
    jobs = [(root, style, seed, size, patient) for patient in range(1, n_patients + 1)]
    rows: list[Row] = []
    with Progress(n_patients, f"{style.name} patients drawn", _say, unit="patient") as bar:

        def collect(results: Iterator[list[Row]]) -> None:
            for found in results:
                rows.extend(found)
                bar.add(1)

        if count <= 1 or n_patients < 4:
            collect(map(_draw_patient, jobs))
        else:
            executor = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_one_thread)
            with safe_path(), executor as pool:
                collect(pool.map(_draw_patient, jobs, chunksize=max(1, min(16, n_patients // (4 * count)))))
    for number, row in enumerate(rows):
        row["number"] = number
    return rows


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _draw_patient(job: tuple[Path, Style, int, int, int]) -> list[Row]:
    root, style, seed, size, patient = job
    rng = np.random.default_rng([seed, patient, 99])
    test = bool(rng.random() < (_TEST_SHARE if style.name == "nih" else _VALID_SHARE))
    detector = _DETECTORS[int(rng.integers(len(_DETECTORS)))]
    write = _nih_picture if style.name == "nih" else _chexpert_picture
    return [write(root, style, case, size, test, detector) for case in patient_cases(style, seed, patient)]


def _row(name: str, table: list[Any], case: Case, picture: Picture, test: bool) -> Row:
    height, width = picture.image.shape
    truth = []
    for finding in case.findings:
        places = [[round(v, 6) for v in box[1:]] for box in picture.boxes if box[0] == finding.name]
        what = [name, width, height, finding.name, round(finding.size, 4), "RL"[finding.side]]
        truth += [[*what, *place] for place in places or [[""] * 4]]
    return {"name": name, "table": table, "boxes": picture.boxes, "test": test, "truth": truth}


def _save(path: Path, image: np.ndarray, options: list[int]) -> None:
    done, data = cv2.imencode(path.suffix, image, options)
    if not done:
        raise InputError(f"phantom: cannot encode {path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, [data.tobytes()], durable=False)


def _nih_picture(root: Path, style: Style, case: Case, size: int, test: bool, detector: tuple[int, int, float]) -> Row:
    picture = render(case, style, size, size)
    name = f"{case.patient:08d}_{case.number:03d}.png"
    # As published: the first folder holds fewer patients than the others.
    folder = f"images_{1 + case.patient // 1336:03d}"
    _save(root / folder / "images" / name, picture.image, [cv2.IMWRITE_PNG_COMPRESSION, 2])
    label = nih_label(case, style)
    wide, high, spacing = detector
    table = [name, label, case.number, case.patient, case.age, case.anatomy.sex, case.pose.view]
    return _row(name, [*table, wide, high, spacing, spacing], case, picture, test)


def _chexpert_picture(
    root: Path, style: Style, case: Case, size: int, test: bool, detector: tuple[int, int, float]
) -> Row:
    shape = np.random.default_rng([case.texture_seed, 5]).random()
    longer = round(size * 390 / 320)
    height, width = (size, longer) if shape < 0.7 else (longer, size) if shape < 0.9 else (size, size)
    picture = render(case, style, height, width)
    study = f"patient{case.patient:05d}/study{case.number + 1}/view1_frontal.jpg"
    name = f"CheXpert-v1.0-small/{'valid' if test else 'train'}/{study}"
    _save(root / name, picture.image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    labels = chexpert_labels(case, style, expert=test)
    sex = "Male" if case.anatomy.sex == "M" else "Female"
    values = ["" if labels[key] is None else labels[key] for key in CHEXPERT_NAMES]
    table = [name, sex, case.age, "Frontal", case.pose.view, *values]
    return _row(name, table, case, picture, test)
