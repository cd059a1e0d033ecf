"""`verify --against`: images and patients of two sets are found by key, file name, picture and patient id."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from jobs import cli
from shards import InputError, read_card
from shards.convert.config import CsvConfig, NihConfig
from shards.overlap.find import Overlap, compare, open_side
from tests.shards.convert.conftest import grey_file, make, png, write_nih
from tests.web import serving


def textured(seed: int, height: int = 40, width: int = 40) -> np.ndarray:
    """A random picture with broad shapes and fine structure, as X-rays have; uint8 (height, width)."""
    rng = np.random.default_rng(seed)
    layers = [rng.normal(0, 60 / n**0.5, (n, n)) for n in (4, 8, 16, 32)]
    image = sum(cv2.resize(layer, (width, height), interpolation=cv2.INTER_CUBIC) for layer in layers)
    return np.clip(np.asarray(image) + 128, 0, 255).astype(np.uint8)


def images_of(root: Path) -> dict[str, np.ndarray]:
    return {path.stem: grey_file(path) for path in sorted(root.rglob("*.png"))}


def table_set(
    folder: Path,
    pictures: Mapping[str, np.ndarray],
    *,
    patients: Mapping[str, str] | None = None,
    splits: Mapping[str, str] | None = None,
    ending: str = ".jpg",
    **changes,
) -> Path:
    """A shard set made from a user's own table; paths are the names of the pictures."""
    source = folder.with_name(f"{folder.name}-source")
    rows = []
    for name, pixels in pictures.items():
        path = source / f"{name}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), pixels)
        patient, split = (patients or {}).get(name, f"own-{name}"), (splits or {}).get(name, "train")
        rows.append({"path": f"{name}{ending}", "patient": patient, "split": split, "edema": "1"})
    with open(source / "table.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    settings = {
        "src": str(source), "out": str(folder), "table": "table.csv", "name": folder.name, "patient_column": "patient",
        "split_column": "split", "size": 32, "workers": 1, "image_format": "png", **changes,
    }  # fmt: skip
    make(CsvConfig(**settings))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small NIH set: patients 1 to 4 in train or val, 5 and 6 in test."""
    root = tmp_path_factory.mktemp("overlap")
    write_nih(root / "src")
    for number, path in enumerate(sorted((root / "src").rglob("*.png"))):
        path.write_bytes(png(textured(number)))
    make(NihConfig(src=str(root / "src"), out=str(root / "nih"), size=48, shard_size=6, workers=1, val_fraction=0.3))
    return root


@pytest.fixture(scope="module")
def pictures(home: Path) -> dict[str, np.ndarray]:
    return images_of(home / "src")


def overlap(one: Path, other: Path, *, decode: bool = True, workers: int = 1) -> Overlap:
    sides = [open_side(str(path), pictures=decode, workers=workers, say=lambda line: None) for path in (one, other)]
    return compare(*sides, workers=workers, say=lambda line: None)


def keys(found: Overlap, flags: np.ndarray) -> set[tuple[str, str]]:
    return set(zip(found.one.text("key", found.rows[flags]), found.other.text("key", found.others[flags]), strict=True))


def repacked(pixels: np.ndarray) -> np.ndarray:
    """In another size, as a JPEG of quality 60."""
    data = cv2.imencode(".jpg", cv2.resize(pixels, (90, 90)), [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return image


def renamed(pictures: Mapping[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    """Some pictures under other names, as somebody else publishes them."""
    return {f"x{number}": repacked(pictures[name]) for number, name in enumerate(names)}


def others(count: int, first: int = 9000) -> dict[str, np.ndarray]:
    return {f"other{seed}": textured(seed) for seed in range(first, first + count)}


def test_pictures_under_other_names_are_found_with_their_patients_and_nothing_else_is(
    home: Path, pictures: dict[str, np.ndarray], tmp_path: Path
) -> None:
    names = ["00000001_000", "00000001_001", "00000005_002", "00000006_000"]
    there = table_set(tmp_path / "there", renamed(pictures, names) | others(20))
    found = overlap(home / "nih", there)
    assert keys(found, found.shared) == {(name, f"x{number}") for number, name in enumerate(names)}
    assert not found.by_key.any() and not found.by_name.any() and found.bits.max() <= 20
    assert not found.same_ids and not found.ids_agree
    assert found.patients == [("1", "own-x0"), ("1", "own-x1"), ("5", "own-x2"), ("6", "own-x3")]
    assert (found.images_in(["test"], ["train"]), found.patients_in(["test"], ["train"])) == (2, 2)
    assert found.images_in(["train", "val"], ["test"]) == 0
    assert overlap(there, home / "nih").images_in(["train"], ["test"]) == 2
    two = overlap(home / "nih", there, workers=2)
    assert np.array_equal(two.rows, found.rows) and np.array_equal(two.bits, found.bits)


def test_the_same_names_over_other_pictures_are_not_the_same_images(
    home: Path, pictures: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """As drawn X-rays in NIH's spelling, or two sets that number their patients."""
    drawn = {name: textured(5000 + number) for number, name in enumerate(pictures)}
    there = table_set(tmp_path / "there", drawn, patients={name: str(int(name[:8])) for name in drawn})
    found = overlap(home / "nih", there)
    assert found.by_key.sum() == found.by_name.sum() == len(drawn) and not found.shared.any()
    assert len(found.same_ids) == 6 and not found.ids_agree and found.patients == []
    by_name = overlap(home / "nih", there, decode=False)
    assert by_name.shared.sum() == len(drawn), "names are believed where nobody looks"
    assert by_name.by_picture is None and (by_name.bits == -1).all() and by_name.ids_agree


def test_a_patient_s_other_images_leak_where_ids_mean_the_same(
    home: Path, pictures: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Patient 5 is tested on in NIH; the other set learns from another image of that person."""
    shown = {"00000001_000": pictures["00000001_000"]} | others(6)
    there = table_set(tmp_path / "there", shown, patients={"00000001_000": "1", "other9000": "5"})
    found = overlap(home / "nih", there)
    assert found.ids_agree and found.patients == [("1", "1"), ("5", "5")]
    assert (found.images_in(["test"], ["train"]), found.patients_in(["test"], ["train"])) == (0, 1)
    assert cli.main(["verify", str(home / "nih"), "--against", str(there), "--workers", "1"]) == 1
    told = capsys.readouterr()
    wanted = f"LEAKAGE: 1 patient of {home / 'nih'}'s test split is in train or val of {there}"
    assert told.out.splitlines()[-1] == wanted and told.err.endswith(f"cxrdist: {home / 'nih'}: 1 problem\n")


def test_files_are_told_apart_by_as_many_folders_as_it_takes(tmp_path: Path) -> None:
    """As CheXpert's, which are all called view1_frontal."""
    names = [f"patient{n}/study1/view1_frontal" for n in range(8)]
    shown = {name: textured(n) for n, name in enumerate(names)}
    one = table_set(tmp_path / "one", {f"small/train/{name}": shown[name] for name in names})
    other = table_set(
        tmp_path / "other", {f"batch2/{name}": shown[name] for name in names[4:]} | others(4), ending=".png"
    )
    found = overlap(one, other, decode=False)
    assert found.by_name.sum() == 4 and not found.by_key.any()
    sources = zip(found.one.text("source", found.rows), found.other.text("source", found.others), strict=True)
    assert all(a[len("small/train/") :][:-4] == b[len("batch2/") :][:-4] for a, b in sources)


def test_the_middle_of_an_oblong_picture_is_found(tmp_path: Path) -> None:
    tall = {f"tall{n}": textured(n, 120, 90) for n in range(6)}
    one = table_set(tmp_path / "one", tall, size=90)
    cut = {f"cut{n}": pixels[15:105] for n, pixels in enumerate(tall.values())}
    squeezed = {f"squeezed{n}": cv2.resize(pixels, (64, 64)) for n, pixels in enumerate(tall.values())}
    other = table_set(tmp_path / "other", cut | squeezed)
    for found, first in ((overlap(one, other), "tall"), (overlap(other, one), None)):
        pairs = keys(found, found.shared)
        assert len(pairs) == 12 and all(a[-1] == b[-1] for a, b in pairs), first


def test_nearly_black_pictures_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    black = {f"black{n}": np.full((40, 40), n, np.uint8) for n in range(3)}
    one = table_set(tmp_path / "one", black | others(5))
    other = table_set(tmp_path / "other", {"black9": black["black0"], "black1": black["black1"]} | others(4, 100))
    found = overlap(one, other)
    assert found.flat == 5 and keys(found, found.shared) == {("black1", "black1")}, "of one name"
    assert cli.main(["verify", str(one), "--against", str(other), "--workers", "1"]) == 0
    told = capsys.readouterr().out
    assert "5 images of nearly one grey" in told and told.splitlines()[-1].startswith("no leakage found: ")


def test_the_command_prints_counts_splits_and_pairs_and_writes_all(
    home: Path, pictures: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(pictures)[:16]
    splits = {f"x{number}": "test" for number in range(12)}
    there = table_set(tmp_path / "there", renamed(pictures, names) | others(8), splits=splits)
    apart = table_set(tmp_path / "apart", others(8, 700))
    words = ["verify", str(home / "nih"), "--against", f"{there},{apart}", "--workers", "1", "--pairs", "3"]
    assert cli.main([*words, "--out", str(tmp_path / "pairs.csv")]) == 1
    told = capsys.readouterr().out
    for line in (
        f"{home / 'nih'} (nih, 24 images) against {there} (there, 24 images):",
        "  same picture:     16 pairs",
        "  patients in both: 4 (4 patients of this set, 16 of the other)",
        "  in train                    0 / 0          12 / 3",
        f"{home / 'nih'} (nih, 24 images) against {apart} (apart, 8 images):",
        "  same picture:     0 pairs",
        "  and 13 more pairs; --out FILE.csv writes all",
        f"LEAKAGE: 12 images and 3 patients of {home / 'nih'}'s train or val are in the test split of {there}",
    ):
        assert line in told.splitlines(), told
    assert told.count("LEAKAGE") == 1
    rows = pd.read_csv(tmp_path / "pairs.csv", dtype={"patient_id": str})
    assert rows.kind.value_counts().to_dict() == {"image": 16, "patient": 16}
    pairs = rows[rows.kind == "image"]
    assert dict(zip(pairs.other_key, pairs.key, strict=True)) == {f"x{n}": name for n, name in enumerate(names)}
    assert (pairs.correlation > 0.9).all() and pairs.same_picture.all() and set(rows.other) == {str(there)}
    assert cli.main([*words, "--out", str(tmp_path / "pairs.parquet")]) == 1
    parquet = pd.read_parquet(tmp_path / "pairs.parquet")
    assert list(parquet) == list(rows)
    for name in ("kind", "key", "other_key", "split", "other_split", "patient_id", "other_patient_id", "bits"):
        assert parquet[name].dropna().tolist() == rows[name].dropna().tolist(), name


def test_sharing_training_images_is_said_and_no_problem(
    home: Path, pictures: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [name for name in sorted(pictures) if name < "00000005"]
    there = table_set(tmp_path / "there", renamed(pictures, names))
    with serving(there.parent) as web:
        address = f"{web.url}/there"
        assert cli.main(["verify", str(home / "nih"), "--against", address, "--workers", "1"]) == 0
    told = capsys.readouterr().out
    assert (
        f"against {address} (there, 16 images)" in told
        and "same picture:     16 pairs" in told
        and "LEAKAGE" not in told
    )


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--out", "pairs.csv"], "--out is of --against"),
        (["--against", "{nih}"], "are the same shard set"),
        (["--against", "{there}/nothing"], "is not a shard set"),
        (["--against", "{there}", "--out", "pairs.txt"], "ends in .csv or .parquet"),
        (["--against", "{there}", "--out", "nowhere/pairs.csv"], "there is no folder"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    there = table_set(tmp_path / "there", others(4))
    words = [word.format(nih=home / "nih", there=there) for word in more]
    assert cli.main(["verify", str(home / "nih"), "--workers", "1", *words]) == 2
    said = capsys.readouterr().err
    assert says in said and len(said.strip().splitlines()) == 1


def test_a_damaged_other_set_is_named_with_what_finds_the_damage(home: Path, tmp_path: Path) -> None:
    there = table_set(tmp_path / "there", others(4))
    tar = there / read_card(there).shards[0]["name"]
    data = bytearray(tar.read_bytes())
    data[600:900] = bytes(300)
    tar.write_bytes(data)
    with pytest.raises(InputError, match=rf"sample other90\d\d cannot be read .*cxrdist verify {there}"):
        overlap(home / "nih", there)
    tar.unlink()
    with pytest.raises(InputError, match="lists what is missing"):
        overlap(home / "nih", there)
    index = there / "index.parquet"
    frame = pd.read_parquet(index)
    frame.to_parquet(index)
    with pytest.raises(InputError, match="changed or damaged"):
        overlap(home / "nih", there)


def test_copies_of_real_xrays_are_found_among_real_ones(shared_data: Path, tmp_path: Path) -> None:
    """NIH's 1024-pixel PNGs, and in another set smaller JPEGs of some of them among X-rays of other people."""
    files = sorted((shared_data / "nih").rglob("*.png"))[:24]
    shown = {path.stem: grey_file(path) for path in files}
    one = table_set(tmp_path / "one", shown, size=256, ending=".png", image_format="jpg")
    small = sorted((shared_data / "nih64" / "images").iterdir())
    strangers = {f"s{path.stem}": grey_file(path) for path in small[:400]}
    copies = {
        f"copy{n}": cv2.resize(shown[path.stem], (64, 64), interpolation=cv2.INTER_AREA)
        for n, path in enumerate(files[:12])
    }
    other = table_set(tmp_path / "other", copies | strangers, size=None)
    found = overlap(one, other)
    pairs = keys(found, found.shared)
    assert {(path.stem, f"copy{n}") for n, path in enumerate(files[:12])} <= pairs
    assert all(b == f"s{a}" or b.startswith("copy") for a, b in pairs), (
        "of the strangers only those that are the same file"
    )
