"""A ten-million-row index: how long it takes to open and to order, and how much memory reading through it needs.

Run: python -m benches.index [--rows 10000000] [--folder DIR]. Prints Markdown for benches/reports/index.md.

Each figure is taken in a fresh process, as a training rank would meet it; memory is the highest ever resident (VmHWM)
and what is private to the process (RssAnon), the rest being file pages that all processes of the machine share. The
tars are hard links to one real tar, so that readers decode real images all over the index.
Targets: opens in < 1 s; one epoch's order and all rank slices in < 2 s and < 1.5 GB; a reading process < 500 MB at
any size of the index.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benches._xrays import shard_set
from shards.format import Card, card_bytes
from shards.read.index import Index

LABELS = 14
PER_SHARD = 2000
GROUP = 500 * PER_SHARD

BEGIN = """
import json, sys, time
import numpy as np
def report(**facts):
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    memory = {name: int(status[name].split()[0]) / 1000 for name in ("VmHWM", "RssAnon")}
    print(json.dumps(memory | facts))
"""
OPEN = """
from shards.read.index import Index
began, worked = time.perf_counter(), time.process_time()
index = Index.open(sys.argv[1], mapped=True)
report(seconds=time.perf_counter() - began, cpu=time.process_time() - worked)
"""
ORDER = """
from shards.read.index import Index
from shards.read.order import Order, rank_slice
index = Index.open(sys.argv[1], mapped=True)
began, worked = time.perf_counter(), time.process_time()
order = Order(len(index), seed=0, global_batch=4096)
epoch = order.epoch_order(0)
whole = epoch[:len(index) // 4096 * 4096].reshape(-1, 4096)
slices = [whole[:, rank_slice(4096, rank, 512)].copy() for rank in range(512)]
report(seconds=time.perf_counter() - began, cpu=time.process_time() - worked)
"""
WINDOW = """
from shards import Order
from shards.read.index import Index
index = Index.open(sys.argv[1], mapped=True)
sizes = np.diff(np.flatnonzero(np.r_[True, np.diff(index.shard) != 0, True]))
order = Order(len(index), seed=0, global_batch=4096, shard_sizes=sizes, window=64)
for step in range(len(index) // 4096): order.positions(step)
report()
"""
RANK = """
from shards import Order, ShardSet
from shards.read.loader import Loader
shardset = ShardSet(sys.argv[1])
order = Order(len(shardset), seed=0, global_batch=64, shard_sizes=shardset.shard_sizes, window=64)
for step, positions, images in Loader(shardset, order, stop_step=100, workers=4): pass
report()
"""
RANK_ALONE = RANK.replace("workers=4", "workers=0")
WORKER = """
import torch
from shards import ShardSet
class Watched(ShardSet):
    def __getitem__(self, position):
        super().__getitem__(position)
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        return [int(status[name].split()[0]) / 1000 for name in ("VmHWM", "RssAnon")]
shardset = Watched(sys.argv[1])
sampler = np.random.default_rng(0).integers(0, len(shardset), 4000).tolist()
loader = torch.utils.data.DataLoader(shardset, 50, sampler=sampler, num_workers=2, collate_fn=list,
                                     multiprocessing_context="spawn")
if __name__ == "__main__":
    most = np.max([memory for batch in loader for memory in batch], axis=0)
    print(json.dumps({"VmHWM": most[0], "RssAnon": most[1]}))
"""
BARE = """
from pathlib import Path
from shards.read.decode import Decoder
from shards.read.index import Index
decoder = Decoder(Path(sys.argv[1]), Index.open(sys.argv[1]))
out, rng = np.empty((64, 256, 256), np.uint8), np.random.default_rng(0)
for batch in range(100): decoder.into(rng.integers(0, len(decoder.index), 64), out)
report()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="where to make the sets, to be kept")
    options = parser.parse_args()
    columns = [
        "rows",
        "parquet MB",
        "first use s",
        "open s",
        "epoch order + 512 rank slices s",
        "whole epoch, windows of 64 shards",
        "rank, no threads",
        "rank, 4 threads",
        "DataLoader worker",
        "reading process without torch",
    ]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        _, tars, card = shard_set(folder, PER_SHARD, shard_size=PER_SHARD)
        for rows in (options.rows // 100, options.rows // 10, options.rows):
            write_set(folder / f"rows{rows}", rows, tars, card)
            lines.append(_measure(folder / f"rows{rows}", rows))
    print("\n".join(lines))


def _measure(folder: Path, rows: int) -> str:
    for old in folder.glob(".index-*"):
        shutil.rmtree(old)
    build = _fresh(OPEN, folder)
    opened = min((_fresh(OPEN, folder) for _ in range(3)), key=lambda run: run["seconds"])
    codes = (ORDER, WINDOW, RANK_ALONE, RANK, WORKER, BARE)
    order, window, alone, rank, worker, bare = (_fresh(code, folder) for code in codes)
    cells = [f"{rows:,}", f"{(folder / 'index.parquet').stat().st_size / 1e6:.0f}"]
    cells += [f"{run['seconds']:.3f} (CPU {run['cpu']:.3f}; {_memory(run)})" for run in (build, opened, order)]
    cells += [_memory(run) for run in (window, alone, rank, worker, bare)]
    return f"| {' | '.join(cells)} |"


def _memory(run: dict[str, float]) -> str:
    return f"{run['VmHWM']:.0f} MB, {run['RssAnon']:.0f} private"


def _fresh(code: str, folder: Path) -> dict[str, float]:
    """Run code in a process of its own, from a file, as spawned workers need one."""
    script = folder / "measure.py"
    script.write_text(BEGIN + code)
    paths = {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False, env=os.environ | paths
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def write_set(folder: Path, rows: int, tars: Path, card: Card) -> None:
    """A shard set of many rows: index as the converters write it, each tar a link to the one in `tars`."""
    if (folder / "dataset.json").exists():
        return
    began = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    real = Index.open(tars)
    entries = []
    for number in range(rows // PER_SHARD):
        entries.append({**card.shards[0], "name": f"train-{number:06d}.tar"})
        (folder / entries[-1]["name"]).unlink(missing_ok=True)
        os.link(tars / real.shards[0], folder / entries[-1]["name"])
    first = _group(np.arange(min(GROUP, rows)), real)
    with pq.ParquetWriter(folder / "index.parquet", first.schema, compression="zstd") as writer:
        for start in range(0, rows, GROUP):
            writer.write_table(_group(np.arange(start, min(start + GROUP, rows)), real))
    names = tuple(f"label{number:02d}" for number in range(LABELS))
    new = dataclasses.replace(card, labels=names, shards=tuple(entries), n_samples=rows, counts={})
    (folder / "dataset.json").write_bytes(card_bytes(new))
    print(f"wrote {rows} rows in {time.perf_counter() - began:.0f} s", file=sys.stderr)


def _group(row: np.ndarray, real: Index) -> pa.Table:
    """Rows of an index: 3.3 images a patient, 14 labels with blanks and uncertain ones."""
    rng = np.random.default_rng(int(row[0]))
    n, number = len(row), row % PER_SHARD
    digits = np.char.zfill(row.astype(str), 8)
    shard = np.char.add(np.char.add("train-", np.char.zfill((row // PER_SHARD).astype(str), 6)), ".tar")
    values = rng.choice(np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, -1, 2], np.int8), (LABELS, n))
    columns: dict[str, pa.Array | np.ndarray] = {
        "key": pa.array(np.char.add(digits, "_000")),
        "split": pa.array(np.full(n, "train")),
        "patient_id": pa.array(np.char.zfill((row * 3 // 10).astype(str), 8)),
        "shard": pa.array(shard),
        "offset": real.offset[number],
        "size": real.size[number],
        "view": pa.array(np.array(["PA", "AP"])[rng.integers(0, 2, n)]),
        "sex": pa.array(np.array(["M", "F"])[rng.integers(0, 2, n)]),
        "age": rng.integers(1, 95, n).astype(np.float32),
        "height": np.full(n, 1024, np.int32),
        "width": np.full(n, 1024, np.int32),
        "source": pa.array(np.char.add(np.char.add("images/", digits), "_000.png")),
    }
    for label, value in enumerate(values):
        columns[f"label_label{label:02d}"] = pa.array(value, mask=value == 2)
    return pa.table(columns)


if __name__ == "__main__":
    main()
