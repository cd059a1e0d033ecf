"""What is damaged, and who reads it. A kind is a function (workplace, seed) -> outcome."""

from __future__ import annotations

import contextlib
import io
import json
import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxrdist.core import checkpoint, initialisation, weights
from cxrdist.finetune.parse import from_plain
from cxrdist.sweep.grid import check_settings
from jobs import _chain, _tasks, cli
from results.collect import collect
from results.run import Run
from shards import ShardSet, read_card
from shards.convert.config import CsvConfig
from shards.convert.grey import Unusable
from shards.convert.images import decode
from shards.convert.registry import plan
from shards.read.fractions import fraction_manifest, read_manifest
from slurm import profiles
from tests.fuzz import mutations
from tests.fuzz.workplace import Workplace

ROOT = Path(__file__).resolve().parents[2]
SPECS = sorted((ROOT / "jobs" / "specs").glob("*.toml"))
LINES = [
    "pretrain --shards s --out r --arch resnet18 --image_size 64 --optim.lr 0.3 --augment.crop [0.4,1] --sync_bn",
    "finetune --shards s --init scratch --label_fraction 0.1 --out r --mode last_n --labels edema,pneumonia",
    "sweep --out o --shards a,b --init scratch,imagenet --seed 0,1 --label_fraction 0.1,1 --dry_run",
    "table label-efficiency r.parquet --format latex --digits 3 --where mode=full",
    "plot roc r.parquet --out f.png --label edema",
    "shard csv --src d --out o --table t.csv --size 64 --val_fraction 0.1",
    "evaluate r --shards a,b --uncertain ones",
    "predict r a.png b.png --out x.csv --device cpu",
    "collect a b --out x.parquet --quiet",
]


def _images(place: Workplace, seed: int) -> str:
    data = mutations.damaged_bytes(place.images[seed % len(place.images)], seed)
    grey = decode(data, max_pixels=1 << 20)
    assert grey.pixels.ndim == 2 and grey.pixels.max() <= grey.white
    return "accepted"  # these formats hold no checksum that a picture is its own; a shard set does


def _dicom(place: Workplace, seed: int) -> str:
    data = mutations.damaged_bytes(place.dicoms[seed % len(place.dicoms)], seed)
    grey = decode(data, max_pixels=1 << 20)
    assert grey.pixels.ndim == 2 and grey.pixels.max() <= grey.white
    return "accepted"


def _tables(place: Workplace, seed: int) -> str:
    folder = place.folder("csv")
    if not (folder / "a.png").exists():
        for name in "abcdef":
            (folder / f"{name}.png").write_bytes(place.images[0])
    rows = [f"{name}.png,p{i // 2},{'PA' if i % 2 else 'AP'},{i % 2},{30 + i}" for i, name in enumerate("abcdef")]
    text = "\n".join(["path,patient,view,Edema,age", *rows]) + "\n"
    (folder / "t.csv").write_bytes(mutations.damaged_bytes(text.encode(), seed))
    made = plan(
        CsvConfig(
            src=str(folder),
            out=str(place.root / "csv.out"),
            table=str(folder / "t.csv"),
            size=16,
            patient_column="patient",
            view_column="view",
            age_column="age",
            allow_missing=True,
        )  # fmt: skip
    )
    assert set(made.table["split"].to_pylist()) <= {"train", "val", "test"}
    return "accepted"


def _toml(place: Workplace, seed: int) -> str:
    spec = SPECS[seed % len(SPECS)]
    file = place.folder("toml") / "spec.toml"
    file.write_bytes(mutations.damaged_toml(spec.read_text(), seed))
    words = ["--out", "o", "--config", str(file)]
    if spec.name.startswith("pretrain"):
        cli.parse("pretrain", [*words, "--shards", "s"])
    else:
        check_settings(cli.parse("sweep", words))
    return "accepted"


def _chains(place: Workplace, seed: int) -> str:
    good = (ROOT / "examples" / "chain.toml").read_text()
    profile = (ROOT / "slurm" / "profiles" / "gpu.toml").read_text()
    file = place.folder("toml") / "chain.toml"
    if seed % 3:
        file.write_bytes(mutations.damaged_toml(good, seed))
        _chain.plan(file, {})
    else:
        file.write_bytes(mutations.damaged_toml(profile, seed))
        profiles.load(str(file))
    return "accepted"


def _words(place: Workplace, seed: int) -> str:
    del place
    name, *rest = LINES[seed % len(LINES)].split()
    cli.parse(name, mutations.damaged_words(rest, seed))
    return "accepted"


def _submit_words(place: Workplace, seed: int) -> str:
    del place
    line = "--profile local --nodes 2 --time 60 --after 12,13 --parts 3 --shards s --out r".split()
    _tasks.where(_tasks.split(mutations.damaged_words(line, seed))[0])
    return "accepted"


def _parquet(place: Workplace, seed: int) -> str:
    name = list(place.results)[seed % len(place.results)]
    whole, read = place.results[name]
    file = place.folder("parquet") / name
    file.write_bytes(whole)
    expected = read(file)
    file.write_bytes(mutations.damaged_bytes(whole, seed))
    found = read(file)
    for column in set(expected.column_names) - {"source"}:
        assert found[column].equals(expected[column]), f"{name}, seed {seed}: another {column}"
    return "same"


def _index(place: Workplace, seed: int) -> str:
    file = place.shards / "index.parquet"
    whole = file.read_bytes()
    expected = ShardSet(place.shards).labels_matrix()
    try:
        file.write_bytes(mutations.damaged_bytes(whole, seed))
        found = ShardSet(place.shards)
        assert np.array_equal(found.labels_matrix(), expected), f"seed {seed}: other labels"
    finally:
        file.write_bytes(whole)
    return "same"


def _json(place: Workplace, seed: int) -> str:
    which = seed % 4
    dice = random.Random(seed)
    if which == 0:  # the card of a shard set
        file = place.shards / "dataset.json"
        return _with_json(file, seed, dice, lambda: read_card(place.shards).sha256)
    if which == 1:  # a fraction's manifest
        file = place.folder("json") / "fraction.json"
        index = ShardSet(place.shards).index
        if not file.exists():
            fraction_manifest(index, index.rows("train"), 0.5, 0).write(file)
        return _with_json(file, seed, dice, lambda: read_manifest(file, index).keys)
    file = place.run.info if which == 2 else place.run.done

    def read() -> Any:
        table, notes = collect(place.run.path)
        return table["value"].to_pylist() if not notes else notes and Run(place.run.path).read_info()

    return _with_json(file, seed, dice, read)


def _with_json(file: Path, seed: int, dice: random.Random, read: Callable[[], Any]) -> str:
    whole = file.read_bytes()
    expected = read()
    try:
        if dice.random() < 0.4:
            file.write_bytes(mutations.damaged_bytes(whole, seed))
        else:
            file.write_text(json.dumps(mutations.damaged_json(json.loads(whole), seed)))
        return "same" if read() == expected else "accepted"
    finally:
        file.write_bytes(whole)


def _config_toml(place: Workplace, seed: int) -> str:
    """config.toml of a run, as a worker reads it."""
    values = {"shards": "s", "out": "o", "mode": "full", "optim": {"lr": 0.1}, "augment": {"off": ["crop"]}}
    damaged = mutations.damaged_json(values, seed)
    from_plain(damaged if isinstance(damaged, dict) else {"out": damaged}, "config.toml")
    del place
    return "accepted"


def _weights(place: Workplace, seed: int) -> str:
    name = list(place.weights)[seed % len(place.weights)]
    whole, read = place.weights[name]
    expected = place.expected_weights[name]
    file = place.folder("damaged") / name
    file.write_bytes(mutations.damaged_bytes(whole, seed))
    if name.endswith(".safetensors"):
        with contextlib.suppress(ValueError):  # what the login node reads; the same refusals
            initialisation.safetensors_metadata(file)
    found = read(file)
    same = expected.keys() == found.keys() and all(torch.equal(expected[key], found[key]) for key in expected)
    if name.endswith(".pth"):  # of others: torch's zip has checksums of its own, which torch does not look at
        weights.refuse_not_finite(found, name)
        return "same" if same else "accepted"
    assert same, f"{name}, seed {seed}: other weights"
    return "same"


def _checkpoints(place: Workplace, seed: int) -> str:
    folder, state = place.checkpoint
    file = folder / ("state.pt" if seed % 2 else "meta.json")
    whole = file.read_bytes()
    try:
        file.write_bytes(mutations.damaged_bytes(whole, seed))
        found, _ = checkpoint.load(folder, "s")
        assert torch.equal(found["model"]["w"], state["model"]["w"]) and found["progress"] == state["progress"]
    finally:
        file.write_bytes(whole)
    return "same"


@dataclass(frozen=True)
class Kind:
    """One kind of input."""

    try_one: Callable[[Workplace, int], str]
    quick: int
    """Damaged inputs in the ordinary tests."""


KINDS = {
    "images": Kind(_images, 60),
    "DICOM": Kind(_dicom, 60),
    "tables": Kind(_tables, 40),
    "specs (TOML)": Kind(_toml, 60),
    "chains and profiles (TOML)": Kind(_chains, 40),
    "command lines": Kind(_words, 80),
    "submit's options": Kind(_submit_words, 60),
    "results (Parquet)": Kind(_parquet, 60),
    "index (Parquet)": Kind(_index, 40),
    "JSON": Kind(_json, 60),
    "config.toml": Kind(_config_toml, 40),
    "weights": Kind(_weights, 30),
    "checkpoints": Kind(_checkpoints, 40),
}


def outcomes(place: Workplace, kind: str, seeds: Iterable[int]) -> Counter[str]:
    """How often each outcome was seen: refused, same, accepted.

    Raises:
        AssertionError: another error than ours, an error over several lines, or another number; it names the seed.
    """
    counts: Counter[str] = Counter()
    for seed in seeds:
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                counts[KINDS[kind].try_one(place, seed)] += 1
        except AssertionError:
            raise
        except SystemExit:  # --help and --print_config among damaged words
            counts["accepted"] += 1
        except Exception as error:
            ours = isinstance(error, Unusable) or getattr(error, "exit_code", None) in (1, 2)
            assert ours, f"{kind}, seed {seed}: {type(error).__name__}: {error}"
            assert str(error).strip(), f"{kind}, seed {seed}: an error without words"
            counts["refused"] += 1
    return counts
