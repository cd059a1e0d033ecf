"""Files that several processes need and one of them makes."""

import resource
from pathlib import Path

import pytest
import safetensors.torch
import torch

from cxrdist.core.shared_files import once


def test_a_disk_without_room_is_one_clear_line_and_leaves_no_half_file(tmp_path: Path):
    def fill(path: Path) -> None:
        safetensors.torch.save_file({"weight": torch.zeros(5000)}, path)

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(RuntimeError) as caught:
            once(tmp_path / "shared.safetensors", fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert getattr(caught.value, "exit_code", None) == 1 and "shared.safetensors" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [".shared.safetensors.lock"]
    assert once(tmp_path / "shared.safetensors", fill).stat().st_size > 20_000
