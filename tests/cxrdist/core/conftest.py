"""A published architecture that several tests of published weights read."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cxrdist.publishers import shaken


@pytest.fixture(scope="module")
def resnet() -> Any:
    from torchvision.models import resnet18

    return shaken(resnet18())
