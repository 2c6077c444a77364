"""Inputs stay in the array; columns of weights stream through it."""

from simulator.timing.dataflows.dataflow import Dataflow, folded_cycles, register
from simulator.timing.transfers import access_bytes, ceil_div


@register
class InputStationary(Dataflow):
    """A fold holds R by C inputs; its sums add to those of the folds before."""

    name = "input_stationary"
    stays = "inputs"

    def folds(self, array, m, n, k):
        """ceil(k/R) ceil(m/C)."""
        return ceil_div(k, array.rows) * ceil_div(m, array.columns)

    def cycles(self, array, m, n, k):
        """A fold streams n columns; sequential: ceil(k/R) ceil(m/C) (2R + C + n - 2)."""
        return folded_cycles(array, stationary=k, across=m, streamed=n, loaded=True)

    def product_bytes(self, accelerator, m, n, k, *, inputs, sums):
        """Inputs are read once, weights for every column of folds; sums for every row of folds."""
        rows, columns = accelerator.array.rows, accelerator.array.columns
        operand, weights = accelerator.operand_bits, accelerator.weight_buffer
        result = n * access_bytes(m, columns, accelerator.accumulator_bits, sums)
        return (
            k * access_bytes(m, columns, operand, inputs) * (n > 0),
            n * ceil_div(m, columns) * access_bytes(k, rows, operand, weights),
            result * ceil_div(k, rows),
            result * (ceil_div(k, rows) - 1),
        )

    def register_bits(self, operand_bits, accumulator_bits, m, n, k):
        """An input is read, a weight and a sum pass."""
        return 3 * operand_bits + 2 * accumulator_bits, k * m * operand_bits

    def fed(self, array):
        """Weights stream by the rows."""
        return array.rows * array.columns, array.rows

    def streams(self, array):
        """Inputs of a fold are loaded by the columns."""
        return array.columns, array.rows

    def loads(self, array, rows, columns):
        """Each column of folds streams the weights."""
        return 1, ceil_div(rows, array.columns)
