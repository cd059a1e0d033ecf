"""Features of a shard set's images as a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cxrdist.errors import InputError
from cxrdist.inference import network as networks
from cxrdist.inference.embed import embed
from jobs import cli
from shards import ShardSet
from tests.cxrdist.conftest import TINY


def test_embedding_follows_the_index_and_holds_the_backbones_features(
    run: Path, shards_path: Path, network: networks.Encoder, tmp_path: Path
) -> None:
    out = tmp_path / "features.parquet"
    assert cli.main(["embed", str(run), "--shards", str(shards_path), "--out", str(out), "--device", "cpu"]) == 0
    table = pq.read_table(out)
    whole = ShardSet(shards_path)
    assert table["key"].to_pylist() == whole.index.keys(whole.rows).tolist()
    features = np.stack(table["features"].to_pylist())
    assert features.shape == (len(whole), network.module.num_features)
    with torch.no_grad():
        direct = network.module(network.pixels(whole.images(np.array([3]), 48)))[0].numpy()
    np.testing.assert_allclose(features[3], direct, rtol=1e-4, atol=1e-5)
    assert set(table["split"].to_pylist()) == {"train", "val", "test"}
    assert table["label_cardiomegaly"].to_pylist() == whole.index.label("cardiomegaly")[whole.rows].tolist()
    assert table.schema.metadata[b"cxrdist.dataset"] == b"nih"

    test = ShardSet(shards_path, "test")
    embed(network, test, tmp_path / "test.parquet", quiet=True)
    part = pq.read_table(tmp_path / "test.parquet").to_pylist()
    rows = {row["key"]: row for row in table.to_pylist()}
    assert len(part) == len(test)
    assert all(row == rows[row["key"]] for row in part)


def test_embedding_replaces_an_embedding_and_nothing_else(
    network: networks.Encoder, shards_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "features.parquet"
    out.write_text("a thesis")
    with pytest.raises(InputError, match="not a file of features"):
        embed(network, ShardSet(shards_path, "val"), out, quiet=True)
    assert out.read_text() == "a thesis"
    out.unlink()
    embed(network, ShardSet(shards_path, "val"), out, quiet=True)
    embed(network, ShardSet(shards_path, "test"), out, quiet=True)
    assert set(pq.read_table(out)["split"].to_pylist()) == {"test"}


def test_an_encoder_can_be_embedded_but_not_asked_for_scores(
    network: networks.Encoder, shards_path: Path, tmp_path: Path
) -> None:
    from cxrdist.core.backbones import save_encoder

    facts = {"arch": TINY, "image_size": 48, "stem": "standard", "mean": 0.5, "std": 0.2}
    save_encoder(tmp_path / "encoder.safetensors", network.module, facts)
    alone = networks.load(tmp_path, "cpu")
    assert alone.classifier is None
    embed(alone, ShardSet(shards_path, "val"), tmp_path / "val.parquet", quiet=True)
    with pytest.raises(InputError, match="without a classifier"):
        networks.load(tmp_path / "encoder.safetensors", "cpu", classify=True)
