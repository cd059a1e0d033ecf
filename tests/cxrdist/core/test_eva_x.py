"""EVA-X is read by the names of its published files."""

from __future__ import annotations

import torch

from cxrdist.core.initialisation import describe
from tests.cxrdist.publishers import State, off, vit, written


def test_eva_x_is_read_by_its_published_names(tmp_path):
    theirs = vit("eva_x_tiny_patch16", 32)
    renames = {
        "mlp.fc1_g": "mlp.w1",
        "mlp.fc1_x": "mlp.w2",
        "mlp.fc2": "mlp.w3",
        "mlp.norm": "mlp.ffn_ln",
        "fc_norm.": "norm.",
    }
    state: State = {"mask_token": torch.zeros(1, 1, 192), "lm_head.weight": torch.ones(8, 192)}
    for key, value in theirs.state_dict().items():
        for ours, published_name in renames.items():
            key = key.replace(ours, published_name)
        state[key] = value
    file = written(tmp_path / "eva_x_tiny.pt", {"module": state})
    start = describe(str(file))
    assert (start.arch, start.image_size) == ("eva_x_tiny_patch16", 32)
    assert start.published is not None and start.published.grey == (0.49185243, 0.28509309)
    assert off(file, theirs, 32) < 1e-5
