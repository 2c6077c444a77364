"""The suite of policies that decide on layers, and what is asked of each kind beside."""

import json
from typing import ClassVar

import numpy as np
import pytest

from accelerators import ConfigError
from simulator.decisions.box import Decisions
from simulator.decisions.evidence import Evidence
from simulator.policies.activations import Activations
from simulator.policies.policy import LayerMemory, NoReuse, PerLayer, ReusePolicy
from simulator.running.executor import Executed, execute
from simulator.running.product import product
from simulator.running.stream_memory import StreamMemory, load_memory, save_memory
from simulator.testing.examples import (
    conv_layer,
    decide_on,
    example_rows,
    example_state,
    example_weights,
)
from simulator.testing.reference import reference_macs, reference_product
from workloads.traces.layer import Layer

# Float32 sums of few products of order one.
_TOLERANCE = 1e-4


class PolicySuite:
    """What every policy keeps.

    Attributes:
        policy: the policy, bold enough to take something off `layer`.
        exact: the same with a setting that takes nothing off; `None` where there is none.
        exact_tolerance: how far its results may be from dense, relative and absolute: 0, bit for
            bit, unless sums are cut in pieces.
        bolder: settings that leave less and less work, after `policy`.
        layer: what it decides on; a convolution of two images by default.
    """

    policy: ClassVar[ReusePolicy]
    exact: ClassVar[ReusePolicy | None] = None
    exact_tolerance: ClassVar[float] = 0.0
    bolder: ClassVar[tuple[ReusePolicy, ...]] = ()
    layer: ClassVar[Layer] = conv_layer()

    def batch(self, policy: ReusePolicy, seed: int, memory: LayerMemory | None = None) -> Executed:
        """What becomes of a batch of the layer's inputs."""
        layer = self.layer
        shape = layer.input_shape
        given = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        return execute(
            policy,
            layer,
            Activations(layer, given),
            example_state(policy, layer),
            memory,
            lambda: example_weights(layer),
            wants_result=True,
            centroids=True,
        )

    def decisions(self, policy: ReusePolicy, rows: np.ndarray) -> Decisions:
        """Those on rows; some must be made."""
        made = decide_on(policy, self.layer, rows)
        assert made is not None, f"{policy} must decide something on {self.layer}"
        return made

    @pytest.mark.parametrize("seed", range(3))
    def test_results_and_work_are_those_of_plain_loops(self, seed):
        rows, weights = example_rows(self.layer, seed), example_weights(self.layer, seed)
        made = self.decisions(self.policy, rows)
        found = product(made, rows, weights)
        np.testing.assert_allclose(
            found, reference_product(made, rows, weights), _TOLERANCE, _TOLERANCE
        )
        assert made.macs == reference_macs(made) <= self.layer.gemm.macs
        assert 0 <= made.remaining_ratio <= 1
        bare = made.without_operands()
        assert (bare.macs, bare.units) == (made.macs, made.units)

    def test_nothing_taken_off_is_dense(self):
        if self.exact is None:
            pytest.skip("no setting takes nothing off")
        rows, weights = example_rows(self.layer, 5), example_weights(self.layer)
        made = decide_on(self.exact, self.layer, rows, calibration=rows)
        if made is None:
            return
        assert made.macs == self.layer.gemm.macs
        np.testing.assert_allclose(
            product(made, rows, weights),
            np.matmul(rows, weights),
            rtol=self.exact_tolerance,
            atol=self.exact_tolerance,
        )

    def test_bolder_settings_leave_less_work(self):
        rows = example_rows(self.layer, 6)
        work = [self.decisions(each, rows).macs for each in (self.policy, *self.bolder)]
        assert work == sorted(work, reverse=True)
        assert len(set(work)) == len(work)

    def test_same_rows_same_decisions(self):
        rows = example_rows(self.layer, 1)
        same_decisions(*(decide_on(self.policy, self.layer, rows) for _ in range(2)))

    def test_memory_saved_and_resumed_goes_on_the_same(self, tmp_path):
        before = self.batch(self.policy, 1)
        memory = before.memory
        if memory is not None:
            kept = StreamMemory(
                policy=self.policy.describe(), states={}, tables={self.layer.name: memory}
            )
            save_memory(kept, tmp_path / "memory")
            resumed = load_memory(tmp_path / "memory")
            resumed.check_policy(self.policy.describe())
            memory = resumed.tables[self.layer.name]
        straight, again = (self.batch(self.policy, 2, held) for held in (before.memory, memory))
        same_decisions(straight.decisions, again.decisions)
        np.testing.assert_array_equal(straight.result, again.result)

    def test_of_two_equal_batches_the_second_costs_no_more(self):
        first = self.batch(self.policy, 3)
        second = self.batch(self.policy, 3, first.memory)
        third = self.batch(self.policy, 3, second.memory)
        work = [
            self.layer.gemm.macs if made.decisions is None else made.decisions.macs
            for made in (first, second, third)
        ]
        assert work[0] >= work[1] == work[2]
        if first.result is None or second.result is None:
            return
        np.testing.assert_allclose(second.result, first.result, _TOLERANCE, _TOLERANCE)

    def test_description_survives_json(self):
        described = self.policy.describe()
        assert isinstance(described["policy"], str)
        assert json.loads(json.dumps(described)) == described

    def test_evidence_names_units(self):
        made = self.decisions(self.policy, example_rows(self.layer, 11))
        assert isinstance(made.evidence, Evidence)
        assert isinstance(made.evidence.words, str)
        assert all(isinstance(unit, str) for unit in made.units)
        assert set(made.evidence.units) <= set(made.units)

    def test_works_within_per_layer(self):
        inside = PerLayer({self.layer.name: self.policy}, default=NoReuse())
        inside.check_layers([self.layer])
        rows = example_rows(self.layer, 6)
        same_decisions(*(decide_on(each, self.layer, rows) for each in (self.policy, inside)))
        with pytest.raises(ConfigError, match="must match a layer"):
            PerLayer({"stem.*": self.policy}).check_layers([self.layer])

    def test_state_is_arrays_and_can_be_saved(self, tmp_path):
        from safetensors.numpy import load_file, save_file

        layer, rows = self.layer, example_rows(self.layer, 7)
        state = self.policy.calibrate(layer, example_rows(layer, 8), lambda: example_weights(layer))
        assert bool(state) >= self.policy.needs_calibration(layer)
        save_file({name: np.ascontiguousarray(x) for name, x in state.items()}, tmp_path / "state")
        loaded = load_file(tmp_path / "state")
        same_decisions(*(self.policy.decide(layer, rows, each) for each in (state, loaded)))


class RowSuite(PolicySuite):
    """Beside it, of policies that share, fill in or keep rows."""

    def test_rows_are_decided_on(self):
        made = self.decisions(self.policy, example_rows(self.layer, 4))
        assert made.rows is not None and made.columns is None and made.depth is None
        assert made.units

    def test_rows_of_zeros_are_exact(self):
        rows = np.zeros_like(example_rows(self.layer, 0))
        made = decide_on(self.policy, self.layer, rows, calibration=example_rows(self.layer, 4))
        assert made is None or not product(made, rows, example_weights(self.layer)).any()

    def test_equal_rows_are_exact(self):
        row = example_rows(self.layer, 3)[:, :1]
        rows = np.tile(row, (1, self.layer.gemm.m, 1))
        weights = example_weights(self.layer)
        made = decide_on(self.policy, self.layer, rows)
        if made is not None:
            np.testing.assert_allclose(
                product(made, rows, weights), rows @ weights, _TOLERANCE, _TOLERANCE
            )


class ColumnSuite(PolicySuite):
    """Beside it, of policies that drop columns or let them share."""

    def test_computed_columns_are_dense_and_others_their_source(self):
        rows, weights = example_rows(self.layer, 4), example_weights(self.layer)
        made = self.decisions(self.policy, rows)
        assert made.columns is not None
        found, dense = product(made, rows, weights), np.matmul(rows, weights)
        runs = np.repeat(made.columns.sources, self.layer.gemm.m // made.columns.groups, axis=0)
        for row, sources in enumerate(runs):
            for column, source in enumerate(sources):
                expected = dense[:, row, source] if source >= 0 else 0
                np.testing.assert_array_equal(found[:, row, column], expected)


class DepthSuite(PolicySuite):
    """Beside it, of policies that end sums early or skip them."""

    def test_whole_sums_are_dense_and_skipped_ones_zero(self):
        rows, weights = example_rows(self.layer, 4), example_weights(self.layer)
        made = self.decisions(self.policy, rows)
        assert made.depth is not None
        found, dense = product(made, rows, weights), np.matmul(rows, weights)
        terms = np.broadcast_to(made.depth.terms, found.shape)
        whole = terms == made.gemm.k
        np.testing.assert_array_equal(found[whole], dense[whole])
        assert not found[terms == 0].any()
        assert made.macs == terms.sum(dtype=np.int64)


def same_decisions(first: Decisions | None, second: Decisions | None) -> None:
    """Assert that every array of two decisions is equal."""
    if first is None or second is None:
        assert first is second
        return
    for axis in ("rows", "columns", "depth", "weights", "evidence"):
        one, other = getattr(first, axis), getattr(second, axis)
        assert type(one) is type(other)
        for name, value in ({} if one is None else vars(one)).items():
            np.testing.assert_array_equal(value, getattr(other, name), f"{axis}.{name}")
