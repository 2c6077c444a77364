"""Weights stay in the array; rows of inputs stream through it."""

from simulator.timing.dataflows.dataflow import Dataflow, folded_cycles, register
from simulator.timing.transfers import access_bytes, ceil_div


@register
class WeightStationary(Dataflow):
    """A fold holds R by C weights; its sums add to those of the folds before."""

    name = "weight_stationary"
    stays = "weights"

    def folds(self, array, m, n, k):
        """ceil(k/R) ceil(n/C)."""
        return ceil_div(k, array.rows) * ceil_div(n, array.columns)

    def cycles(self, array, m, n, k):
        """A fold streams m rows; sequential: ceil(k/R) ceil(n/C) (2R + C + m - 2)."""
        return folded_cycles(array, stationary=k, across=n, streamed=m, loaded=True)

    def product_bytes(self, accelerator, m, n, k, *, inputs, sums):
        """Inputs are read for every column of folds, weights once; sums for every row of folds."""
        rows, columns = accelerator.array.rows, accelerator.array.columns
        operand, weights = accelerator.operand_bits, accelerator.weight_buffer
        result = m * access_bytes(n, columns, accelerator.accumulator_bits, sums)
        return (
            m * ceil_div(n, columns) * access_bytes(k, rows, operand, inputs),
            k * access_bytes(n, columns, operand, weights),
            result * ceil_div(k, rows),
            result * (ceil_div(k, rows) - 1),
        )

    def register_bits(self, operand_bits, accumulator_bits, m, n, k):
        """A weight is read, an input and a sum pass."""
        return 3 * operand_bits + 2 * accumulator_bits, k * n * operand_bits

    def fed(self, array):
        """Inputs stream by the rows."""
        return array.rows, array.rows * array.columns

    def streams(self, array):
        """Weights of a fold are loaded by the columns."""
        return array.rows, array.columns

    def loads(self, array, rows, columns):
        """Each column of folds streams the inputs."""
        return ceil_div(columns, array.columns), 1
