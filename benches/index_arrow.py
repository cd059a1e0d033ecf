"""One memory-mapped Arrow file in place of the index's .npy files: time and memory of making, opening and reading it.

Run: python -m benches.index_arrow [--rows 1000000,10000000] [--folder DIR]. Prints Markdown for the report index.md.

`whole` writes the table as one record batch, so that every column is one array; `streamed` writes the row groups of the
Parquet file one by one, so that memory holds one of them, and readers find a row's batch first. `now` is what
`shards.read.index_cache` does. Each figure is taken in a fresh process, as in `benches.index`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from benches._xrays import shard_set
from benches.index import PER_SHARD, _fresh, _memory, write_set

ARROW = """
import pyarrow as pa, pyarrow.compute as pc, pyarrow.parquet as pq
CODED = ("split", "shard", "view", "sex")
path, began, worked = sys.argv[1] + "/", time.perf_counter(), time.process_time()
def ready(table, coded):
    columns = {}
    for name in table.column_names:
        column = table[name]
        if name in coded: column = column.dictionary_encode()
        elif pa.types.is_string(column.type): column = column.cast(pa.large_string())
        elif name.startswith("label_"): column = column.fill_null(-128)
        columns[name] = column
    return pa.table(columns)
"""
BUILD = {
    "now": """
from shards.read import index_cache
from pathlib import Path
began, worked = time.perf_counter(), time.process_time()
index_cache.mapped(Path(sys.argv[1]) / "index.parquet")
report(seconds=time.perf_counter() - began, cpu=time.process_time() - worked)
""",
    "whole": ARROW
    + """
table = ready(pq.read_table(path + "index.parquet"), (*CODED, "patient_id")).combine_chunks()
with pa.OSFile(path + "whole.arrow", "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
    writer.write_batch(table.to_batches()[0])
report(seconds=time.perf_counter() - began, cpu=time.process_time() - worked)
""",
    "streamed": ARROW
    + """
source, writer = pq.ParquetFile(path + "index.parquet"), None
with pa.OSFile(path + "streamed.arrow", "wb") as file:
    for number in range(source.num_row_groups):
        table = ready(source.read_row_group(number), ()).combine_chunks()
        writer = writer or pa.ipc.new_file(file, table.schema)
        writer.write_batch(table.to_batches()[0])
    writer.close()
report(seconds=time.perf_counter() - began, cpu=time.process_time() - worked)
""",
}
OPENED = """
rows = np.random.default_rng(0).integers(0, len(table), 20000)
opened, used, middle = time.perf_counter() - began, time.process_time() - worked, time.process_time()
"""
READ = {
    "now": """
from shards.read.index import Index
began, worked = time.perf_counter(), time.process_time()
table = Index.open(sys.argv[1], mapped=True)
"""
    + OPENED
    + """
for row in rows.tolist(): table.key(row), table.offset[row], table.size[row], table.labels_at(row)
report(seconds=opened, cpu=used, sample=(time.process_time() - middle) / len(rows))
""",
    "whole": """
import pyarrow as pa
began, worked = time.perf_counter(), time.process_time()
table = pa.ipc.open_file(pa.memory_map(sys.argv[1] + "/whole.arrow")).get_batch(0)
def values(name, kind): return np.frombuffer(table[name].buffers()[1], kind)  # to_numpy would import pandas
labels = [values(name, np.int8) for name in table.schema.names if name.startswith("label_")]
offset, size = values("offset", np.int64), values("size", np.int32)
_, starts, text = table["key"].buffers()
starts, text = np.frombuffer(starts, np.int64), np.frombuffer(text, np.uint8)
"""
    + OPENED
    + """
for row in rows.tolist():
    first, last = starts[row : row + 2]
    text[first:last].tobytes().decode(), offset[row], size[row], np.array([label[row] for label in labels])
report(seconds=opened, cpu=used, sample=(time.process_time() - middle) / len(rows))
""",
    "streamed": """
import pyarrow as pa
began, worked = time.perf_counter(), time.process_time()
table = pa.ipc.open_file(pa.memory_map(sys.argv[1] + "/streamed.arrow")).read_all()
names = [name for name in table.column_names if name.startswith("label_")]
"""
    + OPENED
    + """
key, offset, size, labels = table["key"], table["offset"], table["size"], [table[name] for name in names]
for row in rows.tolist():
    key[row].as_py(), offset[row].as_py(), size[row].as_py(), np.array([label[row].as_py() for label in labels])
report(seconds=opened, cpu=used, sample=(time.process_time() - middle) / len(rows))
""",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000000,10000000")
    parser.add_argument("--folder", type=Path, default=None, help="where to make the sets, to be kept")
    options = parser.parse_args()
    columns = ["rows", "kind", "make s", "on disk MB", "open s", "one sample's facts us"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        _, tars, card = shard_set(folder, PER_SHARD, shard_size=PER_SHARD)
        for rows in map(int, options.rows.split(",")):
            made = folder / f"rows{rows}"
            write_set(made, rows, tars, card)
            for kind in BUILD:
                print(f"| {rows:,} | {kind} | {' | '.join(_measured(made, kind))} |", flush=True)


def _measured(folder: Path, kind: str) -> list[str]:
    for old in folder.glob(".index-*"):
        shutil.rmtree(old)
    build = _fresh(BUILD[kind], folder)
    files = [file for cache in folder.glob(".index-*") for file in cache.iterdir()] or [folder / f"{kind}.arrow"]
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    read = min((_fresh(READ[kind], folder) for _ in range(3)), key=lambda run: run["cpu"])
    return [
        f"{build['seconds']:.2f} (CPU {build['cpu']:.2f}; {_memory(build)})",
        f"{megabytes:.0f}",
        f"{read['seconds']:.4f} (CPU {read['cpu']:.4f}; {_memory(read)} after reading)",
        f"{read['sample'] * 1e6:.1f}",
    ]


if __name__ == "__main__":
    main()
