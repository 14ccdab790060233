"""A short slice of tests/kills.py: killed at random moments and given again, a command ends as the unbroken one."""

from __future__ import annotations

import pytest

from tests import kills


def test_embedding_killed_four_times() -> None:
    found = kills.run("embedding", 4)
    assert found.kills.total() == 4
    assert found.runs > 0
    assert found.unequal == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pretrain", "photos", "linear", "detection", "segmentation"])
def test_trainings_killed_eight_times(kind: str) -> None:
    found = kills.run(kind, 8)
    assert found.kills.total() == 8
    assert found.unequal == 0
