"""Optuna's published suite for samplers, on those that are this project's own.

All of it but `SingleOnlySamplerTestCase` applies, as each takes several objectives. A search knows
its space before the first trial, so the samplers are told it and infer none: where the suite finds
its parameters while it runs (define-by-run), they answer by independent sampling, as Optuna asks of
a sampler that does not know one; what they answer to a space is tested by the suite's direct calls
of `sample_relative`. Beyond the startup trials `codesign.testing` tests them, in two objectives:
the suite's own studies have one, of which there is no hypervolume.
"""

import importlib.util

import pytest
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from codesign.optimisers.gp import ImprovementSampler
from codesign.optimisers.optimiser import Problem
from codesign.optimisers.qlognehvi import QLogNehviSampler
from codesign.optimisers.sobol import SobolSampler

PROBLEM = Problem(distributions={}, maximise=(False,), reference_point=(0.0,))


class Suite(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    pass


class TestSobolSampler(Suite):
    @pytest.fixture
    def sampler(self):
        return lambda: SobolSampler(PROBLEM, seed=0)


class TestImprovementSampler(Suite):
    @pytest.fixture
    def sampler(self):
        return lambda: ImprovementSampler(PROBLEM, seed=0, sobol_seed=0)


@pytest.mark.skipif(importlib.util.find_spec("botorch") is None, reason="needs botorch")
class TestQLogNehviSampler(Suite):
    @pytest.fixture
    def sampler(self):
        return lambda: QLogNehviSampler(PROBLEM, seed=0)

    def test_sample_relative_numerical(self):
        pytest.skip("it answers nothing before its startup trials")

    test_sample_relative_categorical = test_sample_relative_numerical
    test_sample_relative_mixed = test_sample_relative_numerical
