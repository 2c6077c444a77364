"""What a dataflow of the array says of a product, and the dataflows that there are by name."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeVar

import numpy as np

from accelerators import Accelerator, ConfigError, SramBuffer, SystolicArray
from accelerators.rules import refuse
from accelerators.units.array import register_dataflow
from simulator.timing.transfers import byte_count, ceil_div


class Dataflow(ABC):
    """Which operand stays in the array, and what follows: cycles, and what its buffers move.

    The array multiplies an `(m, k)` by a `(k, n)` matrix, the inputs by the weights. Sizes are at
    least 1, or arrays of such; every method works element by element. A dataflow of a user's own is
    a subclass under `@register`; designs name it in `SystolicArray.dataflow`, and
    `simulator.testing.dataflows.DataflowSuite` checks it.

    Attributes:
        name: in `SystolicArray.dataflow`.
        stays: the operand that stays, `weights`, `inputs` or `outputs`; overlapped folds double its
            register.
    """

    name: ClassVar[str]
    stays: ClassVar[str]

    @abstractmethod
    def folds(self, array: SystolicArray, m: Any, n: Any, k: Any) -> Any:
        """How often the array takes a new stationary tile for a product."""

    @abstractmethod
    def cycles(self, array: SystolicArray, m: Any, n: Any, k: Any) -> tuple[Any, Any]:
        """Cycles of a product under `SystolicArray.fold_timing`.

        Returns:
            (occupancy, latency): cycles until the array takes the next product, and cycles after
            that until the last result is there.
        """

    @abstractmethod
    def product_bytes(
        self,
        accelerator: Accelerator,
        m: Any,
        n: Any,
        k: Any,
        *,
        inputs: SramBuffer,
        sums: SramBuffer,
    ) -> tuple[Any, Any, Any, Any]:
        """Bytes of all accesses that feed the array with a product; see `access_bytes`.

        Args:
            accelerator: the design.
            m: rows.
            n: columns; 0 where nothing is multiplied.
            k: elements of a row.
            inputs: the buffer that rows are read from.
            sums: the buffer that partial sums are kept in.

        Returns:
            Bytes read from `inputs`, read from the weight buffer, written to `sums`, and read back
            from there by every update but the first.
        """

    @abstractmethod
    def register_bits(
        self, operand_bits: int, accumulator_bits: int, m: Any, n: Any, k: Any
    ) -> tuple[int, Any]:
        """Bits that the units' registers read and write.

        For an operation a unit reads what stays in it, and reads and writes the two that pass: an
        operand and a partial sum, or two operands by a sum that it reads and writes as well. What
        stays is written once a fold, or read once where it is the sum.

        Returns:
            Bits an operation, and bits a product for what stays.
        """

    @abstractmethod
    def fed(self, array: SystolicArray) -> tuple[Any, Any]:
        """Elements of inputs, and of weights, that the array takes at once.

        A fold of the operand that stays, and a slice, one element for each row or column that it
        enters by, of one that streams.
        """

    @abstractmethod
    def streams(self, array: SystolicArray) -> tuple[Any, Any]:
        """Elements of inputs, and of weights, that enter the array in a cycle at most."""

    @abstractmethod
    def loads(self, array: SystolicArray, rows: Any, columns: Any) -> tuple[Any, Any]:
        """Folds of a tile that stream its inputs, and its weights: how often each is read."""


DATAFLOWS: dict[str, Dataflow] = {}

Registered = TypeVar("Registered", bound=type[Dataflow])


def register(kind: Registered) -> Registered:
    """Let designs name a dataflow; a decorator of its class.

    Raises:
        ConfigError: another class has its name. A class that is loaded again takes its own place.
    """
    known = DATAFLOWS.get(kind.name)
    if known is not None and type(known).__qualname__ != kind.__qualname__:
        raise ConfigError(
            f"{kind.__name__}.name must be its own, got {kind.name!r}, which is "
            f"{type(known).__name__}; name it otherwise"
        )
    DATAFLOWS[kind.name] = kind()
    register_dataflow(kind.name, stays=kind.stays)
    return kind


def dataflow_of(array: SystolicArray) -> Dataflow:
    """What is known of an array's dataflow."""
    return DATAFLOWS[array.dataflow]


def gemm_cycles(array: SystolicArray, m, n, k):
    """Cycles of an `(m, k)` by `(k, n)` product: `Dataflow.cycles` of the array's own dataflow."""
    return dataflow_of(array).cycles(array, m, n, k)


def folded_cycles(array: SystolicArray, *, stationary, across, streamed, loaded: bool):
    """Cycles of a product whose folds hold `stationary` by `across` elements and stream the rest.

    `sequential` folds, as SCALE-Sim 3.0.0 counts them on R rows and C columns: a fold loads its
    stationary tile (R cycles; none for outputs), streams the rest through the skewed array, and is
    charged in full however little of the array it uses: (2R + C + streamed - 2), and
    (R + C + streamed - 2) for outputs.

    `overlapped` folds, this project's own model: with r rows and c columns in use, a fold takes as
    many cycles as it streams, or as its successor's stationary tile takes to load (r), whichever
    is longer; loading the first tile, and skew (r + c - 2), are paid once a product, and delay its
    results but not the next product. Finished outputs leave on wires of their own.

    Args:
        array: its size and how its folds follow each other.
        stationary: elements along the array's rows.
        across: elements along its columns.
        streamed: steps for which a fold streams.
        loaded: whether what stays is loaded before.

    Returns:
        (occupancy, latency), see `Dataflow.cycles`.
    """
    rows, columns = array.rows, array.columns
    if array.fold_timing == "sequential":
        fold = (2 * rows if loaded else rows) + columns + streamed - 2
        return ceil_div(stationary, rows) * ceil_div(across, columns) * fold, 0 * fold
    # Folds that use all rows, and perhaps one that uses the rest.
    full, rest = stationary // rows, stationary % rows
    used_rows, used_columns = _smaller(stationary, rows), _smaller(across, columns)
    latency = used_rows + used_columns - 2
    if not loaded:
        return (full + (rest > 0)) * streamed * ceil_div(across, columns), latency
    pace = full * _larger(streamed, rows) + (rest > 0) * _larger(streamed, rest)
    # The last fold's results do not wait for the next product's load.
    last = (rest > 0) * rest + (rest == 0) * rows
    latency = latency + used_rows - _larger(last - streamed, 0)
    return pace * ceil_div(across, columns), latency


def _larger(a, b):
    """Maximum of integers or arrays, without NumPy's cost for plain integers."""
    return (a > b) * a + (a <= b) * b


def _smaller(a, b):
    """Minimum of integers or arrays."""
    return (a < b) * a + (a >= b) * b


def register_bytes(accelerator: Accelerator, m, n, k) -> int:
    """Register bytes that the array's units read and write for `(m, k)` by `(k, n)` products.

    Args:
        accelerator: the design.
        m: rows of all products, an array of integers.
        n: columns, likewise; broadcast to `m`.
        k: elements of a row, likewise.
    """
    each, kept = dataflow_of(accelerator.array).register_bits(
        accelerator.operand_bits, accelerator.accumulator_bits, m, n, k
    )
    return byte_count(int(np.sum(m * n * k)) * each + int(np.sum(kept + 0 * m)), 1)


def check_feeds(accelerator: Accelerator) -> None:
    """The buffers that feed the array must hold two of what it takes at once, see `Dataflow.fed`.

    Raises:
        ConfigError: with every buffer that is too small.
    """
    array = accelerator.array
    inputs, weights = dataflow_of(array).fed(array)
    broken = []
    for field, what, elements in (
        ("activation_buffer", "inputs", inputs),
        ("weight_buffer", "weights", weights),
    ):
        needed = 2 * byte_count(elements, accelerator.operand_bits)
        capacity = getattr(accelerator, field).capacity_bytes
        if capacity < needed:
            unit = "folds" if elements == array.rows * array.columns else "slices"
            broken.append(
                f"Accelerator.{field}.capacity_bytes must hold the {what} of two {unit} of the "
                f"{array.rows}x{array.columns} array, got {capacity}; use {needed} or more"
            )
    refuse(broken)
