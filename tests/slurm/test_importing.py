"""Large imports without the garbage collector."""

import gc
import subprocess
import sys

import pytest

from slurm.importing import large_modules


def test_nothing_is_collected_while_modules_are_imported_and_all_is_afterwards(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    try:
        with pytest.raises(ImportError), large_modules():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() and gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_a_process_that_has_torch_already_goes_on_as_it_was(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", sys)
    frozen = gc.get_freeze_count()
    with large_modules():
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


def test_what_was_imported_is_collected_again_when_the_process_ends():
    program = (
        "import atexit, gc\n"
        "from slurm.importing import large_modules\n"
        "atexit.register(lambda: print(gc.get_freeze_count()))\n"  # runs last
        "with large_modules(): pass\n"
        "assert gc.get_freeze_count()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0"]
