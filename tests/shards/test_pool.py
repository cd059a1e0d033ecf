"""Worker processes of a conversion."""

from __future__ import annotations

from shards.processes import run_jobs
from tests.shadows import shadows


def test_workers_take_no_module_from_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(shadows(tmp_path))
    assert sorted(run_jobs([(len, "ab"), (len, "abc")], workers=2)) == [("ab", 2), ("abc", 3)]
