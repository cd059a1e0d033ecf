"""Shard sets behind a URL and staged ones: the same trial, the same bits."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cxrdist import cells, finetune, places, trial_data
from cxrdist.errors import InputError
from cxrdist.evaluate import evaluate
from results import schema
from shards import stage as staging
from tests.cxrdist.test_finetune import trained, trial

LINEAR = {"mode": "linear", "arch": "resnet10t", "n_boot": 0}


class Web(http.server.ThreadingHTTPServer):
    """Serves a folder on this machine and keeps what was asked for."""

    def __init__(self, folder: Path):
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(Path(self.path).name)
                super().do_GET()

            def log_message(self, *arguments) -> None:
                pass

        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))


@pytest.fixture
def web(blobs, tmp_path, monkeypatch) -> Iterator[Web]:
    """The shard set `blobs` behind an address; what is fetched lands in the test's own cache."""
    monkeypatch.setenv("CXRDIST_CACHE", str(tmp_path / "fetched"))
    server = Web(blobs.parent)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def scores(run) -> np.ndarray:
    return np.array(schema.read_predictions(run.predictions)["y_score"])


def test_a_trial_reads_shards_behind_a_url_and_is_the_same_trial(web, blobs, tmp_path):
    url = f"http://127.0.0.1:{web.server_port}/{blobs.name}"
    config, run = trial(tmp_path / "far", blobs, **LINEAR)
    far = cells.resolve(dataclasses.replace(config, shards=url + "/"))
    assert cells.trial_signature(far) == cells.trial_signature(config)
    assert set(web.asked) == {"dataset.json"}, "naming a trial fetches the card alone"
    finetune.run_trial(far, run)
    assert any((tmp_path / "fetched").rglob("index.parquet"))
    near = trained(tmp_path / "near", blobs, **LINEAR)
    assert np.array_equal(scores(run), scores(near))
    rows = evaluate(near.path, [url], device="cpu")
    own = schema.read_metrics(run.metrics).to_pylist()
    value = {row["value"] for row in (*rows, *own) if (row["label"], row["metric"]) == ("pneumonia", "auroc")}
    assert len(value) == 1


@pytest.mark.parametrize("stage", ["ram", "disk"])
def test_a_staged_trial_reads_the_copy(stage, blobs, tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "_RAM", tmp_path / "shm")
    (tmp_path / "shm").mkdir()
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path))
    config, run = trial(tmp_path / "run", blobs, **LINEAR, stage=stage)
    finetune.run_trial(config, run)
    copy = trial_data.opened(config.shards, "test", stage).path
    assert copy != blobs and tmp_path in copy.parents and (copy / "dataset.json").is_file()
    assert np.array_equal(scores(run), scores(trained(tmp_path / "near", blobs, **LINEAR)))


def test_an_address_that_is_none_is_one_clear_line(web):
    with pytest.raises(InputError, match=r"/nothing/dataset.json cannot be read .*is this the address"):
        places.card(f"http://127.0.0.1:{web.server_port}/nothing")


def test_a_cache_folder_may_name_a_variable_of_the_node(blobs, tmp_path, monkeypatch):
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    trained(tmp_path / "run", blobs, **LINEAR, cache="$NODE_DISK/shared")
    assert list((tmp_path / "disk" / "shared").glob("features-*.npy"))
    assert not Path("$NODE_DISK").exists()
