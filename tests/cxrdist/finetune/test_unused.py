"""Settings that change nothing are refused."""

from __future__ import annotations

import pytest

from jobs import cli


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--mode full --last_n 2", "last_n = 2 changes nothing: mode is full, not last_n; leave it out"),
        ("--mode last_n --last_n 2 --last_layers 3", "last_n = 2 changes nothing: last_layers counts in its place"),
        ("--last_layers 3", "last_layers = 3 changes nothing: mode is full"),
        ("--head.dropout 0.1", "head.dropout = 0.1 changes nothing: head.kind is linear"),
        ("--head.kind mlp --head.l2 0.1", "head.l2 = 0.1 changes nothing: head.kind is mlp"),
        (
            "--head.kind mlp --mode linear --head.probe_l2 [1.0]",
            "head.probe_l2 = [1.0] changes nothing: head.kind is mlp",
        ),
        ("--weight_factor 0.5", "weight_factor = 0.5 changes nothing: class_weights is none"),
        ("--kmeans.centres 99", "kmeans.centres = 99 changes nothing: init is scratch"),
        ("--arch resnet10t --norm none", "norm none is for arch small_cnn alone"),
    ],
)
def test_a_setting_without_effect_is_refused(tmp_path, blobs, capsys, words, message):
    given = ["finetune", "--shards", str(blobs), "--out", str(tmp_path / "run"), "--device", "cpu", *words.split()]
    assert cli.main(given) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()
