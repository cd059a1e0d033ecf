"""How long results take: influences, DeLong, collecting 10,000 runs, a table of 100,000 rows, the command itself.

usage: OMP_NUM_THREADS=1 python -m benches.results_scale [--runs 10000]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from results.cells.options import Options
from results.collect import COLLECTED, collect, write_collected
from results.run import Run
from results.schema import METRICS, write_metrics, write_predictions
from results.stats.delong import delong_paired
from results.stats.influence import INTERVAL_METRICS, influence
from results.stats.metrics import auroc
from results.stats.rescore import open_results
from results.stats.scoring import metric_rows
from results.tables.registry import build
from results.tables.render import render

LABELS = 14
IMAGES = 25_000


def main() -> None:
    """Measure and print one line each."""
    parser = argparse.ArgumentParser(prog="python -m benches.results_scale")
    parser.add_argument("--runs", type=int, default=10_000)
    arguments = parser.parse_args()
    truth, score, patients = scores()
    for name, owner in (("every image its own patient", np.arange(IMAGES)), ("3,000 patients", patients)):
        seconds = timed(lambda owner=owner: influences(truth, score, owner, INTERVAL_METRICS))
        print(f"influences, {len(INTERVAL_METRICS)} metrics x 14 labels x 25,000 images, {name}: {seconds}")
    seconds = timed(lambda: influences(truth, score, patients, ("auroc",)))
    print(f"the same, AUROC only, 3,000 patients: {seconds}")
    seconds = timed(lambda: naive(truth, score, patients, 10))
    print(f"scikit-learn's roc_auc_score in a loop, 10 resamples only (a hundredth): {seconds}")
    one = truth[:, 5] == 1
    seconds = timed(lambda: delong_paired(one, score[:, 5], score[:, 6], patients))
    print(f"paired DeLong by patient, 25,000 images: {seconds}")
    with tempfile.TemporaryDirectory() as scratch:
        in_folders(Path(scratch), arguments.runs)
        in_one_file(Path(scratch))
    with tempfile.TemporaryDirectory() as scratch:
        with_tests(Path(scratch))


def scores() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A test set of NIH's size and prevalences, scored by a model of AUROC near 0.76."""
    generator = np.random.default_rng(0)
    prevalence = np.geomspace(0.002, 0.2, LABELS)
    truth = (generator.random((IMAGES, LABELS)) < prevalence).astype(np.int8)
    score = 1 / (1 + np.exp(-(generator.normal(size=(IMAGES, LABELS)) + truth - 1)))
    return truth, score, np.unique(generator.integers(0, 3000, IMAGES), return_inverse=True)[1]


def influences(truth: np.ndarray, score: np.ndarray, patients: np.ndarray, metrics: Sequence[str]) -> None:
    """What a run's intervals and tests are made of."""
    for label in range(LABELS):
        for metric in metrics:
            influence(metric, truth[:, label] == 1, score[:, label], patients, 0.3)


def naive(truth: np.ndarray, score: np.ndarray, patients: np.ndarray, n_boot: int) -> None:
    """What a paper's script does: repeat the images of drawn patients, call roc_auc_score."""
    from sklearn.metrics import roc_auc_score

    members = np.split(np.argsort(patients, kind="stable"), np.cumsum(np.bincount(patients))[:-1])
    generator = np.random.default_rng(0)
    for _ in range(n_boot):
        rows = np.concatenate([members[p] for p in generator.integers(0, len(members), len(members))])
        for label in range(LABELS):
            roc_auc_score(truth[rows, label], score[rows, label])


def in_folders(scratch: Path, count: int) -> None:
    """Collect `count` finished runs of 14 labels."""
    rows = metric_rows(_predictions(), {}, intervals=False)
    for number in range(count):
        described = {"signature": f"{number:012x}", "job": "finetune", "init": f"init{number % 3}"}
        described |= {"seed": number // 300, "label_fraction": (number // 3 % 100 + 1) / 100, "arch": "resnet18"}
        described |= {"split_scheme": "official", "label_policy": "ones/zeros"}
        run = Run(scratch / "cells" / f"{number:012x}")
        run.results.mkdir(parents=True)
        run.info.write_text("{}")
        run.done.write_text("{}")
        table = pa.Table.from_pylist([row | described | {"run": str(run.path)} for row in rows[:206]], schema=METRICS)
        pq.write_table(table, run.metrics, compression="zstd")
    seconds = timed(lambda: collect(scratch / "cells", scratch / "all.parquet"))
    found = pq.read_metadata(scratch / "all.parquet").num_rows
    size = (scratch / "all.parquet").stat().st_size / 1e6
    print(f"collect of {count:,} run folders ({found:,} rows, written as {size:.1f} MB): {seconds}")


def in_one_file(scratch: Path) -> None:
    """A table of 100,000 rows in one file, and the whole command on a small file."""
    table = pq.read_table(scratch / "all.parquet").slice(0, 100_000).replace_schema_metadata(COLLECTED.metadata)
    write_collected(scratch / "rows.parquet", table)
    options = Options(test=False)
    seconds = timed(
        lambda: render(build("label-efficiency", open_results(scratch / "rows.parquet")[0], options), "latex")
    )
    print(f"{len(table):,} rows read, checked for twins, tabulated and rendered: {seconds}")
    write_collected(scratch / "small.parquet", table.slice(0, 206 * 27))
    words = [sys.executable, "-m", "jobs.cli", "table", "label-efficiency", str(scratch / "small.parquet")]
    seconds = min(
        (timed(lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL)) for _ in range(5)), key=_by_cpu
    )
    print(f"`cxrdist table` on {len(table.slice(0, 206 * 27)):,} rows, start to end, best of 5: {seconds}")


def with_tests(scratch: Path) -> None:
    """A label-efficiency table with its paired tests: 5 fractions x 3 inits x 5 seeds, each with NIH-sized predictions.

    Each run's metrics hold the macro AUROC and its labels'; the test reads predictions, so those are whole.
    """
    truth, base, patients = scores()
    generator = np.random.default_rng(1)
    names = [f"label{place:02d}" for place in range(LABELS)]
    fixed = {
        "key": np.tile([f"k{image:05d}" for image in range(IMAGES)], LABELS),
        "patient_id": np.tile([f"p{patient:04d}" for patient in patients], LABELS),
        "label": np.repeat(names, IMAGES),
        "y_true": truth.T.ravel(),
    } | {name: [value] * truth.size for name, value in {"run": "r", "dataset": "nih", "split": "test"}.items()}
    for number in range(75):
        fraction, init, seed = (0.01, 0.1, 0.25, 0.5, 1.0)[number // 15], number // 5 % 3, number % 5
        noise = generator.normal(scale=0.05 * (3 - init), size=base.shape)
        score = np.clip(base + noise, 0, 1).astype(np.float32)
        run = Run(scratch / "cells" / f"{number:012x}")
        run.results.mkdir(parents=True)
        run.info.write_text("{}")
        run.done.write_text("{}")
        described = {"signature": f"{number:012x}", "job": "finetune", "init": f"init{init}", "seed": seed}
        described |= {"label_fraction": fraction, "split_scheme": "official", "label_policy": "ones/zeros"}
        table = pa.table(fixed | {"y_score": score.T.ravel()})
        write_predictions(run.predictions, table)
        areas = [auroc(truth[:, j] == 1, score[:, j]) for j in range(LABELS)]
        shared = described | {"run": str(run.path), "test_dataset": "nih", "metric": "auroc"}
        rows = [shared | {"label": name, "value": area} for name, area in zip(names, areas, strict=True)]
        rows.append(shared | {"label": "macro", "value": float(np.mean(areas)), "n_labels": LABELS})
        write_metrics(run.metrics, rows)
    collect(scratch / "cells", scratch / "all.parquet")
    seconds = timed(lambda: render(build("label-efficiency", open_results(scratch / "all.parquet")[0]), "latex"))
    print(f"a table of 75 runs with paired tests on 14 labels x 25,000 images: {seconds}")


def _predictions() -> pa.Table:
    generator = np.random.default_rng(0)
    count, columns = 60, {name: [] for name in ("key", "label", "y_true", "y_score")}
    for label in range(LABELS):
        columns["key"] += [f"k{i}" for i in range(count)]
        columns["label"] += [f"label{label}"] * count
        columns["y_true"] += [i % 2 for i in range(count)]
        columns["y_score"] += generator.random(count).tolist()
    fixed = {"run": "r", "dataset": "nih", "split": "test"}
    total = LABELS * count
    return pa.table({name: [value] * total for name, value in fixed.items()} | columns | {"patient_id": columns["key"]})


@dataclass(frozen=True)
class Seconds:
    """What one call took."""

    wall: float
    cpu: float
    """Of this process and its finished children, all threads; what counts on a busy machine."""

    def __str__(self) -> str:
        return f"{self.cpu:.2f} s of CPU, {self.wall:.2f} s on the clock"


def timed(work: Callable[[], Any]) -> Seconds:
    """Time one call."""
    wall, cpu = time.perf_counter(), _cpu()
    work()
    return Seconds(wall=time.perf_counter() - wall, cpu=_cpu() - cpu)


def _by_cpu(seconds: Seconds) -> float:
    return seconds.cpu


def _cpu() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


if __name__ == "__main__":
    main()
