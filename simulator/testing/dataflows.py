"""What every dataflow of the array must keep, as a base class for the tests of one's own.

In a file of tests::

    class TestRowStationary(DataflowSuite):
        dataflow = RowStationary()

pytest finds the class and runs every test of it; nothing here needs pytest itself.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import ClassVar

import numpy as np

from accelerators import FOLD_TIMINGS, Accelerator, ConfigError, SystolicArray, preset
from simulator.timing.dataflows import DATAFLOWS, Dataflow
from simulator.timing.engines.engine import COMPILED, EVENT
from simulator.timing.pipeline import layer_timing
from simulator.timing.transfers import byte_count
from workloads.traces.layer import Gemm, Layer

# Sizes (m, n, k) of products: less than an array, as much, more, and no multiple.
PRODUCTS = tuple(product((1, 4, 9, 40), (1, 5, 33), (1, 4, 23)))


class DataflowSuite:
    """A dataflow keeps its promises on arrays of several shapes.

    Attributes:
        dataflow: the one under test, which is registered.
        shapes: rows and columns of the arrays.
    """

    dataflow: ClassVar[Dataflow]
    shapes: ClassVar[tuple[tuple[int, int], ...]] = ((4, 4), (8, 3), (1, 5))

    def arrays(self) -> Iterator[SystolicArray]:
        """Arrays of every shape, under both ways in which folds follow each other."""
        for (rows, columns), folds in product(self.shapes, FOLD_TIMINGS):
            yield SystolicArray(
                rows=rows, columns=columns, dataflow=self.dataflow.name, fold_timing=folds
            )

    def design(self, array: SystolicArray) -> Accelerator:
        """A design with the array."""
        return replace(preset("dense_16x16"), array=array)

    def test_it_goes_by_its_name(self) -> None:
        """Designs name it, and the array knows what stays."""
        assert type(DATAFLOWS[self.dataflow.name]) is type(self.dataflow), "put @register over it"
        for array in self.arrays():
            self.design(array)

    def test_no_unit_multiplies_twice_a_cycle(self) -> None:
        """A product takes at least its operations over the units, and a cycle a fold."""
        for array, (m, n, k) in product(self.arrays(), PRODUCTS):
            cycles, latency = self.dataflow.cycles(array, m, n, k)
            assert cycles * array.rows * array.columns >= m * n * k
            assert cycles >= self.dataflow.folds(array, m, n, k) >= 1
            assert latency >= 0

    def test_a_larger_product_is_not_faster(self) -> None:
        """More rows, columns or elements never take fewer cycles."""
        for array, sizes, axis in product(self.arrays(), PRODUCTS, range(3)):
            larger = [size + (place == axis) for place, size in enumerate(sizes)]
            assert self.dataflow.cycles(array, *larger)[0] >= self.dataflow.cycles(array, *sizes)[0]
            assert self.dataflow.folds(array, *larger) >= self.dataflow.folds(array, *sizes)

    def test_many_products_are_each_as_alone(self) -> None:
        """Every method takes arrays."""
        m, n, k = np.array(PRODUCTS, np.int64).T
        for array in self.arrays():
            design = self.design(array)
            buffers = {"inputs": design.activation_buffer, "sums": design.output_buffer}
            for found, alone in (
                (
                    self.dataflow.cycles(array, m, n, k),
                    [self.dataflow.cycles(array, *each) for each in PRODUCTS],
                ),
                (
                    self.dataflow.product_bytes(design, m, n, k, **buffers),
                    [self.dataflow.product_bytes(design, *each, **buffers) for each in PRODUCTS],
                ),
            ):
                np.testing.assert_array_equal(np.stack(found, axis=1), np.array(alone))

    def test_operands_and_results_pass_their_buffers(self) -> None:
        """Every element is read at least once, every result written, updates read what is there."""
        for array, (m, n, k) in product(self.arrays(), PRODUCTS):
            design = self.design(array)
            operand, sums = design.operand_bits, design.accumulator_bits
            inputs, weights, written, read = self.dataflow.product_bytes(
                design, m, n, k, inputs=design.activation_buffer, sums=design.output_buffer
            )
            assert inputs >= byte_count(m * k, operand)
            assert weights >= byte_count(k * n, operand)
            assert written >= byte_count(m * n, sums)
            assert 0 <= read <= written
            each, kept = self.dataflow.register_bits(operand, sums, m, n, k)
            assert each > 0 and kept > 0
            assert min(self.dataflow.loads(array, m, n)) >= 1
            assert min(*self.dataflow.streams(array), *self.dataflow.fed(array)) >= 1

    def test_a_product_that_is_left_out_moves_nothing(self) -> None:
        """No columns: nothing is read or written."""
        for array in self.arrays():
            design = self.design(array)
            moved = self.dataflow.product_bytes(
                design, 5, 0, 7, inputs=design.activation_buffer, sums=design.output_buffer
            )
            assert not any(moved)

    def test_buffers_that_do_not_feed_it_are_refused(self) -> None:
        """Two of what the array takes at once must fit."""
        for array in self.arrays():
            design = self.design(array)
            for needed, name in zip(
                self.dataflow.fed(array), ("activation_buffer", "weight_buffer"), strict=True
            ):
                least = 2 * byte_count(needed, design.operand_bits)
                buffer = replace(getattr(design, name), width_bits=8, ports=1)
                enough = replace(design, **{name: replace(buffer, capacity_bytes=least)})
                layer_timing(self.layer(4, 5, 6), None, enough)
                small = replace(design, **{name: replace(buffer, capacity_bytes=least - 1)})
                try:
                    layer_timing(self.layer(4, 5, 6), None, small)
                except ConfigError as error:
                    assert f"{name}.capacity_bytes must hold" in str(error)
                else:
                    raise AssertionError(f"{name} of {least - 1} bytes must be refused")

    def test_both_engines_agree_on_layers(self) -> None:
        """Cycles, and what they are to blame on, are the same, and all cycles are blamed."""
        for array, sizes in product(self.arrays(), PRODUCTS[::5]):
            one, other = (
                layer_timing(self.layer(*sizes), None, self.design(array), engine)
                for engine in (COMPILED, EVENT)
            )
            assert one.critical_cycles == other.critical_cycles
            assert sum(one.critical_cycles.values()) == one.cycles == other.cycles
            assert one.cycles * array.rows * array.columns >= one.macs

    @staticmethod
    def layer(m: int, n: int, k: int) -> Layer:
        """A linear layer of a size."""
        return Layer(
            name="fc",
            kind="linear",
            gemm=Gemm(m=m, n=n, k=k),
            images=1,
            row_images=1,
            input_shape=(m, k),
            output_shape=(m, n),
            weights_are_parameters=True,
        )
