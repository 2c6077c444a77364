"""What layers remember of a frame for the next one, and which of it a design holds on the chip."""

from collections.abc import Sequence
from dataclasses import replace

from accelerators import Accelerator
from simulator.decisions.box import Decisions
from simulator.decisions.evidence import Differences
from simulator.decisions.incremental import IncrementalRows
from simulator.timing.transfers import byte_count
from workloads.traces.layer import Layer


def remembered_bytes(layer: Layer, decisions: Decisions | None, accelerator: Accelerator) -> int:
    """Bytes that a layer keeps from frame to frame: inputs, and results in the accumulators' width.

    Of frames in a row, those of one. 0 where differences are added to no remembered results.

    Args:
        layer: it.
        decisions: on it.
        accelerator: whose operands and accumulators they are.
    """
    rows = None if decisions is None else decisions.rows
    if decisions is None or not isinstance(rows, IncrementalRows) or not rows.keeps:
        return 0
    evidence, gemm = decisions.evidence, layer.gemm
    bits = evidence.remembered_bits if isinstance(evidence, Differences) else None
    bits = accelerator.operand_bits if bits is None else bits
    inputs = byte_count(layer.input_elements * rows.lag // gemm.m, bits)
    return inputs + byte_count(gemm.count * rows.lag * gemm.n, accelerator.accumulator_bits)


def with_room(
    layers: Sequence[tuple[Layer, Decisions | None]], accelerator: Accelerator
) -> list[tuple[Layer, Decisions | None]]:
    """The same, those marked whose remembered inputs and results stay on the chip.

    Every layer's live from one frame to the next, so they share the state buffer: in the order of
    calls, each that still fits.

    Args:
        layers: with their decisions.
        accelerator: the design.
    """
    room = 0 if accelerator.state_buffer is None else accelerator.state_buffer.capacity_bytes
    found: list[tuple[Layer, Decisions | None]] = []
    for layer, decisions in layers:
        needed, made = remembered_bytes(layer, decisions, accelerator), decisions
        if made is not None and 0 < needed <= room:
            assert isinstance(made.rows, IncrementalRows)
            room -= needed
            made = replace(made, rows=replace(made.rows, on_chip=True))
        found.append((layer, made))
    return found
