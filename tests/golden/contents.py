"""Products as what can be kept and compared: texts, numbers, and the hashes of everything."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import safetensors.numpy

from tests.golden.products import Products

EXPECTED = Path(__file__).parent / "expected"
LIBRARIES = ("numpy", "opencv-python-headless", "pyarrow", "simplejpeg")
"""What writes the bytes of a shard set: other versions may compress the same pixels and rows to other bytes."""
CPU_TOLERANCE = 3e-4
"""Largest difference between CPUs, as a share of the largest number kept beside it.

Measured, AVX2 against SSE4: losses 2e-5, scores 1e-6. ReLU is why it is not 1e-7: a unit near zero that flips changes
a gradient by a step. That grows with the learning rate (fivefold the rate moved losses by 3e-4 and small biases by a
tenth), so the golden runs have a low one. Another sample or crop moves losses by more than 1e-2.
"""
SMALL_WEIGHT = 1.0
"""Tensors of smaller numbers are compared as if they held this one: biases begin at zero and are made of such steps
alone (5e-5 between the two CPUs, of 5e-3)."""
DIGITS = 7

_OF_THIS_MOMENT = {"run", "source", "created_at", "git_commit", "gpu_seconds", "wall_seconds"}
"""Columns of results that name a place or a time."""
_OF_THIS_SPEED = {"images_per_s", "data_wait", "memory_mib"}
"""What a training log says of the machine."""


def versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Installed versions by the names of pip."""
    return {name: version(name) for name in names}


def sha256(data: bytes | str) -> str:
    """Hash as 64 hex digits."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def set_bytes(folder: Path) -> dict[str, str]:
    """File of a shard set -> hash of its bytes."""
    return {path.name: sha256(path.read_bytes()) for path in sorted(folder.iterdir())}


def set_text(folder: Path) -> str:
    """A shard set as text: card, rows, rejects, boxes and pixels, without what only a compressor decides."""
    card = json.loads((folder / "dataset.json").read_bytes())
    for name in ("index_sha256", "files", "~sha256"):
        del card[name]
    card["shards"] = [{key: one[key] for key in ("name", "split", "n")} for one in card["shards"]]
    parts = [readable(card)]
    for path in sorted(folder.glob("*.parquet")):
        parts.append(f"== {path.name}\n{_rows(path, leave_out=('offset', 'size'))}")
    parts += [f"== {path.name}: {_tar_content(path)}" for path in sorted(folder.glob("*.tar"))]
    return "\n".join(parts) + "\n"


def _rows(path: Path, leave_out: Iterable[str] = ()) -> str:
    table = pq.read_table(path)
    table = table.drop_columns([name for name in leave_out if name in table.column_names])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.column_names)
    writer.writerows(row.values() for row in table.to_pylist())
    return text.getvalue().rstrip("\n")


def _tar_content(path: Path) -> str:
    """Hashes over the decoded pictures and over everything else that a tar holds, in its order."""
    pixels, rest = hashlib.sha256(), hashlib.sha256()
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            data = file.read()
            rest.update(member.name.encode())
            if member.name.endswith(".json"):
                rest.update(data)
                continue
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            assert image is not None, f"{path}: {member.name} is no picture"
            pixels.update(str(image.shape).encode() + image.tobytes())
    return f"pixels {pixels.hexdigest()} rest {rest.hexdigest()}"


def readable(value: Any) -> str:
    """JSON with each innermost list or table on one line."""
    text = json.dumps(value, sort_keys=True, indent=1)
    return re.sub(r"\[[^][{}]*\]|\{[^][{}]*\}", lambda found: " ".join(found[0].split()), text)


def rounded(text: str) -> str:
    """A table's text with ten significant digits: the last ones depend on the order of sums."""
    return re.sub(r"-?\d+\.\d{9,}(e-?\d+)?", lambda found: f"{float(found[0]):.10g}", text)


def pretraining(run: Path) -> dict[str, Any]:
    """The order of the samples (exact), the losses of every step and evaluation, three numbers of each tensor."""
    log = _log(run)
    weights = {
        name: [float(value.mean()), float(value.std()), float(value.flat[0])]
        for name, value in sorted(_weights(run / "encoder.safetensors").items())
    }
    losses = {key: [row[key] for row in log if key in row] for key in ("loss", "lr", "val_loss")}
    return {"order": json.loads((run / "done.json").read_bytes())["order_sha256"], **losses, "weights": weights}


def trial(run: Path) -> dict[str, Any]:
    """The samples that were scored (exact), and per test set mean, deviation and the first scores."""
    table = pq.read_table(run / "results" / "predictions.parquet")
    truth = table.select(["dataset", "split", "key", "patient_id", "label", "y_true"]).to_pylist()
    scores: dict[str, list[float]] = {}
    for row in table.to_pylist():
        scores.setdefault(f"{row['dataset']} {row['split']} {row['label']}", []).append(row["y_score"])
    kept = {name: [float(np.mean(found)), float(np.std(found)), *found[:8]] for name, found in scores.items()}
    return {"samples": sha256(json.dumps(truth)), "scores": kept}


def _log(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in _OF_THIS_SPEED} for row in rows]


def _weights(path: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(path)


def arithmetic(products: Products) -> dict[str, Any]:
    """What depends on the CPU, as kept in expected/arithmetic.json."""
    runs = {f"pretrain-{ranks}": pretraining(run) for ranks, run in products.pretrained.items()}
    return runs | {name: trial(run) for name, run in products.trials.items()}


def texts(products: Products) -> dict[str, str]:
    """What is exact on every machine: file below expected/ -> its text."""
    found = {f"sets/{name}.txt": set_text(folder) for name, folder in products.sets.items()}
    found |= {f"tables/{name}": rounded(text) for name, text in products.tables.items()}
    return found | {f"sbatch/{name}.txt": text for name, text in products.sbatch.items()}


def all_bytes(products: Products) -> dict[str, Any]:
    """Hashes of the files of every shard set, and the versions that wrote them, as kept in expected/sets/bytes.json."""
    return {"versions": versions(), "sha256": {name: set_bytes(folder) for name, folder in products.sets.items()}}


def short(value: Any) -> Any:
    """The same with the digits that are worth keeping."""
    if isinstance(value, Mapping):
        return {name: short(item) for name, item in value.items()}
    if isinstance(value, list):
        return [short(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def differences(found: Any, kept: Any, where: str = "") -> list[str]:
    """Where numbers differ by more than CPUs do, and everything else at all; one line each."""
    if isinstance(found, Mapping) and isinstance(kept, Mapping):
        names = sorted(set(found) | set(kept))
        return [line for name in names for line in differences(found.get(name), kept.get(name), f"{where} {name}")]
    if not (isinstance(found, list) and isinstance(kept, list) and len(found) == len(kept)):
        return [] if found == kept else [f"{where.strip()}: {found!r}, kept {kept!r}"]
    off = np.abs(np.subtract(found, kept)).max(initial=0.0)
    scale = np.abs(kept).max(initial=SMALL_WEIGHT if where.startswith(" weights ") else 0.0)
    if off <= CPU_TOLERANCE * scale:  # false for NaN
        return []
    return [f"{where.strip()}: off by {off:.3g} beside {scale:.3g}, found {found}, kept {kept}"]


def digests(products: Products) -> dict[str, str]:
    """Everything to the last bit: name -> hash."""
    found = {}
    for name, folder in products.sets.items():
        found |= {f"sets/{name}/{file}": digest for file, digest in set_bytes(folder).items()}
    for name, path in products.results.items():
        found[f"results/{name}"] = sha256(_rows(path, _OF_THIS_MOMENT))
    found |= {f"tables/{name}": sha256(text) for name, text in products.tables.items()}
    found |= {f"sbatch/{name}": sha256(text) for name, text in products.sbatch.items()}
    for ranks, run in products.pretrained.items():
        found |= _run_digests(f"pretrain/{ranks}", run, run / "encoder.safetensors")
    for name, run in products.trials.items():
        found |= _run_digests(f"finetune/{name}", run, run / "model.safetensors")
        for part in ("predictions", "metrics"):
            found[f"finetune/{name}/{part}"] = sha256(_rows(run / "results" / f"{part}.parquet", _OF_THIS_MOMENT))
    return found


def _run_digests(name: str, run: Path, weights: Path) -> dict[str, str]:
    bits = hashlib.sha256()
    for tensor, value in sorted(_weights(weights).items()):
        bits.update(f"{tensor} {value.dtype} {value.shape}".encode() + value.tobytes())
    signature = json.loads((run / "run.json").read_bytes())["signature"]
    return {
        f"{name}/weights": bits.hexdigest(),
        f"{name}/log": sha256(json.dumps(_log(run), sort_keys=True)),
        f"{name}/signature": sha256(signature),
    }
