"""Settings and small builders shared by the tests."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pytest

from simulator.running import executor


@pytest.fixture
def decided(monkeypatch):
    """Names of the layers that were decided, in order."""
    names = []
    made = executor.execute

    def counted(policy, layer, *rest, **wanted):
        names.append(layer.name)
        return made(policy, layer, *rest, **wanted)

    monkeypatch.setattr(executor, "execute", counted)
    return names


@pytest.fixture(scope="module")
def on_ray():
    """A Ray of two CPUs on this machine, for all tests of a file."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
    )
    yield
    ray.shutdown()
