"""Damaged input of every kind is refused in one line or changes nothing that a number comes from: no traceback.

Each kind is a function of a seed: it damages a good input, gives it to the code that reads such input, and names the
outcome. An error that is not one of ours (or, in a file of numbers, another number) fails. A few inputs of each kind
run with the tests, thousands as `slow`; `python -m tests.fuzz 1000` counts the outcomes for benches/reports/fuzz.md.
"""

from __future__ import annotations

import pytest

from tests.fuzz.kinds import KINDS, outcomes
from tests.fuzz.workplace import Workplace


@pytest.fixture(scope="session")
def workplace(tmp_path_factory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_in_one_line_or_changes_nothing(workplace, kind):
    counts = outcomes(workplace, kind, range(KINDS[kind].quick))
    assert counts["refused"] > 0


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", KINDS)
def test_much_damage_is_refused_in_one_line_or_changes_nothing(workplace, kind):
    assert outcomes(workplace, kind, range(1000, 1000 + 20 * KINDS[kind].quick))["refused"] > 0
