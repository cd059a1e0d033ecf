from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import main, parse
from shards import read_card
from tests.shards.convert.conftest import write_nih


@pytest.fixture
def nih(tmp_path: Path) -> Path:
    write_nih(tmp_path / "nih")
    return tmp_path / "nih"


def test_shard_then_verify_succeed_and_a_flipped_byte_fails(nih: Path, tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "out")
    assert main(["shard", "nih", "--src", str(nih), "--out", out, "--size", "32", "--workers", "1"]) == 0
    assert "24 samples (train 12, val 4, test 8)" in capsys.readouterr().err
    assert main(["verify", out, "--workers", "1"]) == 0
    assert "24 samples in 3 tars, all whole" in capsys.readouterr().out
    tar = tmp_path / "out" / "val-000000.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    assert main(["verify", out, "--workers", "1"]) == 1
    assert "val-000000.tar was changed or damaged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "3"], " size = 3"),
        (["--quality", "0"], " quality = 0"),
        (["--max_rejects", "7"], " max_rejects = 7"),
        (["--workers", "0"], " workers = 0"),
        (["--shard_size", "0"], " shard_size = 0"),
        (["--part", "5/5"], "--part '5/5'"),
        (["--part", "0/5", "--merge", "true"], "exclude each other"),
        (["--val_fraction", "1.5"], " val_fraction = 1.5"),
        (["--splits", "sideways"], "splits"),
        (["--colour", "red"], "colour"),
    ],
)
def test_unusable_options_are_one_line_and_exit_2(nih: Path, tmp_path: Path, capsys, options, message) -> None:
    assert main(["shard", "nih", "--src", str(nih), "--out", str(tmp_path / "out"), *options]) == 2
    told = capsys.readouterr().err.strip()
    assert message in told and len(told.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_source_errors_are_one_line_and_exit_2_and_bad_runs_exit_1(nih: Path, tmp_path: Path, capsys) -> None:
    words = ["shard", "nih", "--src", str(nih), "--out", str(tmp_path / "out"), "--workers", "1"]
    image = next((nih / "images_001" / "images").glob("*.png"))
    image.write_bytes(b"not an image")
    assert main(words) == 1
    told = capsys.readouterr().err.strip()
    assert "max_rejects" in told and len(told.splitlines()) == 1
    image.unlink()
    assert main(words) == 2
    assert "1 of 24 rows" in capsys.readouterr().err


def test_drawn_pictures_become_a_shard_set_in_both_styles(tmp_path: Path, capsys) -> None:
    for style, labels in (("nih", 15), ("chexpert", 14)):
        out = tmp_path / style
        words = [
            "shard",
            "phantom",
            "--out",
            str(out),
            "--patients",
            "8",
            "--size",
            "32",
            "--style",
            style,
            "--workers",
            "0",
        ]
        assert main(words) == 0
        card = read_card(out)
        assert card.name == f"phantom-{style}" and len(card.labels) == labels
        assert set(card.splits) == {"train", "val", "test"} and not (out / ".work").exists()
        assert main(words) == 0 and "complete already" in capsys.readouterr().err
        assert main([*words, "--seed", "5"]) == 2
        assert main(["verify", str(out), "--workers", "1"]) == 0


def test_label_columns_are_given_on_the_command_line_or_in_toml(tmp_path: Path) -> None:
    spec = tmp_path / "mine.toml"
    spec.write_text('src = "a"\nout = "b"\ntable = "t.csv"\n[labels]\nTB = "tuberculosis"\n')
    from_file = parse("shard", ["csv", "--config", str(spec)])
    from_words = parse(
        "shard", ["csv", "--src", "a", "--out", "b", "--table", "t.csv", "--labels", '{"TB": "tuberculosis"}']
    )
    assert from_file == from_words and from_file.labels == {"TB": "tuberculosis"}


def test_the_command_line_needs_no_torch_and_no_ray(tmp_path: Path) -> None:
    write_nih(tmp_path / "nih", patients=3, each=1)
    code = (
        "import sys; from jobs.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'ray', 'sklearn', 'matplotlib', 'timm'} & set(sys.modules);"
        "sys.exit(code or (print(heavy) or 7 if heavy else 0))"
    )
    words = ["shard", "nih", "--src", str(tmp_path / "nih"), "--out", str(tmp_path / "out"), "--size", "32"]
    ended = subprocess.run([sys.executable, "-c", code, *words, "--workers", "1"], check=False)
    assert ended.returncode == 0
