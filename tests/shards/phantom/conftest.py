"""Two small drawn datasets."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.phantom import write_chexpert, write_nih


@pytest.fixture(scope="session")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn NIH folder of 14 patients, not to be changed."""
    out = tmp_path_factory.mktemp("phantom") / "nih"
    write_nih(out, n_patients=14, seed=3, size=64, workers=0)
    return out


@pytest.fixture(scope="session")
def chexpert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn CheXpert folder of 14 patients, not to be changed."""
    out = tmp_path_factory.mktemp("phantom") / "chexpert"
    write_chexpert(out, n_patients=14, seed=3, size=64, workers=0)
    return out
