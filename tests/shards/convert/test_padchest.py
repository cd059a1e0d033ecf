"""PadChest: its lists of findings, its folders, and the groups of its names."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from shards.convert.padchest import groups_of
from tests.shards.convert import layouts
from tests.shards.convert.conftest import make
from tests.shards.convert.published import config, converted


def test_padchest_reads_its_lists_ages_views_and_folders(tmp_path: Path) -> None:
    index, rejects, _ = converted("padchest", tmp_path / "src")
    rows = index.set_index(index.key.str[40:45].astype(int))
    assert set(rows.index) == {0, 1, 4, 5, 8, 9, 12, 13}
    assert sorted(rejects.reason.value_counts().to_dict().items()) == [
        ("lateral view (views=frontal)", 2), ("no labels", 2), ("view unknown (views=frontal)", 4),
    ]  # fmt: skip
    assert (
        rows.source[4] == "1/" + rows.key[4] + ".png" and rows.patient_id[4] == "839860488694292331637988235681460989"
    )
    assert rows.label_no_finding[0] == 1 and rows.label_pleural_effusion[1] == 1
    assert rows.label_costophrenic_angle_blunting[1] == 1 and rows.label_infiltration[4] == rows.label_nodule[4] == 1
    assert rows.label_tube[5] == rows.label_tuberculosis[5] == 1 and rows.label_tube[1] == 0
    assert (
        rows.age[0] == 84
        and bool(rows.age.isna()[1])
        and rows["view"].to_dict()[1] == "AP"
        and bool(rows.sex.isna()[5])
    )
    physician = make(config("padchest", tmp_path / "src", physician_only="true", out=tmp_path / "p"))[0]
    assert len(physician) == 4


def test_padchest_names_may_be_labels_of_their_own(tmp_path: Path) -> None:
    index = converted("padchest", tmp_path / "src", findings="published", views="all")[0]
    assert {"label_pericardial_effusion", "label_nsg_tube", "label_no_finding", "label_pleural_effusion"} <= set(index)
    own = index.set_index(index.key.str[40:45].astype(int))
    assert own.label_pericardial_effusion[3] == 1 and own.label_pleural_effusion[3] == 0


def test_padchest_in_one_folder_is_read_too(tmp_path: Path) -> None:
    layouts.write_padchest(tmp_path / "src")
    for path in list((tmp_path / "src").glob("*/*.png")):
        path.rename(tmp_path / "src" / path.name)
    for number in range(3):
        (tmp_path / "src" / str(number)).rmdir()
    assert len(make(config("padchest", tmp_path / "src"))[0]) == 8


def test_padchest_groups_equal_torchxrayvisions_on_every_published_label_list(tmp_path: Path) -> None:
    xrv = pytest.importorskip("torchxrayvision", reason="torchxrayvision: not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = xrv.datasets.PC_Dataset(str(tmp_path), views=["*"], unique_patients=False)
    cells = theirs.csv["Labels"].tolist()
    names = ["label_" + name.lower().replace(" ", "_") for name in theirs.pathologies]
    names = ["pleural_effusion" if name == "label_effusion" else name.removeprefix("label_") for name in names]
    seen: dict[str, np.ndarray] = {}
    for cell, row in zip(cells, theirs.labels, strict=True):
        seen.setdefault(cell, row)
    different = []
    for cell, row in seen.items():
        ours = {group for name in layouts_parts(cell) for group in groups_of(name)} - {"no_finding"}
        wanted = {name for name, value in zip(names, row, strict=True) if value}
        if ours != wanted:
            different.append((cell, ours ^ wanted))
    # they miss a tube whose name has a blank behind it
    assert all(groups <= {"tube"} and ("tube '" in cell or "stent '" in cell) for cell, groups in different)
    assert len(seen) > 10_000


def layouts_parts(cell: str) -> list[str]:
    from shards.convert.padchest import parts

    return parts(cell, "test")
