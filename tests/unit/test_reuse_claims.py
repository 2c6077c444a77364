"""A policy is priced by what it decides, not by what it says of itself."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from accelerators import ConfigError
from simulator import KMeansReuse, LshReuse, Signatures, Static, SubVectorPolicy, decide
from simulator.kernels.grouping import group_equal
from tests.builders import matrix_layer
from tests.small_search import small_workload


@dataclass(frozen=True, kw_only=True)
class Rounded(SubVectorPolicy):
    """Sub-vectors that start with the same whole number share a result."""

    kind: ClassVar[str] = "rounded"
    hashes: int | None = None
    projection: str | None = None
    signatures: str = "keys"

    def clusterer(self, layer, groups, state):
        length = self.length_in(layer)

        def cluster(index, columns, order):
            keys = np.rint(np.abs(columns[order][::length])).astype(np.uint64)
            made = group_equal(keys, columns[order], length, groups, self.representative)
            if self.signatures == "none":
                made = replace(made, signatures=np.zeros_like(made.signatures))
            return made

        return cluster

    def evidence(self, layer, signatures):
        if self.hashes is None:
            return Static()
        return Signatures(hashes=self.hashes, projection=self.projection, values=signatures)


class Cheaper(LshReuse):
    """Claims a smaller front-end than it needs."""

    def evidence(self, layer, signatures):
        return replace(super().evidence(layer, signatures), hashes=2)


def decisions(policy):
    workload = small_workload()
    run = decide(workload.trace, policy, calibration=workload.calibration)
    return [made for made in run.decisions.values() if made is not None]


def test_what_is_decided_so_is_accepted():
    assert decisions(Rounded(length=4))
    assert decisions(Rounded(length=4, hashes=62, projection="sign"))
    assert decisions(LshReuse(hashes=10, length=4))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (
            Rounded(length=4, hashes=10, projection="sign", signatures="none"),
            "must have a signature for each cluster, as hashing units with hashes=10",
        ),
        (Rounded(length=4, hashes=10, projection="magic"), "projection must be one of 'sign'"),
        (Rounded(length=4, hashes=10), "projection must be one of"),
        (Rounded(length=4, hashes=63, projection="sign"), "hashes must be an integer from 1 to 62"),
        (Rounded(length=4, hashes=True, projection="sign"), "hashes must be an integer"),
        (Cheaper(hashes=10, length=4), "must have signatures of hashes=2 bits, got"),
        (Cheaper(hashes=10, length=4, scope="batch"), "must have signatures of hashes=2 bits"),
        (Cheaper(hashes=10, length=4, representative="first"), "signatures of hashes=2 bits"),
        (Cheaper(hashes=10, length=4, scope="stream"), "signatures of hashes=2 bits"),
    ],
)
def test_claims_that_the_decisions_do_not_bear_out(policy, message):
    with pytest.raises(ConfigError, match=message):
        decisions(policy)


def test_policies_that_no_hardware_builds_claim_nothing():
    layer = matrix_layer("fc", 8, 4, 4)
    rows = np.arange(32, dtype=np.float32).reshape(1, 8, 4)
    KMeansReuse(clusters=2, length=4).decide(layer, rows, {}).check_claims()
