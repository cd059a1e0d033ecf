"""Studies that several tests read; nothing changes them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from results.collect import collect
from tests.results import simulate


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three initialisations x three fractions x three seeds, and the encoder's pretraining run."""
    return simulate.study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def results(study: Path) -> pa.Table:
    """The study, collected."""
    table, warnings = collect(study)
    assert warnings == []
    return table
