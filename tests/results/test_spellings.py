"""What users import keeps working, and asking for a name loads no pandas and no matplotlib."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_kept_spellings_are_the_functions_themselves() -> None:
    import results
    from results.figures import draw
    from results.options import Options
    from results.render import render
    from results.tables import build

    assert build is results.tables.registry.build and draw is results.figures.registry.draw
    assert Options is results.cells.options.Options and render is results.tables.render.render
    assert results.load is results.collect.load and results.Run is results.run.Run


def test_help_of_table_and_plot_loads_no_table_and_no_figure() -> None:
    code = (
        "import sys; from jobs import cli\n"
        "for name in ('table', 'plot', 'report', 'collect'): assert cli.main([name, '--help']) == 0\n"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'matplotlib', 'results.tables.pivot'} & set(sys.modules)\n"
        "sys.stderr.write(repr(sorted(heavy)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == "[]"
    for name in ("label-efficiency", "peak-accuracy", "threshold-sweep", "history"):
        assert name in done.stdout
