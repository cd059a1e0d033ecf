"""Runs as fine-tuning leaves them, made through the real Run, schema and scoring code from a score model.

A positive's score is a normal variable whose mean lies `sqrt(2) * probit(auroc)` above a negative's, so that the
true AUROC is known. Patients have one to three images and share part of their score, so that clustering matters.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from results.identity import signature
from results.run import Run
from results.schema import write_metrics, write_predictions
from results.stats.scoring import metric_rows

HOME = "https://example.org/phantom"
"""Of the simulated dataset's owners."""


def predictions(
    *,
    labels: Mapping[str, float],
    prevalence: float = 0.3,
    n: Mapping[str, int] | None = None,
    dataset: str = "phantom",
    run: str = "run",
    seed: int = 0,
    data_seed: int = 0,
    quantised: bool = False,
    studies: bool = False,
    people: bool = False,
) -> pa.Table:
    """A predictions table with val and test rows.

    Args:
        labels: name -> AUROC of the score model.
        prevalence: of each label.
        n: images per split; 120 val and 200 test by default.
        dataset: its name.
        run: its name.
        seed: of the scores (a model's seed).
        data_seed: of truths and patients (the dataset): equal ones give the same test set.
        quantised: round scores to 0.05, so that ties abound.
        studies: the images of a patient are of one study and share their truths, as labels from reports do.
        people: patients have a sex and an age, images a view; every tenth age is not known.
    """
    columns: dict[str, list[Any]] = {
        name: [] for name in ("run", "dataset", "split", "key", "patient_id", "label", "y_true", "y_score")
    }
    for number, (split, count) in enumerate((n or {"val": 120, "test": 200}).items()):
        data = np.random.default_rng([data_seed, number])
        patients = np.repeat(np.arange(count), data.integers(1, 4, count))[:count]
        for label, (name, auroc) in enumerate(labels.items()):
            truth = np.random.default_rng([data_seed, number, label, 1]).random(count) < prevalence
            truth = truth[patients] if studies else truth
            model = np.random.default_rng([seed, data_seed, number, label, 2])
            shared, own = model.normal(size=count)[patients], model.normal(size=count)
            shift = 2**0.5 * statistics.NormalDist().inv_cdf(auroc)
            score = 1 / (1 + np.exp(-(0.6 * shared + 0.8 * own + shift * truth - 1)))
            columns["run"] += [run] * count
            columns["dataset"] += [dataset] * count
            columns["split"] += [split] * count
            columns["key"] += [f"{split}{i:05d}" for i in range(count)]
            columns["patient_id"] += [f"{split}p{p:05d}" for p in patients]
            columns["label"] += [name] * count
            columns["y_true"] += truth.astype(int).tolist()
            columns["y_score"] += (np.round(score * 20) / 20 if quantised else score).tolist()
            if people:
                person = np.random.default_rng([data_seed, number, 3])
                sex, age = person.integers(0, 2, count)[patients], person.uniform(15, 90, count)[patients]
                view = person.integers(0, 2, count)
                columns.setdefault("sex", []).extend("FM"[one] for one in sex)
                columns.setdefault("age", []).extend(
                    None if p % 10 == 9 else a for p, a in zip(patients, age, strict=True)
                )
                columns.setdefault("view", []).extend(("AP", "PA")[one] for one in view)
            if studies:
                columns.setdefault("study_id", []).extend(f"{split}s{p:05d}" for p in patients)
    return pa.table(columns)


def finetune(
    folder: Path,
    *,
    labels: Mapping[str, float] | None = None,
    seed: int = 0,
    done: bool = True,
    intervals: bool = True,
    history: bool = True,
    config: Mapping[str, Any] | None = None,
    shards: Mapping[str, str] | None = None,
    datasets: Mapping[str, dict[str, str]] | None = None,
    n: Mapping[str, int] | None = None,
    test_datasets: Sequence[str] = (),
    data_seed: int | Mapping[str, int] = 0,
    levels: Sequence[str] = ("image",),
    people: bool = False,
    **context: Any,
) -> Run:
    """Write a whole fine-tuning run below `folder`; `context` overrides the columns that describe it.

    With more `levels` than that of images, patients' images are of one study, and each level has its rows.
    `data_seed` is that of all test datasets, or one for each by name.
    """
    labels = labels or {"cardiomegaly": 0.8, "edema": 0.85}
    facts: dict[str, Any] = {
        "job": "finetune",
        "arch": "resnet18",
        "init": "scratch",
        "mode": "full",
        "train_dataset": "phantom",
        "split_scheme": "official",
        "label_policy": "ones/zeros",
        "label_fraction": 1.0,
        "gpu_seconds": 360.0,
        "wall_seconds": 400.0,
        "n_parameters": 11_177_000,
    } | context
    described = {key: facts[key] for key in ("init", "mode", "label_fraction", "train_dataset")}
    settings = described | {"seed": seed, "lr": 0.001, "arch": facts["arch"], "variant": facts.get("variant")}
    settings |= {"init_signature": facts.get("init_signature"), "policy": facts["label_policy"]} | dict(config or {})
    identity = signature(settings)
    run = Run.create(
        folder / identity,
        job="finetune",
        config=settings,
        signature=identity,
        shards=shards,
        datasets=datasets,
        command=["finetune"],
    )
    parts = [
        predictions(
            labels=labels,
            dataset=name,
            run=str(run.path),
            seed=seed + sum(map(ord, identity)),
            n=n,
            data_seed=data_seed if isinstance(data_seed, int) else data_seed[name],
            studies=tuple(levels) != ("image",),
            people=people,
        )
        for name in (test_datasets or (facts["train_dataset"],))
    ]
    table = pa.concat_tables(parts)
    write_predictions(run.predictions, table)
    facts |= {"run": str(run.path), "signature": identity, "seed": seed}
    facts.setdefault("n_labelled", round(1000 * facts["label_fraction"]))
    rows = [row for level in levels for row in metric_rows(table, facts, intervals=intervals, level=level)]
    write_metrics(run.metrics, rows)
    for step in range(0, 100, 10) if history else ():
        run.log(step, loss=1 / (1 + step / 20), lr=0.001)
        run.log(step, val_auroc=0.9 - 0.3 / (1 + step / 20))
    if done:
        run.finish(gpu_seconds=facts["gpu_seconds"], wall_seconds=facts["wall_seconds"])
    return run


def pretrain(
    folder: Path,
    *,
    seed: int = 0,
    dataset: str = "nih",
    method: str | None = None,
    changes: dict[str, Any] | None = None,
) -> Run:
    """Write a finished pretraining run, without its encoder; with no method, as from before there was a choice."""
    config: dict[str, Any] = {"arch": "resnet18", "seed": seed, "init": "scratch", "epochs": 10, "dataset": dataset}
    config |= ({} if method is None else {"method": method}) | (changes or {})
    identity = signature(config)
    run = Run.create(folder / identity, job="pretrain", config=config, signature=identity, command=["pretrain"])
    for step in range(0, 100, 10):
        run.log(step, loss=5 - step / 50)
    run.finish(gpu_seconds=7200.0, wall_seconds=3600.0, dataset=dataset)
    return run


def card(folder: Path) -> Path:
    """Write a shard set's card, as reports read it."""
    folder.mkdir(parents=True)
    labels = {"cardiomegaly": 40, "edema": 55, "pleural_effusion": 61}
    counts = {
        split: {
            "n": n,
            "patients": n // 2,
            "labels": {
                label: {"positive": k, "negative": n - k, "uncertain": 2, "null": 0} for label, k in labels.items()
            },
        }
        for split, n in (("train", 1000), ("val", 120), ("test", 200))
    }
    text = {"name": "phantom", "labels": list(labels), "counts": counts, "split_scheme": "official", "n_samples": 1320}
    text |= {"source": "Someone, 2020", "licence": "CC BY 4.0", "home": HOME}
    text |= {"citation": "@article{someone2020,\n  title = {Drawn <X-rays>}\n}"}
    text |= {"n_rejects": 3, "shared_patients": {"train/test": 2}, "patients_known": True, "index_sha256": "ab" * 32}
    folder.joinpath("dataset.json").write_text(json.dumps(text | {"image_size": 64, "image_format": "jpg"}))
    return folder


def study(folder: Path, *, seeds: Sequence[int] = (0, 1, 2), fractions: Sequence[float] = (0.01, 0.1, 1.0)) -> Path:
    """A label-efficiency grid of three initialisations, with the encoder's pretraining run."""
    encoder = pretrain(folder / "pretrain")
    data = card(folder / "shards") / "dataset.json"
    shards = {str(data.parent): hashlib.sha256(data.read_bytes()).hexdigest()}
    inits = {"scratch": (0.62, None), "imagenet": (0.72, None), "simclr:nih": (0.86, encoder.read_info()["signature"])}
    for init, (base, source) in inits.items():
        for step, fraction in enumerate(fractions):
            reach = min(0.95, base + 0.05 * step)
            for seed in seeds:
                finetune(
                    folder / "cells",
                    labels={"cardiomegaly": reach, "edema": reach - 0.03, "pleural_effusion": reach + 0.02},
                    init=init,
                    init_signature=source,
                    pretrain_dataset="nih" if source else None,
                    method="simclr" if source else None,
                    label_fraction=fraction,
                    seed=seed,
                    shards=shards,
                    people=True,
                )
    return folder
