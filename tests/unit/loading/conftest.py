"""What each loader makes of the same images; made once a file."""

from __future__ import annotations

import pytest
from support.loaders import GROWING, STEPS, load, plan_for


@pytest.fixture(scope="module")
def both(tiny_data):
    return {kind: load(kind, plan_for(tiny_data)) for kind in ("dali", "torchvision")}


@pytest.fixture(scope="module")
def growing(tiny_data):
    """Batches of three sides, where one minibatch holds images of two epochs."""
    plan = plan_for(tiny_data, **GROWING)
    return {kind: load(kind, plan, STEPS[0], STEPS[-1] + 1) for kind in ("dali", "torchvision")}
