"""How far apart X-rays are by hash and thumbnail: of one image stored otherwise, of one patient, of different people.

Run: python -m benches.against. Needs the real X-rays of ../shared/data (or $CXRDIST_SHARED): Kermany's at 224 pixels
and a thousand of NIH's at 64. Prints Markdown for benches/reports/against.md; half a minute of CPU.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from shards.overlap.fingerprint import LIKE, MOST_BITS, MOST_COARSE_BITS, SIDE, hashes, likeness, thumbnail
from shards.overlap.near import near_pairs

ROOT = Path(__file__).resolve().parents[1]
COPIED = 500
MANY = 100_000


def files() -> list[Path]:
    """Every real X-ray, Kermany's first."""
    data = Path(os.environ.get("CXRDIST_SHARED", ROOT.parent / "shared")) / "data"
    return sorted((data / "chest_xray").rglob("*.jpeg")) + sorted((data / "nih64" / "images").glob("*.png"))


def patient(path: Path) -> str:
    """Whose image a file is, by its name."""
    found = re.match(r"person\d+|(?:NORMAL2-)?IM-\d+|\d{8}", path.name)
    return found[0] if found else path.name


def grey(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert image is not None, path
    return image


def resized(pixels: np.ndarray, width: int, height: int | None = None) -> np.ndarray:
    how = cv2.INTER_AREA if width < pixels.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(pixels, (width, height or width), interpolation=how)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return image


def gamma(pixels: np.ndarray, power: float) -> np.ndarray:
    return np.rint(255 * (pixels / 255) ** power).astype(np.uint8)


def windowed(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    black, white = np.percentile(pixels, [low, high])
    return np.clip((pixels - black) / (white - black + 1e-6) * 255, 0, 255).astype(np.uint8)


def cropped(pixels: np.ndarray, share: float) -> np.ndarray:
    high, wide = (max(1, round(side * share)) for side in pixels.shape)
    return pixels[high:-high, wide:-wide]


def noisy(pixels: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(int(pixels.sum())).normal(0, 8, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "JPEG, quality 90": lambda pixels: jpeg(pixels, 90),
    "JPEG, quality 50": lambda pixels: jpeg(pixels, 50),
    "JPEG, quality 20": lambda pixels: jpeg(pixels, 20),
    "JPEG, quality 10": lambda pixels: jpeg(pixels, 10),
    "1024 pixels": lambda pixels: resized(pixels, 1024),
    "112 pixels": lambda pixels: resized(pixels, 112),
    "64 pixels": lambda pixels: resized(pixels, 64),
    "48 pixels, JPEG of quality 50": lambda pixels: jpeg(resized(pixels, 48), 50),
    "28 pixels": lambda pixels: resized(pixels, 28),
    "squeezed to 224 x 180": lambda pixels: resized(pixels, 224, 180),
    "gamma 0.6": lambda pixels: gamma(pixels, 0.6),
    "gamma 1.6": lambda pixels: gamma(pixels, 1.6),
    "window of 1 to 99 %": lambda pixels: windowed(pixels, 1, 99),
    "window of 5 to 95 %": lambda pixels: windowed(pixels, 5, 95),
    "histogram equalised": cv2.equalizeHist,
    "CLAHE, clip 2, 8 x 8": lambda pixels: cv2.createCLAHE(2.0, (8, 8)).apply(pixels),
    "noise of 8 grey levels": noisy,
    "1 % cropped at each side": lambda pixels: cropped(pixels, 0.01),
    "3 % cropped at each side": lambda pixels: cropped(pixels, 0.03),
    "mirrored": lambda pixels: np.ascontiguousarray(pixels[:, ::-1]),
}


def differing(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.bitwise_count(one ^ other).sum(axis=-1, dtype=np.int64)


def copies(images: list[np.ndarray]) -> None:
    """Print a row for each way of storing an image again."""
    one = np.stack([thumbnail(pixels) for pixels in images])
    print(
        f"\n| {len(images)} images, stored again | bits: median, 99 %, most | correlation: median, 1 %, least | found |"
    )
    print("|---|---|---|---|")
    for name, copy in COPIES.items():
        other = np.stack([thumbnail(copy(pixels)) for pixels in images])
        bits, like = differing(hashes(one), hashes(other)), likeness(one, other)
        coarse = differing(hashes(one)[:, :1], hashes(other)[:, :1])
        found = (bits <= MOST_BITS) & (coarse <= MOST_COARSE_BITS) & (like >= LIKE)
        text = ", ".join(f"{value:.0f}" for value in np.quantile(bits, [0.5, 0.99, 1]))
        fine = ", ".join(f"{value:.3f}" for value in np.quantile(like, [0.5, 0.01, 0]))
        print(f"| {name} | {text} | {fine} | {100 * found.mean():.1f} % |", flush=True)


def strangers(thumbnails: np.ndarray, owners: np.ndarray) -> None:
    """Print how many pairs of different people, and of one patient, are near."""
    words, limits, lows = hashes(thumbnails), (32, 40, 48, 56, 64), (-1.0, 0.7, 0.8, 0.85, 0.9)
    counts = {same: np.zeros((len(limits), len(lows)), np.int64) for same in (False, True)}
    pairs = {False: 0, True: 0}
    for row in range(len(words) - 1):
        bits = differing(words[row], words[row + 1 :])
        same = owners[row + 1 :] == owners[row]
        pairs[True] += int(same.sum())
        pairs[False] += int((~same).sum())
        near = np.flatnonzero(bits <= limits[-1])
        rows = np.full(len(near), row)
        like = likeness(thumbnails[rows], thumbnails[row + 1 + near]) if len(near) else np.empty(0)
        for kind, table in counts.items():
            chosen = same[near] == kind
            table += [[int(((bits[near] <= most) & (like >= low) & chosen).sum()) for low in lows] for most in limits]
    for kind, title in ((False, "different people"), (True, "one patient")):
        print(
            f"\n| {pairs[kind]:,} pairs of {title}: bits at most | any | " + " | ".join(f"{low:g}" for low in lows[1:])
        )
        print("|---|" + "---|" * len(lows))
        for most, row in zip(limits, counts[kind], strict=True):
            print(f"| {most} | " + " | ".join(str(n) for n in row) + " |", flush=True)


def drawn(thumbnails: np.ndarray, seed: int) -> np.ndarray:
    """Hashes of `MANY` X-rays: real thumbnails turned, moved and scaled a little, half of them mirrored."""
    rng = np.random.default_rng(seed)
    made = np.empty((MANY, SIDE, SIDE), np.uint8)
    middle = (SIDE - 1) / 2
    for number, source in enumerate(rng.integers(0, len(thumbnails), MANY)):
        matrix = cv2.getRotationMatrix2D((middle, middle), rng.uniform(-8, 8), rng.uniform(0.9, 1.1))
        matrix[:, 2] += rng.uniform(-3, 3, 2)
        image = thumbnails[source][:, ::-1] if rng.random() < 0.5 else thumbnails[source]
        made[number] = cv2.warpAffine(
            np.ascontiguousarray(image), matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE
        )
    return hashes(made)


def search(thumbnails: np.ndarray) -> None:
    """Print what comparing 10^5 with 10^5 hashes takes, and what an index over bands would visit."""
    one, other = drawn(thumbnails, 1), drawn(thumbnails, 2)
    began = time.process_time()
    rows, _, _ = near_pairs(one[: MANY // 10], other, most=MOST_BITS, most_coarse=MOST_COARSE_BITS, threads=1)
    took = 10 * (time.process_time() - began)
    some = np.random.default_rng(3).integers(0, MANY, (2, 1_000_000))
    began = time.process_time()
    differ = one[some[0]] ^ other[some[1]]
    np.bitwise_count(differ).sum(axis=1)
    visit = time.process_time() - began
    coarse = (np.bitwise_count(differ[:, 0]) <= MOST_COARSE_BITS).mean()
    visited = (np.bitwise_count(differ.view(np.uint16)) <= MOST_BITS // 16).sum(axis=1).mean()
    print(f"\n| {MANY:,} x {MANY:,} hashes | |\n|---|---|")
    print(f"| every pair, CPU (a tenth of the rows timed; {len(rows):,} near pairs in it) | {took:.0f} s |")
    print(f"| pairs that pass the first word | {100 * coarse:.2f} % |")
    print(
        f"| candidates of an index over 16 bands, bands within {MOST_BITS // 16} bits, for each pair | {visited:.3f} |"
    )
    print(f"| to fetch and count one candidate | {1000 * visit:.0f} ns |")
    print(f"| so the candidates of such an index, without its 137 x 16 probes a hash | {1e4 * visited * visit:.0f} s |")


def main() -> None:
    cv2.setNumThreads(1)
    found = files()
    if not found:
        raise SystemExit("benches.against: no real X-rays in ../shared/data")
    order = np.random.default_rng(0).permutation(len(found))[:COPIED]
    copies([grey(found[number]) for number in order])
    thumbnails = np.stack([thumbnail(grey(path)) for path in found])
    owners = np.unique([patient(path) for path in found], return_inverse=True)[1]
    strangers(thumbnails, owners)
    search(thumbnails)


if __name__ == "__main__":
    main()
