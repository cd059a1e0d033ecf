"""Large imports without the garbage collector."""

import gc
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
