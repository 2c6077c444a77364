"""Settings and small builders shared by the tests."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pytest

from simulator.running import deciding


@pytest.fixture
def decided(monkeypatch):
    """Names of the layers that were decided, in order."""
    names = []
    made = deciding.execute

    def counted(policy, layer, *rest, **wanted):
        names.append(layer.name)
        return made(policy, layer, *rest, **wanted)

    monkeypatch.setattr(deciding, "execute", counted)
    return names
