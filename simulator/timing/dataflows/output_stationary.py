"""Partial sums stay in the array; inputs and weights stream through it."""

from simulator.timing.dataflows.dataflow import Dataflow, folded_cycles, register
from simulator.timing.transfers import access_bytes, ceil_div


@register
class OutputStationary(Dataflow):
    """A fold holds R by C sums until they are complete."""

    name = "output_stationary"
    stays = "outputs"

    def folds(self, array, m, n, k):
        """ceil(m/R) ceil(n/C)."""
        return ceil_div(m, array.rows) * ceil_div(n, array.columns)

    def cycles(self, array, m, n, k):
        """A fold streams k elements; sequential: ceil(m/R) ceil(n/C) (R + C + k - 2)."""
        return folded_cycles(array, stationary=m, across=n, streamed=k, loaded=False)

    def product_bytes(self, accelerator, m, n, k, *, inputs, sums):
        """Inputs are read for every column of folds, weights for every row; sums leave once."""
        rows, columns = accelerator.array.rows, accelerator.array.columns
        operand, weights = accelerator.operand_bits, accelerator.weight_buffer
        result = m * access_bytes(n, columns, accelerator.accumulator_bits, sums)
        return (
            k * ceil_div(n, columns) * access_bytes(m, rows, operand, inputs),
            k * ceil_div(m, rows) * access_bytes(n, columns, operand, weights),
            result,
            0 * result,
        )

    def register_bits(self, operand_bits, accumulator_bits, m, n, k):
        """Two operands pass; a sum is read and written, and read once to leave."""
        return 4 * operand_bits + 2 * accumulator_bits, m * n * accumulator_bits

    def fed(self, array):
        """Both stream, inputs by the rows, weights by the columns."""
        return array.rows, array.columns

    def streams(self, array):
        """Both stream, inputs by the rows, weights by the columns."""
        return array.rows, array.columns

    def loads(self, array, rows, columns):
        """Each column of folds streams the inputs, each row of folds the weights."""
        return ceil_div(columns, array.columns), ceil_div(rows, array.rows)
