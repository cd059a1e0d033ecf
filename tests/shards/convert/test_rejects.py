"""What cannot be used is counted, with its reason, and stops a bad run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shards import FailedError, InputError, read_card
from tests.shards.convert.conftest import jpeg, make, picture, png

REJECTS = {
    "00000001_000.png": (b"", "empty file"),
    "00000001_001.png": (png(picture(1, 200, 200))[:3000], "damaged"),
    "00000001_002.png": (b"<html>503</html>", "not a PNG"),
    "00000002_000.png": (png(np.zeros((1, 1), np.uint8)), "too small"),
}


def test_unusable_files_are_rejects_with_a_reason_and_source_is_samples_plus_rejects(nih: Path, nih_config) -> None:
    for name, (data, _) in REJECTS.items():
        (nih / "images_001" / "images" / name).write_bytes(data)
    (nih / "images_001" / "images" / "00000002_001.png").unlink()
    (nih / "images_001" / "images" / "00000002_001.png").mkdir()
    index, rejects, _ = make(nih_config(max_rejects=0.5, allow_missing=True))
    assert len(index) + len(rejects) == 24
    reasons = {Path(source).name: reason for source, reason in zip(rejects.source, rejects.reason, strict=True)}
    for name, (_, reason) in REJECTS.items():
        assert reason in reasons[name]
    assert reasons["00000002_001.png"] == "row without an image file"
    assert not set(rejects.source.map(lambda source: Path(source).stem)) & set(index.key)


def test_16_bit_cmyk_and_palette_images_among_others_become_samples(nih: Path, nih_config) -> None:
    from PIL import Image

    folder = nih / "images_001" / "images"
    (folder / "00000001_000.png").write_bytes(png(picture(1).astype(np.uint16) * 257))
    buffer = io.BytesIO()
    Image.fromarray(picture(2)).convert("CMYK").save(buffer, "jpeg")
    (folder / "00000001_001.png").write_bytes(buffer.getvalue())
    (folder / "00000001_002.png").write_bytes(jpeg(picture(3)))
    Image.fromarray(picture(4)).convert("P").save(folder / "00000001_003.png")
    index, rejects, _ = make(nih_config())
    assert len(index) == 24 and len(rejects) == 0


def test_too_many_rejects_stop_the_run_with_the_reasons_and_more_may_be_allowed(nih: Path, nih_config) -> None:
    for name in ("00000001_000.png", "00000003_001.png"):
        (nih / "images_001" / "images" / name).write_bytes(b"not an image")
    config = nih_config()
    with pytest.raises(FailedError, match="more than --max_rejects 0.01 .*not a PNG"):
        make(config)
    with pytest.raises(InputError, match="not finished"):
        read_card(config.out)
    assert "not a PNG" in pd.read_parquet(Path(config.out) / "rejects.parquet").reason[0]
    index, rejects, _ = make(nih_config(max_rejects=0.1))
    assert len(index) == 22 and len(rejects) == 2


def test_the_limit_of_rejects_holds_over_all_parts(nih: Path, nih_config) -> None:
    for path in sorted((nih / "images_001" / "images").glob("*_000.png")):
        path.write_bytes(b"not an image")
    from shards.convert.engine import convert
    from shards.convert.registry import plan

    for number in range(2):
        config = nih_config(part=f"{number}/2", max_rejects=1.0)
        convert(plan(config), config, say=lambda line: None)
    with pytest.raises(FailedError, match="6 of 24 sources are unusable"):
        make(nih_config(merge=True))
