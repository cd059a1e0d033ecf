"""What a person sees of long work who reads a log, where there is no terminal."""

from __future__ import annotations

from shards import progress
from shards.progress import Progress


def test_a_log_has_a_line_now_and_then_and_none_of_quick_work(monkeypatch, capsys):
    with Progress(4, "drawn", unit="image") as shown:
        shown.add(4)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    with Progress(4, "drawn", unit="image") as shown:
        shown.add(1)
        shown.add(2, bad=1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("drawn 1 of 4, ") and lines[1].startswith("drawn 3 of 4, ")
    assert lines[1].endswith("/s, bad 1")


def test_lines_go_where_it_is_said_and_nowhere_when_quiet(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    said: list[str] = []
    for quiet in (True, False):
        with Progress(2, "drawn", said.append, quiet=quiet) as shown:
            shown.add(1)
    assert len(said) == 1 and capsys.readouterr().err == ""
