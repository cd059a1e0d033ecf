"""Memory and time of planning a conversion of many rows: the first part plans, every other part reads the plan.

Run: python -m benches.plan_memory [--rows 1000000] [--kinds csv nih chexpert mimic] [--scratch DIR]. Prints Markdown
for benches/reports/plan.md.

Tables are generated; there are no images, and the walk over their folders is replaced by the names that the table has
(so the memory that the names take counts, the file system does not). Every figure is of a process of its own: "peak" is
the most resident memory (`ru_maxrss`, mapped pages of files included), "of its own" the most that no file stands behind
(`RssAnon`, sampled ten times a second).

Reading cells takes most of the time and a steady 0.16 GB. With --ready_rows the rows of the csv table come ready made
in its place, so that large numbers can be tried in minutes; everything after it is as it is.

With --sort the heart of it alone: rows in Parquet -> the same rows in order of split and a hash of the key, in Parquet;
by shards.convert.spill, and by DuckDB and Polars where they are installed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

CSV = ["--table", "t.csv", "--patient_column", "patient", "--view_column", "view", "--sex_column", "sex"]
CSV += ["--age_column", "age"]
CHEXPERT = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)

MIMIC = (
    "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,"
    "No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)


def csv_name(n: int, rows: int) -> str:
    return f"img/{n % 1000:03d}/p{n // 3:08d}_s{n % 3}_{n * 7919 % rows:09d}.png"


def csv_table(root: Path, rows: int) -> Iterator[str]:
    with open(root / "t.csv", "w") as file:
        file.write("path,patient,view,sex,age,Edema,Mass,Effusion\n")
        for n in range(rows):
            name = csv_name(n, rows)
            file.write(f"{name},p{n // 3:08d},{'PA' if n % 2 else 'AP'},{'MF'[n // 3 % 2]},{n % 90},{n % 2},0,\n")
            yield name


def nih_table(root: Path, rows: int) -> Iterator[str]:
    with (
        open(root / "Data_Entry_2017.csv", "w") as file,
        open(root / "train_val_list.txt", "w") as train,
        open(root / "test_list.txt", "w") as test,
    ):
        file.write("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n")
        for n in range(rows):
            name = f"{n // 4:08d}_{n % 4:03d}.png"
            finding = ("No Finding", "Mass|Nodule", "Edema")[n % 3]
            file.write(f"{name},{finding},{n % 4},{n // 4},058Y,M,PA\n")
            (test if n > rows * 3 // 4 else train).write(f"{name}\n")
            yield f"images_{n % 12 + 1:03d}/images/{name}"


def chexpert_table(root: Path, rows: int) -> Iterator[str]:
    with open(root / "train.csv", "w") as file:
        file.write(f"Path,Sex,Age,Frontal/Lateral,AP/PA,{CHEXPERT}\n")
        for n in range(rows):
            side = ("frontal", "frontal", "frontal", "lateral")[n % 4]
            name = f"train/patient{n // 4:08d}/study{n // 2 % 2 + 1}/view{n % 2 + 1}_{side}.jpg"
            file.write(f"CheXpert-v1.0-small/{name},Male,{n % 90},x,AP,,,1.0,,,0.0,-1.0,,,,1.0,,,\n")
            yield name


def mimic_table(root: Path, rows: int) -> Iterator[str]:
    """The table of images, and beside it the labels of studies (of two images each) and the splits."""
    with (
        gzip.open(root / "mimic-cxr-2.0.0-metadata.csv.gz", "wt", 1) as images,
        gzip.open(root / "mimic-cxr-2.0.0-split.csv.gz", "wt", 1) as splits,
        gzip.open(root / "mimic-cxr-2.0.0-chexpert.csv.gz", "wt", 1) as labels,
    ):
        images.write("dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns\n")
        splits.write("dicom_id,study_id,subject_id,split\n")
        labels.write(f"subject_id,study_id,{MIMIC}\n")
        for n in range(rows):
            image = f"{n * 7919 % rows:08x}-{n:08x}-aaaaaaaa-bbbbbbbb-cccccccc"
            patient, study = 10_000_000 + n // 4, 50_000_000 + n // 2
            images.write(f"{image},{patient},{study},CHEST (PA AND LAT),{('PA', 'AP')[n % 2]},2544,3056\n")
            splits.write(f"{image},{study},{patient},{'validate' if n % 100 < 4 else 'train'}\n")
            if n % 2 == 0:
                labels.write(f"{patient},{study},1.0,,,-1.0,,,,,,{n // 2 % 2}.0,,,,\n")
            yield f"files/p{str(patient)[:2]}/p{patient}/s{study}/{image}.jpg"


TABLES = {"csv": csv_table, "nih": nih_table, "chexpert": chexpert_table, "mimic": mimic_table}
OPTIONS = {"csv": CSV, "nih": [], "chexpert": [], "mimic": []}


def ready_rows(root: Path) -> None:
    """Let the rows of the csv table be made at once instead of read."""
    import pyarrow as pa

    from shards.convert import rows

    with open(root / "names.txt") as file:
        count = sum(1 for _ in file)

    def batches(
        samples: Iterator[object], labels: list[str], beside: list[str], schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        for first in range(0, count, 1 << 16):
            some = range(first, min(count, first + (1 << 16)))
            sources = [csv_name(n, count) for n in some]
            columns = [sources, [source[:-4].replace("/", "_") for source in sources], ["train"] * len(some)]
            columns += [[f"p{n // 3:08d}" for n in some], [None] * len(some), ["PA" if n % 2 else "AP" for n in some]]
            columns += [["MF"[n // 3 % 2] for n in some], [float(n % 90) for n in some]]
            columns += [[n % 2 for n in some] for _ in labels]
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            yield pa.record_batch(arrays, schema=schema)

    rows._batches = batches


def child(kind: str, root: Path, ready: bool) -> None:
    """Plan in this process; print what it took."""
    from jobs.cli import parse
    from shards.convert import sources

    if ready:
        ready_rows(root)

    def walk(*_: object) -> Iterator[str]:
        with open(root / "names.txt") as file:
            yield from (line.rstrip("\n") for line in file)

    sources._walk = walk
    anon = [0]

    def watch() -> None:
        while True:
            with open("/proc/self/status") as file:
                anon[0] = max(anon[0], next(int(line.split()[1]) for line in file if line.startswith("RssAnon")))
            time.sleep(0.1)

    words = [kind, "--src", str(root), "--out", str(root / "out"), *OPTIONS[kind]]
    config = parse("shard", words)
    threading.Thread(target=watch, daemon=True).start()
    begin = time.perf_counter()
    try:
        from shards.convert.standing import planned
    except ImportError:  # the code before plans stood in files
        from shards.convert.registry import plan

        made = plan(config)
    else:
        made = planned(config)
    fingerprint, rows = made.fingerprint, made.table.num_rows
    wall, used = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
    figures = {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / 1e6, "anon": anon[0] / 1e6}
    print(json.dumps(figures | {"rows": rows, "fingerprint": fingerprint}))


SORTED = "select * exclude (split_rank, high, low) from 'rows.parquet' order by split_rank, high, low"


def rows_to_sort(path: Path, rows: int) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("source", pa.string()), ("key", pa.string()), ("patient", pa.string()), ("view", pa.string())])
    for name in ("split_rank", "high", "low"):
        schema = schema.append(pa.field(name, pa.uint64()))
    dice = np.random.default_rng(0)
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, 1 << 17):
            some = range(first, min(rows, first + (1 << 17)))
            names = [csv_name(n, rows) for n in some]
            keys = [name[:-4].replace("/", "_") for name in names]
            hashes = [dice.integers(0, top, len(some), dtype=np.uint64) for top in (3, 1 << 63, 1 << 63)]
            columns = [names, keys, [f"p{n // 3:08d}" for n in some], [("PA", "AP")[n % 2] for n in some], *hashes]
            writer.write_table(pa.table(columns, schema=schema))


def sort_by_spill() -> None:
    import numpy as np
    import pyarrow.parquet as pq

    from shards.convert import plan_file, spill

    with pq.ParquetFile("rows.parquet") as file, spill.spilling(Path(".")):
        table = spill.stored(file.iter_batches(1 << 16), file.schema_arrow)
        keys = [table[name].to_numpy() for name in ("low", "high", "split_rank")]
        plan_file.write(Path("sorted.parquet"), spill.reordered(table.select(range(4)), np.lexsort(keys)))


def sort_by_duckdb() -> None:
    import duckdb  # pyright: ignore[reportMissingImports]

    with duckdb.connect(config={"memory_limit": "256MB", "temp_directory": ".", "threads": "2"}) as link:
        link.execute("set preserve_insertion_order = true")
        link.execute(f"copy ({SORTED}) to 'sorted.parquet' (compression zstd, row_group_size 8192)")


def sort_by_polars() -> None:
    import polars  # pyright: ignore[reportMissingImports]

    found = polars.scan_parquet("rows.parquet").sort("split_rank", "high", "low").drop("split_rank", "high", "low")
    found.sink_parquet("sorted.parquet", compression="zstd", row_group_size=8192)


SORTS = {"shards.convert.spill": sort_by_spill, "duckdb": sort_by_duckdb, "polars": sort_by_polars}


def sort_child(who: str, folder: Path) -> None:
    import hashlib

    import pyarrow.parquet as pq

    os.chdir(folder)
    begin = time.perf_counter()
    SORTS[who]()
    wall, used = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
    figures = f"{used.ru_maxrss / 1e6:.2f} | {wall:.1f} | {used.ru_utime + used.ru_stime:.1f}"
    digest = hashlib.sha256("\n".join(pq.read_table("sorted.parquet", columns=["key"])["key"].to_pylist()).encode())
    print(f"| {who} | {figures} | {digest.hexdigest()[:12]} |")


def compare_sorts(rows: int, scratch: str | None) -> None:
    print(f"{rows} rows\n\n| sorted by | peak, GB | wall, s | CPU, s | order |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        rows_to_sort(Path(folder) / "rows.parquet", rows)
        for who in SORTS:
            words = [sys.executable, "-m", "benches.plan_memory", "--sort_child", who, folder]
            ended = subprocess.run(words, capture_output=True, text=True, check=False)
            print(ended.stdout.strip() if ended.returncode == 0 else f"| {who} | {ended.stderr.splitlines()[-1]} |")


def measured(kind: str, root: Path, ready: bool) -> dict:
    words = [sys.executable, "-m", "benches.plan_memory", "--child", kind, str(root)] + ["--ready_rows"] * ready
    ended = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kinds", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--scratch", help="folder with room for the tables and the plan")
    parser.add_argument("--ready_rows", action="store_true", help="csv only: rows made, not read")
    parser.add_argument("--sort", action="store_true", help="only the sort, beside DuckDB and Polars")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--sort_child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.kinds = ["csv"] if options.ready_rows else options.kinds
    if options.sort_child:
        sort_child(options.sort_child[0], Path(options.sort_child[1]))
        return
    if options.sort:
        compare_sorts(options.rows, options.scratch)
        return
    if options.child:
        child(options.child[0], Path(options.child[1]), options.ready_rows)
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| table | rows | who | peak, GB | of its own, GB | wall, s | CPU, s | plan on disk, GB |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in options.kinds:
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            root = Path(folder)
            with open(root / "names.txt", "w") as names:
                names.writelines(f"{name}\n" for name in TABLES[kind](root, options.rows))
            seen = set()
            for who in ("first part", "another part"):
                took = measured(kind, root, options.ready_rows)
                seen.add(took["fingerprint"])
                size = sum(path.stat().st_size for path in root.glob("out/.work/planned*")) / 1e9
                figures = f"{took['peak']:.2f} | {took['anon']:.2f} | {took['wall']:.0f} | {took['cpu']:.0f}"
                print(f"| {kind} | {options.rows} | {who} | {figures} | {size:.2f} |", flush=True)
            assert len(seen) == 1, "the parts have different plans"


if __name__ == "__main__":
    main()
