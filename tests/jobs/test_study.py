"""`cxrdist study run` with real, very small stages: failures, going on, interruption, one run at a time."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from jobs import cli
from jobs._study import follow
from jobs._study.folder import StudyFolder

TEXT = """
title = "Drawn pictures"
show = ["{out}/set/dataset.json"]
closing = "Next: look at {out}"
[set]
patients = 2
other.about = "a second set"
[[stage]]
name = "set"
about = "Draw {set-patients} patients"
run = "shard phantom --out {out}/set --patients {set-patients} --size 16 --workers 0"
[[stage]]
name = "broken"
needs = ["set"]
run = "verify {set-other} --decode false"
[[stage]]
name = "compared"
needs = ["broken"]
run = "verify {set-other} --decode false --workers 1"
[[stage]]
name = "aside"
needs = ["set"]
run = "verify {out}/set --decode false"
"""


def states(folder: Path, capsys) -> dict[str, str]:
    capsys.readouterr()
    cli.main(["study", "status", str(folder)])
    lines = capsys.readouterr().out.splitlines()[:-1]
    return {line.split()[0]: line[21:30].strip() for line in lines}


def test_a_failed_stage_stops_only_what_needs_it_and_the_same_command_goes_on(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("study.toml").write_text(TEXT)
    words = "study run study.toml --out o --set other=other".split()
    assert cli.main(words) == 1
    shown = capfd.readouterr()
    assert "stage broken failed; its log is o/logs/broken.log; to repeat it alone:" in shown.err
    assert "    cxrdist verify other --decode false\n" in shown.err
    assert "stage compared was not run: it needs broken" in shown.err
    assert "other" in Path("o/logs/broken.log").read_text(), "the stage's own error is in its log"
    assert states(Path("o"), capfd) == {
        "set": "complete",
        "broken": "failed",
        "compared": "blocked",
        "aside": "complete",
    }
    assert not Path("o/report.html").exists()

    shutil.copytree("o/set", "other")  # the cause is fixed
    drawn = Path("o/set/dataset.json").stat().st_mtime_ns
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # relative paths are still those of the folder it was begun in
    assert cli.main(["study", "run", str(tmp_path / "study.toml"), "--out", str(tmp_path / "o")]) == 0
    shown = capfd.readouterr().out
    assert Path.cwd() == tmp_path
    assert shown.count("(complete)") == 2 and shown.count("\n# done in") == 2
    assert Path("o/set/dataset.json").stat().st_mtime_ns == drawn
    assert '"format_version"' in shown and "Next: look at o" in shown, "what the study shows at its end"
    page = Path("o/report.html").read_text()
    assert "Drawn pictures" in page and "compared" in page and "verify other --decode false" in page
    assert set(states(Path("o"), capfd).values()) == {"complete"}

    before = {path: path.stat().st_mtime_ns for path in Path("o").rglob("*") if path.name != ".lock"}
    assert cli.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a complete study is left as it is"
    shutil.rmtree("o/set")
    assert set(states(Path("o"), capfd).values()) == {"to do"}, "what is made from it is to be made anew as well"
    assert cli.main(["study", "run", "study.toml", "--out", "o", "--set", "other=another"]) == 2
    assert 'set.other is "other" there, "another" here' in capfd.readouterr().err


def test_ctrl_c_ends_the_stage_below_and_the_study_says_how_to_go_on(tmp_path, capfd):
    (tmp_path / "study.toml").write_text(
        '[[stage]]\nname = "long"\nrun = "shard phantom --out {out}/set --patients 4000 --workers 0"\n'
    )
    command = [sys.executable, "-m", "jobs.cli", "study", "run", "study.toml", "--out", "o"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    folder = StudyFolder(tmp_path / "o")
    deadline = time.monotonic() + 120
    while not any((tmp_path / "o").glob("set/**/*.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert states(tmp_path / "o", capfd) == {"long": "running"}
    assert cli.main(["study", "run", str(tmp_path / "study.toml"), "--out", str(tmp_path / "o")]) == 2
    assert "another process is running the study" in capfd.readouterr().err
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) == 1
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 130 and "the same study command goes on" in error
    assert not below[0].is_running()
    assert folder.record("long")["state"] == "stopped"
    assert states(tmp_path / "o", capfd) == {"long": "partly"}


def test_a_study_that_was_killed_is_not_taken_for_running(tmp_path, capfd):
    (tmp_path / "study.toml").write_text('[[stage]]\nname = "look"\nrun = "verify set"\n')
    from jobs._study.file import load

    folder = StudyFolder(tmp_path / "o")
    folder.make()
    folder.freeze(load(tmp_path / "study.toml"))
    folder.write_record("look", {"state": "running"})
    with folder.alone():
        assert folder.is_busy()
    assert not folder.is_busy()
    assert states(tmp_path / "o", capfd) == {"look": "partly"}


def test_the_stage_of_a_study_that_was_killed_ends_and_until_then_keeps_a_second_run_out(tmp_path, capfd):
    (tmp_path / "study.toml").write_text(
        '[[stage]]\nname = "long"\nrun = "shard phantom --out {out}/set --patients 4000 --workers 0"\n'
    )
    words = ["study", "run", str(tmp_path / "study.toml"), "--out", str(tmp_path / "o")]
    in_background = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]  # as a script's `cxrdist study run ... &`
    process = subprocess.Popen([*in_background, sys.executable, "-m", "jobs.cli", *words], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any((tmp_path / "o").glob("set/**/*.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    [stage] = psutil.Process(process.pid).children(recursive=True)
    stage.suspend()  # it cannot end yet
    process.kill()
    process.wait()
    assert states(tmp_path / "o", capfd) == {"long": "running"}
    assert cli.main(words) == 2
    assert f"still works (process {stage.pid} on " in capfd.readouterr().err
    stage.resume()
    psutil.wait_procs([stage], timeout=60)
    assert not stage.is_running(), "the kernel told it that its study is gone"
    assert states(tmp_path / "o", capfd) == {"long": "partly"}


@pytest.mark.parametrize("terminal", [False, True])
def test_what_a_stage_prints_is_seen_and_kept(tmp_path, monkeypatch, capfdbinary, terminal):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    log = tmp_path / "logs" / "one.log"
    assert follow.follow(["--version"], log, tmp_path / "lock", "one", follow.Asked()) == 0
    assert follow.follow(["nonsense"], log, tmp_path / "lock", "two", follow.Asked()) == 2
    kept = log.read_text().splitlines()
    assert kept[0] == "# one" and kept[1].startswith("cxrdist 0") and kept[2] == "# two"
    assert "no command 'nonsense'" in kept[3]
    shown = capfdbinary.readouterr().out
    assert b"cxrdist 0" in shown and b"no command 'nonsense'" in shown


def test_a_log_keeps_the_last_state_of_a_progress_bar():
    kept: list[bytes] = []
    lines = follow._Lines(kept.append)
    for chunk in (b"\r 10 %", b"\r 55 %\r100", b" %\nnext\r\n", b"\x1b[31mred\x1b[0m\nlast"):
        lines.take(chunk)
    lines.close()
    assert b"".join(kept) == b"100 %\nnext\nred\nlast\n"


def test_a_study_under_nohup_goes_on_when_its_terminal_is_closed():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with follow.Asked().listening() as asked:
            signal.raise_signal(signal.SIGHUP)
            assert asked.times == 0
            signal.raise_signal(signal.SIGTERM)
            assert asked.times == 1
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
