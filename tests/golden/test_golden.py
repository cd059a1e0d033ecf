"""What the commands make is what they made before: shard sets, tables, sbatch texts, weights and predictions.

Exact where every machine computes the same, to rounding where the CPU has a say. A change that is meant is taken over
by `python -m tests.golden --update`, and the diff of expected/ shows it to the reviewer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.golden import contents
from tests.golden.__main__ import main, report
from tests.golden.contents import CPU_TOLERANCE, EXPECTED, differences
from tests.golden.inputs import LAYOUTS
from tests.golden.products import RANKS, SUBMISSIONS, TRIALS, Products
from tests.golden.studies import FORMATS, TABLES


@pytest.fixture(scope="session")
def products(tmp_path_factory: pytest.TempPathFactory) -> Products:
    return Products(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="session")
def numbers() -> dict[str, Any]:
    return json.loads((EXPECTED / "arithmetic.json").read_text())


def kept(name: str) -> str:
    return (EXPECTED / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_converted_set_holds_the_rows_and_pixels_that_it_held(products: Products, name: str) -> None:
    assert contents.set_text(products.sets[name]) == kept(f"sets/{name}.txt")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_converted_set_has_the_bytes_that_it_had(products: Products, name: str) -> None:
    before = json.loads(kept("sets/bytes.json"))
    if contents.versions() != before["versions"]:
        pytest.skip("the image libraries of constraints.txt: others may write the same pixels as other bytes")
    assert contents.set_bytes(products.sets[name]) == before["sha256"][name]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_fixed_results_reads_as_it_did(products: Products, name: str) -> None:
    for ending in FORMATS.values():
        assert contents.rounded(products.tables[f"{name}.{ending}"]) == kept(f"tables/{name}.{ending}")


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_the_sbatch_text_of_a_command_is_the_one_that_it_was(products: Products, name: str) -> None:
    assert products.sbatch[name] == kept(f"sbatch/{name}.txt")


@pytest.mark.parametrize("ranks", RANKS)
def test_twenty_steps_of_pretraining_end_where_they_did(
    products: Products, numbers: dict[str, Any], ranks: int
) -> None:
    assert differences(contents.pretraining(products.pretrained[ranks]), numbers[f"pretrain-{ranks}"]) == []


@pytest.mark.parametrize("name", TRIALS)
def test_a_trial_of_each_mode_predicts_what_it_did(products: Products, numbers: dict[str, Any], name: str) -> None:
    assert differences(contents.trial(products.trials[name]), numbers[name]) == []


def test_nothing_is_kept_that_is_no_longer_compared(numbers: dict[str, Any]) -> None:
    files = {path.relative_to(EXPECTED).as_posix() for path in EXPECTED.rglob("*") if path.is_file()}
    made = {f"sets/{name}.txt" for name in LAYOUTS} | {f"sbatch/{name}.txt" for name in SUBMISSIONS}
    made |= {f"tables/{name}.{ending}" for name in TABLES for ending in FORMATS.values()}
    assert files == made | {"sets/bytes.json", "arithmetic.json"}
    assert set(numbers) == {f"pretrain-{ranks}" for ranks in RANKS} | set(TRIALS)


def test_a_difference_larger_than_that_of_two_cpus_is_found_and_named(numbers: dict[str, Any]) -> None:
    run = numbers["pretrain-2"]
    off = {**run, "loss": [*run["loss"][:-1], run["loss"][-1] * (1 + 5 * CPU_TOLERANCE)]}
    (line,) = differences(off, run)
    assert line.startswith("loss: off by")
    assert differences({**run, "loss": [float("nan"), *run["loss"][1:]]}, run)
    assert differences({**run, "loss": run["loss"][:-1]}, run)
    assert differences({**run, "order": "0"}, run)
    assert differences({name: value for name, value in run.items() if name != "weights"}, run)
    assert differences(off, off) == []


def test_hashes_that_differ_appear_or_vanish_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    before = {"machine": {"cpu": "AVX2"}, "sha256": {"a": "1", "b": "2", "c": "3"}}
    after = {"machine": {"cpu": "AVX512"}, "sha256": {"a": "1", "b": "9", "d": "4"}}
    assert report(before, before) == 0
    assert capsys.readouterr().out == "3 of 3 equal\n"
    assert report(before, after) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("note: cpu was AVX2, is AVX512")
    assert said[1:] == ["b: differs", "c: gone", "d: new", "1 of 4 equal"]


def test_an_earlier_file_of_hashes_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "before.json").write_text("{}")
    for words, message in (("--write before.json", "exists already"), ("--compare after.json", "no such file")):
        option, name = words.split()
        with pytest.raises(SystemExit) as caught:
            main([option, str(tmp_path / name)])
        assert caught.value.code == 2 and message in capsys.readouterr().err
    assert (tmp_path / "before.json").read_text() == "{}"
