"""Converting 1024-pixel PNGs to 256-pixel JPEG shards, against the same three library calls in a bare loop.

Run: python -m benches.convert [--samples 2000] [--rounds 3]. Prints Markdown for benches/reports/convert.md.

The ceiling is read file, decode PNG, area resize, encode JPEG, nothing else, one process per core. A conversion is
the whole of `shards.convert.engine.convert`, from planned rows to the renamed card, fsyncs and process starts included.
Both take turns in every round; medians are reported. CPU time per image (of all processes) is the steadier measure on
a busy machine. Targets: >= 0.85 of the ceiling per core, near-linear over cores.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from benches._xrays import Repeated, sources
from shards.convert.config import ConvertConfig
from shards.convert.engine import convert
from shards.convert.plan import build
from shards.convert.png import fast_decoder
from shards.convert.sample import Sample
from shards.processes import cores

SIDE, QUALITY = 256, 95


def opencv(data: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def kornia(data: bytes) -> np.ndarray:
    shape = int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    return fast_decoder()(data, shape, "mono")[:, :, 0]


DECODERS: dict[str, Callable[[bytes], np.ndarray]] = {"kornia-rs": kornia, "opencv": opencv, "pillow": pillow}


def bare_loop(paths: list[Path], decoder: str) -> None:
    """The ceiling."""
    cv2.setNumThreads(0)
    decode = DECODERS[decoder]
    for path in paths:
        pixels = decode(path.read_bytes())
        small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        simplejpeg.encode_jpeg(small[:, :, None], quality=QUALITY, colorspace="GRAY")


def bare_processes(paths: list[Path], decoder: str, processes: int) -> float:
    """Return the seconds that `processes` bare loops beside each other take for `paths` each, starts not counted."""
    code = "import sys; from pathlib import Path; from benches.convert import bare_loop; sys.stdin.readline();"
    code += "bare_loop([Path(p) for p in sys.stdin.read().split()], sys.argv[1])"
    words = [sys.executable, "-c", code, decoder]
    started = [subprocess.Popen(words, stdin=subprocess.PIPE, text=True) for _ in range(processes)]
    time.sleep(2)
    begin = time.perf_counter()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n" + "\n".join(map(str, paths)))
        process.stdin.close()
    for process in started:
        assert process.wait() == 0
    return time.perf_counter() - begin


def conversion(paths: list[Path], count: int, workers: int) -> None:
    samples = (Sample(source=str(number), key=f"{number:06d}", split="train") for number in range(count))
    plan = build(samples, name="bench", labels=("pneumonia",), split_scheme="bench", opener=Repeated(tuple(paths)))
    with tempfile.TemporaryDirectory() as folder:
        config = ConvertConfig(src="", out=f"{folder}/set", workers=workers)
        assert convert(plan, config, say=lambda line: None) is not None


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Return wall and CPU seconds, children included."""
    begin, worked = time.perf_counter(), _cpu()
    work()
    return time.perf_counter() - begin, _cpu() - worked


def _cpu() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    n = options.samples
    best = next(iter(DECODERS))
    with tempfile.TemporaryDirectory() as scratch:
        kind, found = sources(Path(scratch))
        paths = [found[number % len(found)] for number in range(n)]
        some = paths[: min(n, 200)]
        seen: dict[str, list[tuple[float, float]]] = {}
        wide: dict[str, list[float]] = {"bare": [], "ours": []}
        many = cores()
        for _ in range(options.rounds):
            for name in DECODERS:
                spent = timed(lambda name=name: bare_loop(some if name != best else paths, name))
                scale = n / len(some if name != best else paths)
                seen.setdefault(f"bare loop, {name}", []).append((spent[0] * scale, spent[1] * scale))
            seen.setdefault("conversion, 1 worker", []).append(timed(lambda: conversion(list(found), n, 1)))
            wide["bare"].append(bare_processes(paths, best, many) / many)
            spent = timed(lambda: conversion(list(found), n, many))
            seen.setdefault(f"conversion, {many} workers", []).append(spent)
            wide["ours"].append(spent[0])
    print(f"{platform.processor() or platform.machine()}, {many} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{n} images ({len(found)} {kind}, repeated), {options.rounds} rounds, medians\n")
    print("| | images/s | of the ceiling | CPU ms/image | of the ceiling, by CPU |\n|---|---|---|---|---|")
    wall = {name: statistics.median(spent[0] for spent in each) for name, each in seen.items()}
    cpu = {name: statistics.median(spent[1] for spent in each) for name, each in seen.items()}
    top = f"bare loop, {best}"
    for name in seen:
        ratios = f"{wall[top] / wall[name]:.2f}", f"{cpu[top] / cpu[name]:.2f}"
        print(f"| {name} | {n / wall[name]:.0f} | {ratios[0]} | {cpu[name] / n * 1000:.2f} | {ratios[1]} |")
    bare, ours = statistics.median(wide["bare"]), statistics.median(wide["ours"])
    print(f"\n{many} bare loops beside each other: {n / bare:.0f} images/s; ours reach {bare / ours:.2f} of that")
    print(f"{many} workers are {wall['conversion, 1 worker'] / ours:.2f} times as fast as one")


if __name__ == "__main__":
    main()
