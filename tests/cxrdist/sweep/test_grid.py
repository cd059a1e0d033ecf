"""From a sweep's spec to its cells: the product, what narrows it, what is refused; no torch and no Ray involved."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from cxrdist.core.backbones import save_encoder
from cxrdist.errors import InputError
from cxrdist.finetune.config import words
from cxrdist.sweep import cost, search
from cxrdist.sweep.config import SearchConfig, SweepConfig
from cxrdist.sweep.folder import SweepFolder
from cxrdist.sweep.grid import expand
from shards.labels import CANONICAL, choose
from tests.cxrdist.conftest import TINY

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def spec(tmp_path, blobs):
    """Make a sweep configuration; axes and shared options by name."""

    def make(axes=None, finetune=None, **more) -> SweepConfig:
        shared = {"shards": str(blobs), "arch": "resnet10t", "image_size": 28, **(finetune or {})}
        return SweepConfig(out=str(tmp_path / "out"), axes=axes or {}, finetune=shared, **more)

    return make


def test_cells_are_the_product_of_the_axes_in_their_order(spec):
    cells = expand(spec({"label_fraction": [0.1, 1.0], "mode": ["linear", "full"], "seed": [0, 1, 2]}))
    assert len(cells) == 12 and len({cell.signature for cell in cells}) == 12
    assert [cell.values["seed"] for cell in cells[:3]] == [0, 1, 2]
    assert cells[0].values == {"label_fraction": 0.1, "mode": "linear", "seed": 0}
    for cell in cells:
        for key, value in cell.values.items():
            assert getattr(cell.config, key) == value
        assert Path(cell.config.out) == SweepFolder(Path(cell.config.out).parents[1]).cell_folder(cell.signature)


def test_include_keeps_and_exclude_drops(spec):
    axes = {"mode": ["linear", "full"], "label_fraction": [0.01, 0.1, 1.0], "seed": [0, 1]}
    kept = expand(
        spec(axes, include=[{"mode": "linear"}, {"label_fraction": [1.0]}], exclude={"seed": 1, "label_fraction": 0.01})
    )
    found = {(c.values["mode"], c.values["label_fraction"], c.values["seed"]) for c in kept}
    everything = {(m, f, s) for m in axes["mode"] for f in axes["label_fraction"] for s in axes["seed"]}
    assert found == {(m, f, s) for m, f, s in everything if (m == "linear" or f == 1.0) and not (s == 1 and f == 0.01)}


def test_any_dotted_key_is_an_axis_and_is_named_in_the_variant(spec):
    cells = expand(spec({"optim.lr": [0.1, 0.01], "head.kind": ["linear", "mlp"]}))
    assert {(c.config.optim.lr, c.config.head.kind) for c in cells} == {
        (lr, kind) for lr in (0.1, 0.01) for kind in ("linear", "mlp")
    }
    assert cells[0].config.variant == "optim.lr=0.1 head.kind=linear"


def test_augmentation_parts_are_switched_off_one_at_a_time(spec):
    cells = expand(spec({"augment_without": ["nothing", "crop", "blur"]}, {"augment": {"off": ["flip"]}}))
    assert [cell.config.augment.off for cell in cells] == [["flip"], ["flip", "crop"], ["flip", "blur"]]
    assert [cell.config.variant for cell in cells] == [None, "augment_without=crop", "augment_without=blur"]


def test_variants_are_listed_once_beside_the_recipe_and_named_as_written(spec):
    variants = [
        {"name": "without batch norm", "norm": "none"},
        {"name": "threshold 0.5", "threshold": "0.5"},
        {"name": "SGD & no flip", "optim": {"name": "sgd"}, "augment.off": ["flip"]},
    ]
    shared = {"arch": "small_cnn", "threshold": "f1", "optim": {"lr": 0.01, "name": "adam"}}
    cells = expand(spec({"seed": [0, 1], "optim.lr": [0.1]}, {**shared, "optim": {"name": "adam"}}, variant=variants))
    assert [cell.config.variant for cell in cells[:4]] == [
        "optim.lr=0.1", "optim.lr=0.1 without batch norm", "optim.lr=0.1 threshold 0.5", "optim.lr=0.1 SGD & no flip"
    ]  # fmt: skip
    cells = expand(spec({"seed": [0, 1]}, shared, variant=variants))
    assert [cell.config.variant for cell in cells[4:]] == [None, *(variant["name"] for variant in variants)]
    recipe, norm, threshold, both = (cell.config for cell in cells[:4])
    assert (recipe.norm, norm.norm, norm.threshold) == ("batch", "none", "f1")
    assert (threshold.threshold, threshold.optim.name) == ("0.5", "adam")
    assert (both.optim.name, both.optim.lr, both.augment.off, both.threshold) == ("sgd", 0.01, ["flip"], "f1")
    kept = expand(spec({"seed": [0]}, shared, variant=variants, exclude={"variant": ["threshold 0.5", "nothing"]}))
    assert [cell.values["variant"] for cell in kept] == ["without batch norm", "SGD & no flip"]


def test_a_setting_that_serves_some_cells_may_be_an_axis(spec):
    cells = expand(spec({"head.kind": ["linear", "mlp"], "head.hidden": [64, 32]}))
    assert len(cells) == 4
    heads = [{"name": "dense", "head.kind": "dense", "head.l2": 0.1}, {"name": "mlp", "head.kind": "mlp"}]
    assert len(expand(spec({"head": heads}))) == 2


def test_values_that_belong_together_are_one_axis(spec):
    policies = [
        {"name": "u-ones", "uncertain": "ones", "blanks": "zeros"},
        {"name": "u-ignore", "uncertain": "ignore", "blanks": "ignore"},
    ]
    cells = expand(spec({"policy": policies, "seed": [0, 1]}))
    assert [(c.values["policy"], c.config.uncertain, c.config.blanks) for c in cells] == [
        ("u-ones", "ones", "zeros"), ("u-ones", "ones", "zeros"),
        ("u-ignore", "ignore", "ignore"), ("u-ignore", "ignore", "ignore"),
    ]  # fmt: skip


def test_command_line_axes_take_the_place_of_the_spec_s(spec):
    cells = expand(spec({"seed": [0, 1, 2], "label_fraction": [0.5]}, seed="7,8", label_fraction=0.1, mode="linear"))
    assert {(c.config.seed, c.config.label_fraction, c.config.mode) for c in cells} == {
        (7, 0.1, "linear"), (8, 0.1, "linear")
    }  # fmt: skip


def test_a_cell_keeps_its_folder_whatever_else_the_grid_holds(spec):
    small = {cell.name: cell.signature for cell in expand(spec({"seed": [1], "mode": ["full"]}))}
    large = {cell.name: cell.signature for cell in expand(spec({"seed": [0, 1], "mode": ["linear", "full"]}))}
    assert set(small.items()) < set(large.items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"variant": [{"optim.lr": 1.0}]}, r"\[\[variant\]\] number 1 needs a name"),
        ({"variant": [{"name": "a"}]}, r"\[\[variant\]\] a: give at least one key"),
        ({"variant": [{"name": "a", "optim.rate": 1.0}]}, r"\[\[variant\]\] a: unknown key optim.rate"),
        ({"variant": [{"name": "a", "epochs": 0}]}, r"\[\[variant\]\] a: epochs = 0: must be at least 1"),
        ({"variant": [{"name": "a", "epochs": 3}] * 2}, r"\[\[variant\]\] a is given twice"),
        ({"variant": [{"name": "a", "seed": 3}], "axes": {"seed": [1]}}, r"a: seed is set by axes.seed; keep one"),
        ({"variant": [{"name": "a", "epochs": 20}]}, "two cells are the same trial"),
        ({"axes": {"head.dropout": [0.1, 0.2]}}, "head.dropout changes nothing in any cell: head.kind is linear"),
        ({"axes": {"last_n": [1, 2]}}, "last_n changes nothing in any cell: mode is full, not last_n"),
        (
            {"variant": [{"name": "a", "weight_factor": 0.5}]},
            "weight_factor changes nothing in any cell: class_weights",
        ),
        ({"axes": {"sed": [1]}}, "axes: unknown key sed; did you mean seed"),
        ({"axes": {"optim.rate": [1]}}, "unknown key optim.rate"),
        ({"finetune": {"epoch": 3}}, r"\[finetune\]: unknown key epoch; did you mean epochs"),
        ({"finetune": {"augment": {"off": False}}}, r"\[finetune\]: augment.off = False: must be a list"),
        ({"finetune": {"optim": 5}}, r"\[finetune\]: optim = 5: must be a table"),
        ({"label_fraction": "nan"}, "label_fraction = nan: must be in"),
        ({"seed": "0,-1"}, "axes.seed: seed = -1: must be in"),
        ({"axes": {"seed": []}}, "axes.seed is empty"),
        ({"axes": {"seed": 3}}, "axes.seed must be a list"),
        ({"axes": {"seed": [1, 1]}}, "axes.seed names a value twice"),
        ({"axes": {"seed": ["one"]}}, "seed"),
        ({"axes": {"label_fraction": [0.1, 2.0]}}, "axes.label_fraction: label_fraction = 2.0: must be in"),
        ({"axes": {"seed": [1]}, "finetune": {"seed": 2}}, r"seed is given both in \[axes\] and in \[finetune\]"),
        ({"axes": {"seed": [1]}, "exclude": {"seed": 1}}, "the grid is empty"),
        ({"axes": {"seed": [1]}, "exclude": {"mode": "full"}}, r"\[exclude\] mode: no such axis; the axes are seed"),
        ({"axes": {"seed": [1]}, "include": {"seed": 5}}, r"\[include\] seed = 5: not a value of that axis"),
        ({"axes": {"augment_without": ["sparkle"]}}, "no part 'sparkle'; the parts are nothing, crop"),
        ({"axes": {"init": ["nowhere"]}}, "init nowhere: no such file or run"),
        ({"finetune": {"shards": "/nonexistent"}}, "/nonexistent is not a shard set"),
        ({"finetune": {"cache": "x"}}, "cache: the sweep sets this"),
        ({"search": SearchConfig(method="random")}, "space is empty"),
        ({"search": SearchConfig(method="grid", space={"optim": {"lrr": [1]}})}, "unknown key optim.lrr"),
        ({"search": SearchConfig(method="random", space={"optim.lr": {"low": 1, "high": 0.1}})}, "must be below"),
    ],
)
def test_a_spec_that_cannot_be_is_refused_by_name(spec, changes, words):
    with pytest.raises(ValueError, match=words) as caught:
        expand(spec(**changes))
    assert getattr(caught.value, "exit_code", None) == 2


def test_two_names_of_one_trial_are_refused(spec, tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "a.pth")
    shutil.copy(tmp_path / "a.pth", tmp_path / "b.pth")
    with pytest.raises(InputError, match="two cells are the same trial"):
        expand(spec({"init": [str(tmp_path / "a.pth"), str(tmp_path / "b.pth")]}, {"init_mean": 0.5, "init_std": 0.25}))


def test_kmeans_patches_stands_beside_encoders_in_linear_cells(spec):
    axes = {"init": ["scratch", "kmeans-patches"], "mode": ["linear", "full"], "head.kind": ["linear", "rbf"]}
    rules = [{"init": "kmeans-patches", "mode": "full"}, {"head.kind": "rbf", "mode": "full"}]
    cells = expand(spec(axes, exclude=rules))
    archs = {cell.config.init: cell.config.arch for cell in cells}
    assert len(cells) == 5 and archs == {"scratch": "resnet10t", "kmeans-patches": "patch_features"}
    with pytest.raises(InputError, match=r"cell init=kmeans-patches mode=full .*: init kmeans-patches has no layers"):
        expand(spec(axes, exclude=rules[1:]))


def test_weights_of_several_pixel_scales_are_compared_in_one_sweep(spec, tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "xray.pth")
    given = {"name": "xray", "init": str(tmp_path / "xray.pth"), "init_mean": 0.5, "init_std": 1 / 2048}
    cells = expand(spec({"start": [{"name": "scratch", "init": "scratch"}, given]}))
    assert [cell.config.init_std for cell in cells] == [None, 1 / 2048]
    assert cells[0].signature != cells[1].signature


def test_random_draws_are_the_same_every_time_and_inside_their_ranges(spec):
    space = {
        "optim": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "name": ["adam", "sgd"]},
        "head.dropout": {"low": 0.1, "high": 0.5},
        "last_n": {"low": 1, "high": 4, "integer": True},
    }
    shared = {"mode": "last_n", "head.kind": "mlp"}
    config = spec({"seed": [0]}, shared, search=SearchConfig(method="random", space=space, samples=12))
    cells = expand(config)
    assert [c.signature for c in cells] == [c.signature for c in expand(config)] and len(cells) == 12
    for cell in cells:
        assert 1e-4 <= cell.config.optim.lr <= 1e-1 and 0.1 <= (cell.config.head.dropout or 0) <= 0.5
        assert cell.config.last_n in (1, 2, 3, 4) and cell.config.optim.name in ("adam", "sgd")
    assert len({cell.config.optim.lr for cell in cells}) == 12


def test_a_search_grid_multiplies_the_axes(spec):
    space = {"optim.lr": [0.1, 0.2], "last_n": [1, 2, 3]}
    found = expand(spec({"seed": [0, 1]}, {"mode": "last_n"}, search=SearchConfig(method="grid", space=space)))
    assert len(found) == 12
    rows = search.trials(found, ["optim.lr", "last_n"])
    assert len(rows) == 12 and all(row["state"] == "missing" and not row["chosen"] for row in rows)


def test_the_estimate_grows_with_the_work(spec):
    few, many = (expand(spec({"seed": [0]}, {"mode": "full", "epochs": n, "min_steps": 1})) for n in (1, 100))
    assert cost.estimate(many, [], gpu=False).images > 50 * cost.estimate(few, [], gpu=False).images
    assert cost.images(few[0].config) == pytest.approx(3 * 64 * 3 + 2 * 40 + 40)
    assert not cost.estimate(few, [], gpu=False).measured


def test_the_estimate_counts_shared_features_once(spec):
    probes = expand(spec({"seed": [0, 1, 2], "label_fraction": [0.1, 1.0]}, {"mode": "linear"}))
    assert cost.estimate(probes, [], gpu=False).images == 150 + 40 + 40


def test_a_standard_stem_costs_less_than_a_small_one(spec):
    standard, small = (cost.gflops(expand(spec({}, {"stem": stem}))[0].config) for stem in ("standard", "small"))
    assert small == 16 * standard


def test_linear_cells_share_their_frozen_networks_unless_told_not_to(spec, tmp_path):
    axes = {"mode": ["linear", "full"]}
    kept = {cell.values["mode"]: cell.config.backbones for cell in expand(spec(axes))}
    assert kept == {"linear": str(tmp_path / "out" / "backbones"), "full": None}
    assert {cell.config.backbones for cell in expand(spec(axes, whole_models=True))} == {None}
    assert [cell.signature for cell in expand(spec(axes))] == [
        cell.signature for cell in expand(spec(axes, whole_models=True, stage="ram", cache="$NODE/cache"))
    ]


def test_every_cell_is_staged_and_cached_as_the_sweep_says(spec):
    for cell in expand(spec({"seed": [0, 1]}, stage="disk", cache="$SLURM_TMPDIR/cache")):
        assert (cell.config.stage, cell.config.cache) == ("disk", "$SLURM_TMPDIR/cache")
    with pytest.raises(InputError, match=r"\[finetune\] stage: the sweep sets this .* \(the sweep's own option\)"):
        expand(spec({}, {"stage": "ram"}))


def test_a_dry_run_lists_every_cell_without_torch_or_ray(spec, blobs, tmp_path):
    text = f'[axes]\nseed = [0, 1]\nmode = ["linear"]\n[finetune]\nshards = "{blobs}"\narch = "resnet10t"\n'
    (tmp_path / "spec.toml").write_text(text)
    code = (
        "import sys; from jobs.cli import main;"
        f"c = main(['sweep', '--config', {str(tmp_path / 'spec.toml')!r}, '--out', {str(tmp_path / 'o')!r},"
        " '--dry_run', 'true']); print(c, sorted({'torch', 'ray', 'pandas', 'sklearn'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = out.splitlines()
    assert lines[-1] == "0 []"
    assert sum("to do" in line for line in lines) == 3 and "2 cells, 0 done, 2 to do" in lines[-2]
    assert not (tmp_path / "o").exists()


SPECS = sorted(
    path
    for path in (ROOT / "jobs" / "specs").glob("*.toml")
    if "[axes]" in path.read_text() and "[finetune]" in path.read_text()
)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_shipped_spec_is_a_grid_and_says_how_to_run_it(path, blobs, tmp_path):
    from jobs.cli import parse

    config = parse("sweep", ["--config", str(path), "--shards", str(blobs), "--out", str(tmp_path / "out")])
    if "labels" in config.finetune:  # of published sets; the drawn one has pneumonia alone
        assert choose(words(config.finetune["labels"]), CANONICAL)
        config = dataclasses.replace(config, finetune={**config.finetune, "labels": ["pneumonia"]})
    assert len(expand(config)) >= 2 or config.search.method != "none"
    head = path.read_text().split("\n\n")[0]
    assert all(word in head for word in ("Command:", "Hardware:", "Metric:", f"jobs/specs/{path.name}"))


def test_the_named_studies_have_specs():
    names = {path.stem for path in SPECS}
    assert {
        "label_efficiency", "transfer_nih_chexpert", "augmentation_ablation", "hyper_search", "linear_probe"
    } <= names  # fmt: skip


def test_the_example_of_five_initialisations_is_a_grid_of_81_cells(blobs, tmp_path, monkeypatch):
    from jobs.cli import parse

    example = ROOT / "examples" / "init_pneumoniamnist"
    held = tomllib.loads((example / "inits.toml").read_text())
    lines = []
    for name, entry in held.items():
        facts = {"arch": "tf_efficientnet_lite0" if name == "imagenet-lite0" else TINY, "image_size": 28}
        file = tmp_path / f"{name}.safetensors"
        save_encoder(file, torch.nn.Linear(1, len(name)), {**facts, "mean": 0.5, "std": 0.25})
        assert entry["init"].startswith("../../")
        lines.append(f'[{name}]\ninit = "{file}"\n')
    (tmp_path / "inits.toml").write_text("".join(lines))
    monkeypatch.setenv("CXRDIST_INITS", str(tmp_path / "inits.toml"))
    words = ["--config", str(example / "sweep.toml"), "--shards", str(blobs), "--out", str(tmp_path / "out")]
    cells = expand(parse("sweep", words))
    kinds = {(cell.config.arch, cell.values["init"], cell.config.mode) for cell in cells}
    assert len(cells) == 81 and len(kinds) == 9
    assert {init for _, init, _ in kinds} == {"scratch", "imagenet-lite0", "kmeans-patches", "simclr", "vicreg"}
