"""Trials from kmeans-patches, and probes with an rbf kernel: the same model everywhere, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel

from cxrdist.errors import InputError
from cxrdist.finetune import classifier, patch_dictionary, rbf_probe
from cxrdist.finetune.config import ClassifierHeadConfig, FinetuneConfig, run_settings
from cxrdist.finetune.evaluate import evaluate
from cxrdist.finetune.parse import from_plain
from cxrdist.inference import network as networks
from jobs import cli
from results import schema
from shards import ShardSet
from tests.cxrdist.conftest import TINY
from tests.cxrdist.finetuning import trained, trial

KMEANS = {"centres": 30, "grid": 2, "patches": 3000, "passes": 3}
PATCHES = {"mode": "linear", "init": "kmeans-patches", "arch": TINY, "kmeans": KMEANS, "n_boot": 0}


def scores_of(run) -> np.ndarray:
    return np.array([row["y_score"] for row in schema.read_predictions(run.predictions).to_pylist()])


@pytest.fixture(scope="module")
def run(tmp_path_factory, blobs):
    return trained(tmp_path_factory.mktemp("patches") / "run", blobs, **PATCHES, head={"kind": "rbf"})


def test_a_trial_from_kmeans_patches_learns_and_says_what_it_started_from(run):
    assert run.read_done()["test_auroc"] > 0.9
    rows = schema.read_metrics(run.metrics).to_pylist()
    first = rows[0]
    assert (first["init"], first["arch"], first["mode"]) == ("kmeans-patches", "patch_features", "linear")
    assert first["pretrain_dataset"] is None and first["method"] is None
    assert '"kmeans.centres":30' in first["config"]


def test_evaluate_predict_and_embed_take_a_run_from_kmeans_patches(run, blobs, tmp_path, capsys):
    before = scores_of(run)
    evaluate(run.path, [str(blobs)], device="cpu")
    assert np.array_equal(scores_of(run), before)
    encoder = networks.load(run.path, "cpu")
    shards = ShardSet(blobs, "test")
    images = shards.images(np.arange(len(shards)), 28)
    assert encoder.scores(images)[:, 0].tolist() == pytest.approx(before[-len(shards) :].tolist(), abs=1e-6)
    assert encoder.features(images).shape == (len(shards), 120)
    words = ["embed", str(run.path), "--shards", str(blobs), "--split", "test", "--out", str(tmp_path / "e.parquet")]
    assert cli.main(words) == 0
    assert cli.main(["explain", str(run.path), "--out", str(tmp_path / "explain"), "--count", "1"]) == 2
    assert "has no feature maps for Grad-CAM; use --method occlusion" in capsys.readouterr().err


def test_trials_share_the_dictionary_and_learn_the_same_without_a_cache(tmp_path, blobs):
    cache = str(tmp_path / "cache")
    alone = trained(tmp_path / "alone", blobs, **PATCHES, label_fraction=0.3)
    for seed in (0, 1):
        patch_dictionary._kept.clear()  # as another process would begin: seed 1 reads the file that seed 0 wrote
        shared = trained(
            tmp_path / f"seed{seed}", blobs, **PATCHES, label_fraction=0.3, seed=seed, cache=cache,
            backbones=str(tmp_path / "backbones"),
        )  # fmt: skip
        if seed == 0:
            assert np.array_equal(scores_of(shared), scores_of(alone))
    assert len(list((tmp_path / "cache").glob("dictionary-*"))) == 1
    assert len(list((tmp_path / "cache").glob("features-*"))) == 3
    assert len(list((tmp_path / "backbones").glob("[!.]*"))) == 1
    trained(tmp_path / "other", blobs, **PATCHES | {"kmeans": {**KMEANS, "seed": 1}}, cache=cache)
    assert len(list((tmp_path / "cache").glob("dictionary-*"))) == 2
    assert len(list((tmp_path / "cache").glob("features-*"))) == 6


def test_a_cache_named_by_a_variable_of_the_node_holds_what_the_dictionary_is_learnt_from(tmp_path, blobs, monkeypatch):
    patch_dictionary._kept.clear()
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    monkeypatch.chdir(tmp_path)
    trained(tmp_path / "run", blobs, **PATCHES, label_fraction=0.3, cache="$NODE_DISK/cache")
    assert len(list((tmp_path / "disk" / "cache").glob("images-*"))) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "run"}, "no folder by the variable's own name"


def test_settings_of_the_dictionary_count_where_there_is_one_and_nowhere_else(tmp_path, blobs):
    signatures = []
    for init in ("kmeans-patches", "scratch"):
        for centres in (30, 31):
            changes = PATCHES | {"init": init, "kmeans": {**KMEANS, "centres": centres}}
            _, made = trial(tmp_path / f"{init}{centres}", blobs, **changes)
            signatures.append(made.read_info()["signature"])
    assert signatures[0] != signatures[1] and signatures[2] == signatures[3]
    values = run_settings(FinetuneConfig(shards="-", out="-"))
    assert "kmeans" not in values and not any(name.startswith("rbf") for name in values["head"])
    head = ClassifierHeadConfig(kind="rbf", rbf_gamma=2.0, dropout=0.3)  # as it is recorded where none was chosen
    config = FinetuneConfig(shards="-", out="-", mode="linear", head=head)
    assert from_plain(run_settings(config), "test") == config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "full"}, "init kmeans-patches has no layers to train in mode full; take --mode linear"),
        ({"init_mean": 0.5, "init_std": 0.1}, "init kmeans-patches has its own pixel scale"),
    ],
)
def test_what_a_dictionary_cannot_do_is_refused(tmp_path, blobs, changes, words):
    with pytest.raises(InputError, match=words):
        trial(tmp_path / "run", blobs, **PATCHES | changes)


def test_pretraining_from_kmeans_patches_is_refused(tmp_path, blobs, capsys):
    words = ["pretrain", "--shards", str(blobs), "--out", str(tmp_path / "run"), "--init", "kmeans-patches"]
    assert cli.main(words) == 2
    assert "init kmeans-patches has no layers to pretrain" in capsys.readouterr().err


def test_an_rbf_head_for_modes_that_train_layers_is_refused(tmp_path, blobs):
    with pytest.raises(InputError, match="head.kind rbf takes no gradient steps, as mode full would"):
        trial(tmp_path / "run", blobs, mode="full", head={"kind": "rbf"})


def problem(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points in the plane (and a constant third feature), positive inside the unit circle."""
    rng = np.random.default_rng(seed)
    x = np.c_[rng.normal(0, 3, count), rng.normal(5, 0.5, count), np.full(count, 7.0)].astype(np.float32)
    y = ((x[:, 0] / 3) ** 2 + ((x[:, 1] - 5) / 0.5) ** 2 < 1.4)[:, None]
    return x, y.astype(np.float32), np.ones_like(y)


ONES = (np.ones(1, np.float32), np.ones(1, np.float32))


def test_an_rbf_probe_with_all_landmarks_is_kernel_logistic_regression():
    x, y, mask = problem(80, 0)
    config = ClassifierHeadConfig(kind="rbf", rbf_l2=[1e-2], rbf_gamma=1.5)
    head, penalty = rbf_probe.fit(x, y, mask, ONES, config, None, 0)
    assert penalty.tolist() == [1e-2] and len(head.landmarks) == 80
    scaled = ((x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), np.inf)).astype(np.float64)
    kernel = rbf_kernel(scaled, gamma=1.5 / 2)  # two features vary
    values, vectors = np.linalg.eigh(kernel)
    root = vectors * np.sqrt(values.clip(0))  # rows whose products are the kernel
    model = LogisticRegression(C=1 / (1e-2 * 80), tol=1e-8, max_iter=2000).fit(root, y[:, 0])
    found = head(torch.from_numpy(x)).numpy()[:, 0]
    assert found == pytest.approx(model.decision_function(root), abs=0.02)


def test_an_rbf_probe_learns_what_no_line_separates_with_few_landmarks_too():
    x, y, mask = problem(400, 0)
    seen = problem(400, 1)
    for landmarks in (1000, 60):
        config = ClassifierHeadConfig(kind="rbf", rbf_landmarks=landmarks)
        head, _ = rbf_probe.fit(x, y, mask, ONES, config, seen, 0)
        assert len(head.landmarks) == min(400, landmarks)
        right = (head(torch.from_numpy(seen[0])).numpy() > 0) == (seen[1] > 0)
        assert right.mean() > 0.95
    again, _ = rbf_probe.fit(x, y, mask, ONES, config, seen, 0)
    assert torch.equal(again.weight, head.weight)


def test_images_that_are_there_twice_do_not_blow_up_an_rbf_probe():
    x, y, mask = problem(40, 0)
    x, y, mask = np.r_[x, x], np.r_[y, y], np.r_[mask, mask]
    head, _ = rbf_probe.fit(x, y, mask, ONES, ClassifierHeadConfig(kind="rbf"), None, 0)
    assert head.weight.abs().max() < 1e4 and torch.isfinite(head(torch.from_numpy(x))).all()


def test_a_label_without_both_classes_has_no_weights_in_an_rbf_probe():
    x, y, mask = problem(60, 0)
    y = np.c_[y, np.zeros_like(y)]
    head, penalty = rbf_probe.fit(
        x, y, np.c_[mask, mask], (np.ones(2), np.ones(2)), ClassifierHeadConfig(kind="rbf"), None, 0
    )
    assert np.isnan(penalty[1]) and not head.weight[1].any() and head.weight[0].any()


def test_a_saved_rbf_head_is_loaded_with_its_landmarks(run):
    model = classifier.load(run.model)
    assert model.head.landmarks.shape == (150, 120)
    assert model.facts["dictionary"].startswith("{") and model.facts["mean"] == 0.0
