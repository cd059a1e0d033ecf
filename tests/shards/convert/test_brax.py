"""BRAX: labels, ages and views as published."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shards.convert.conftest import same_observations
from tests.shards.convert.published import converted


def test_brax_labels_equal_torchxrayvisions_and_its_oldest_are_85(tmp_path: Path) -> None:
    xrv = pytest.importorskip("torchxrayvision", reason="torchxrayvision: not installed")
    index, rejects, _ = converted("brax", tmp_path / "src")
    assert sorted(set(index.age)) == [45, 50, 85] and set(index["view"]) == {"PA", "AP"}
    assert rejects.reason.value_counts().to_dict() == {
        "lateral view (views=frontal)": 3,
        "view unknown (views=frontal)": 3,
    }
    table = str(tmp_path / "src" / "master_spreadsheet_update.csv")
    theirs = xrv.datasets.BRAX_Dataset(str(tmp_path / "src"), csvpath=table, views=["PA", "AP"], unique_patients=False)
    keys = ["_".join(path.split("/")[1:]).removesuffix(".png") for path in theirs.csv["PngPath"]]
    by_source = index.set_index(index.source.str.split("/").str[1:].str.join("_").str.removesuffix(".png"))
    same_observations(by_source, theirs, keys)
