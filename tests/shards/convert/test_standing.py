"""A conversion is planned once; its parts read the plan, and notice when it no longer holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shards import InputError
from shards.convert import plan_file, rows, spill, standing
from shards.convert.engine import convert
from shards.convert.registry import plan
from shards.convert.standing import planned
from shards.locks import locked
from tests.shards.convert import layouts
from tests.shards.convert.conftest import hashes, jpeg, make, picture
from tests.shards.convert.published import config as published


def quiet(line: str) -> None:
    """Takes lines meant for the user."""


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with every planning."""
    made: list[str] = []

    def counted(config: Any) -> Any:
        made.append(config.part)
        return plan(config)

    monkeypatch.setattr(standing, "plan", counted)
    return made


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every table goes to a file, and row groups are a few rows."""
    monkeypatch.setattr(spill, "KEPT", 5)
    monkeypatch.setattr(spill, "BATCH", 4)
    monkeypatch.setattr(rows, "_FEW", 4)
    monkeypatch.setattr(plan_file, "GROUP", 4)
    monkeypatch.setattr(plan_file, "_AT_ONCE", 8)
    monkeypatch.setattr(plan_file, "_HELD", 1)
    yield


def run(config: Any) -> None:
    convert(planned(config, say=quiet), config, say=quiet)


def test_a_part_plans_nothing_where_a_plan_stands(nih_config, times: list[str], small: None) -> None:
    whole = nih_config("whole")
    convert(plan(whole), whole, say=quiet)
    for part in ("2/3", "0/3", "1/3"):
        run(nih_config(part=part))
    run(nih_config(merge=True))
    assert times == ["2/3"]
    assert hashes(Path(whole.out)) == hashes(Path(nih_config().out))


def test_parts_of_a_set_with_studies_laterals_and_missing_files_give_the_bytes_of_one_go(
    tmp_path: Path, times: list[str], small: None
) -> None:
    layouts.write_mimic(tmp_path / "src", patients=12)
    next((tmp_path / "src" / "files").rglob("*.jpg")).unlink()
    options = {"allow_missing": True, "shard_size": 3}
    whole = published("mimic", tmp_path / "src", **options)
    convert(plan(whole), whole, say=quiet)
    for more in ({"part": "1/2"}, {"part": "0/2"}, {"merge": True}):
        run(published("mimic", tmp_path / "src", out=tmp_path / "parted", **options, **more))
    assert times == ["1/2"]
    assert hashes(tmp_path / "out") == hashes(tmp_path / "parted")


def test_a_table_that_changed_is_planned_again_and_another_conversion_is_refused(
    nih: Path, nih_config, times: list[str]
) -> None:
    run(nih_config(part="0/2"))
    table = nih / "Data_Entry_2017.csv"
    text = table.read_text()
    table.write_text(text.replace("No Finding", "Hernia", 1))
    with pytest.raises(InputError, match="unfinished conversion of other data or settings"):
        run(nih_config(part="1/2"))
    table.write_text(text)
    run(nih_config(part="1/2"))
    assert times == ["0/2", "1/2", "1/2"]
    run(nih_config(merge=True))
    whole = nih_config("whole")
    run(whole)
    assert hashes(Path(whole.out)) == hashes(Path(nih_config().out))


def test_an_image_that_comes_or_goes_is_noticed(nih: Path, nih_config) -> None:
    run(nih_config(part="0/2"))
    folder = nih / "images_001" / "images"
    (folder / "more.png").write_bytes(jpeg(picture(1)))
    with pytest.raises(InputError, match="1 image files have no row"):
        run(nih_config(part="1/2"))
    (folder / "more.png").unlink()
    (folder / "00000001_000.png").unlink()
    with pytest.raises(InputError, match="1 of 24 rows"):
        run(nih_config(part="1/2"))


def test_other_settings_of_the_plan_make_another(nih_config, times: list[str]) -> None:
    planned(nih_config(), say=quiet)
    planned(nih_config(workers=2, part="0/2", max_rejects=0.5), say=quiet)
    assert len(times) == 1
    assert planned(nih_config(val_fraction=0.4), say=quiet).split_detail["val_fraction"] == 0.4
    assert len(times) == 2


def test_other_code_makes_another_plan(nih_config, times: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    planned(nih_config(), say=quiet)
    monkeypatch.setattr(standing, "_code", lambda: "later")
    planned(nih_config(), say=quiet)
    assert len(times) == 2


@pytest.mark.parametrize("files", [0, 1, 2, 3])
def test_killed_in_the_midst_of_planning_nothing_half_is_read(
    files: int, nih_config, monkeypatch: pytest.MonkeyPatch, times: list[str]
) -> None:
    class Killed(BaseException):
        pass

    real, written = plan_file.write, []

    def dying(path: Path, table: Any) -> None:
        if len(written) == files:
            path.with_name(f".{path.name}.1-0.tmp").write_bytes(b"half")
            raise Killed
        written.append(path)
        real(path, table)

    monkeypatch.setattr(plan_file, "write", dying)
    monkeypatch.setattr(standing, "write_bytes", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        planned(nih_config(), say=quiet)
    monkeypatch.undo()
    made = planned(nih_config(), say=quiet)
    work = Path(nih_config().out) / ".work"
    marks = {path.name.split("-")[1] for path in [*work.glob("planned-*"), *work.glob(".planned-*")]}
    assert len(marks) == 1 and made.fingerprint == plan(nih_config()).fingerprint


def test_a_damaged_note_or_file_is_planned_again_and_a_damaged_row_is_refused(nih_config, times: list[str]) -> None:
    planned(nih_config(), say=quiet)
    work = Path(nih_config().out) / ".work"
    note = work / standing.NOTE
    note.write_text(note.read_text().replace("train", "traim", 1))
    planned(nih_config(), say=quiet)
    assert len(times) == 2
    next(work.glob("planned-*-inputs.parquet")).write_bytes(b"PAR1")
    made = planned(nih_config(), say=quiet)
    assert len(times) == 3
    file = max(work.glob("planned-*-rows.parquet"), key=lambda path: path.stat().st_mtime_ns)
    data = bytearray(file.read_bytes())
    for at in range(len(data) // 4, len(data) // 4 + 60):
        data[at] ^= 1
    file.write_bytes(data)
    made = planned(nih_config(), say=quiet)
    with pytest.raises(InputError, match="is damaged.*remove it, and run the same command again"):
        convert(made, nih_config(), say=quiet)


def test_a_part_that_comes_while_another_plans_waits_for_that_plan(nih_config, times: list[str]) -> None:
    work = Path(nih_config().out) / ".work"
    work.mkdir(parents=True)
    told: list[str] = []
    found: list[Any] = []
    with locked(work / standing.LOCK, 0) as held:
        assert held
        other = threading.Thread(target=lambda: found.append(planned(nih_config(part="1/2"), say=told.append)))
        other.start()
        end = time.monotonic() + 60
        while not told:
            assert time.monotonic() < end
            time.sleep(0.01)
        standing._make(nih_config(part="0/2"), work, alone=True)
    other.join(60)
    assert times == ["0/2"] and "waiting for its plan" in told[0]
    assert found[0].fingerprint == plan(nih_config()).fingerprint


def test_a_source_that_cannot_be_planned_leaves_no_folder(nih_config, tmp_path: Path) -> None:
    config = nih_config(src=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no such folder"):
        planned(config, say=quiet)
    assert not Path(config.out).exists()


def test_a_complete_set_is_planned_without_leaving_a_trace(nih_config) -> None:
    config = nih_config()
    make(config)
    before = hashes(Path(config.out))
    _, _, told = make(config)
    assert "complete already" in told[-1] and hashes(Path(config.out)) == before
    assert not (Path(config.out) / ".work").exists()
