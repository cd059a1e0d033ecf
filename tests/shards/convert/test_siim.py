"""SIIM-ACR: files in nested folders, and the unlabelled among them."""

from __future__ import annotations

from pathlib import Path

from tests.shards.convert.published import converted


def test_siim_finds_its_files_in_nested_folders_and_lists_the_unlabelled(tmp_path: Path) -> None:
    index, rejects, _ = converted("siim", tmp_path / "src")
    assert index.label_pneumothorax.sum() == 2 and len(index) == 8
    assert (
        index.patient_id.nunique() == 4
        and (index.age == 51).all()
        and rejects.reason.tolist() == ["no row in train-rle.csv"]
    )
