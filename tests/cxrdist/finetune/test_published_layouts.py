"""Every set that `cxrdist shard` reads, in its published layout, through shard, verify and a fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from jobs.cli import parse
from results import schema
from shards import read_card
from shards.convert.engine import convert
from shards.convert.registry import CONVERTERS, plan
from shards.labels import NULL
from shards.read.index import Index
from shards.verify import verify
from tests.cxrdist.conftest import TINY
from tests.cxrdist.finetuning import trained
from tests.shards.convert import layouts
from tests.shards.convert.conftest import write_nih
from tests.shards.convert.test_kermany import write_kermany
from tests.shards.convert.test_medmnist import write_npz

Layout = tuple[str, Callable[[Path], Any], dict[str, Any]]
FINDINGS = ("Atelectasis", "No Finding", "Effusion|Edema")
DRAWN = {"val_fraction": 0.2, "test_fraction": 0.3}
OWN = {"table": "table.csv", "path_column": "file", "path_prefix": "images/", "path_suffix": ".png"}
OWN |= {"patient_column": "patient", "study_column": "visit", "view_column": "projection", "sex_column": "sex"}

LAYOUTS: dict[str, Layout] = {
    "nih": ("nih", lambda root: write_nih(root, 12, 2, FINDINGS), {"val_fraction": 0.3}),
    "chexpert": ("chexpert", layouts.write_chexpert, {"valid_as": "test", "val_fraction": 0.2, "views": "all"}),
    "chexpert_plus": (
        "chexpert_plus", lambda root: layouts.write_chexpert_plus(root, 12),
        {"valid_as": "test", "val_fraction": 0.2, "views": "all"},
    ),
    "mimic": ("mimic", layouts.write_mimic, {"views": "all"}),
    "padchest": ("padchest", lambda root: layouts.write_padchest(root, 16), DRAWN),
    "vindr": ("vindr", lambda root: layouts.write_vindr(root, 24), {"val_fraction": 0.3}),
    "vinbigdata": ("vindr", lambda root: layouts.write_vinbigdata(root, 24), DRAWN),
    "rsna": ("rsna", lambda root: layouts.write_rsna(root, 18), DRAWN),
    "brax": ("brax", lambda root: layouts.write_brax(root, 10), {**DRAWN, "views": "all"}),
    "siim": ("siim", lambda root: layouts.write_siim(root, 20), DRAWN),
    "kermany": ("kermany", write_kermany, {}),
    "medmnist": ("medmnist", lambda root: write_npz(root / "pneumoniamnist.npz"), {}),
    "csv": ("csv", layouts.write_own, {**OWN, **DRAWN, "age_column": "age"}),
    "dicom": ("dicom", layouts.write_dicom, {**DRAWN, "table": "labels.csv"}),
}  # fmt: skip
WITH_STUDIES = {"chexpert", "chexpert_plus", "mimic", "padchest", "brax", "csv", "dicom"}


def sharded(layout: str, folder: Path) -> Path:
    """The set of a layout, converted."""
    name, write, options = LAYOUTS[layout]
    source, out = folder / "src", folder / layout
    source.mkdir()
    write(source)
    words = [name, "--src", str(source), "--out", str(out), "--workers", "1", "--max_rejects", "0.2"]
    words += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    config = parse("shard", words + (["--size", "32"] if layout != "medmnist" else []))
    convert(plan(config), config, say=lambda line: None)
    return out


def test_no_converter_is_left_out():
    assert {name for name, _, _ in LAYOUTS.values()} == set(CONVERTERS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_layout_goes_through_shard_verify_and_finetune(layout: str, tmp_path: Path):
    shards = sharded(layout, tmp_path)
    assert verify(shards, workers=1) == []
    card, index = read_card(shards), Index.open(shards)
    assert (card.studies > 0) == (layout in WITH_STUDIES)
    level = "study" if card.studies else "image"
    recipe = {"arch": TINY, "image_size": 32, "mode": "full", "epochs": 1, "min_steps": 1, "n_boot": 0}
    run = trained(tmp_path / "run", shards, level=level, augment={"preset": "none"}, **recipe)

    table = schema.read_predictions(run.predictions)
    tested = index.rows("test")
    if layout == "kermany":
        assert set(table["label"].to_pylist()) == {"pneumonia"}, "its causes are trained when asked for"
    for label in set(table["label"].to_pylist()):
        part = table.filter((pc.field("split") == "test") & (pc.field("label") == label))
        rows = index.find(part["key"].to_pylist())
        assert sorted(rows.tolist()) == tested.tolist(), "every test image once"
        stored = index.label(label)[rows]
        truth = np.where(stored == NULL, 0, np.abs(stored))  # uncertain is positive, blank negative
        assert part["y_true"].to_pylist() == truth.tolist()
        assert part["patient_id"].to_pylist() == index.patient_id(rows).tolist()
        for name in ("study_id", "view", "sex"):
            assert part[name].to_pylist() == getattr(index, name)(rows).tolist(), name
        ages = [None if np.isnan(age) else age for age in index.age(rows)]
        assert part["age"].to_pylist() == ages
    rows = schema.read_metrics(run.metrics).to_pylist()
    counted = {row["n_pos"] + row["n_neg"] for row in rows if row["metric"] == "auroc" and row["label"] != "macro"}
    units = len(tested) if level == "image" else len(set(index.study_id(tested)))
    assert {row["level"] for row in rows} == {level} and counted == {units}
