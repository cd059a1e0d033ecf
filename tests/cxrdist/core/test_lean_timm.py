"""timm without what it looks for besides."""

import importlib.util
import sys
from pathlib import Path

from tests.cxrdist.forked import run_forked


def found(out: str) -> None:
    """Write which modules this rank has, and whether wandb can still be looked for."""
    importlib.util.find_spec("wandb")  # raises while it is hidden
    Path(out).write_text(" ".join(name for name in ("timm", "wandb") if name in sys.modules))


def test_a_rank_has_timm_and_not_wandb_which_can_be_imported_later(tmp_path):
    code, errors = run_forked(found, str(tmp_path / "found"), nproc=1, log=tmp_path / "errors")
    assert code == 0, errors
    assert (tmp_path / "found").read_text() == "timm"
