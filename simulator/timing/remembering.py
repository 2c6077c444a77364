"""What layers remember of a frame for the next one, and which of it a design holds on the chip."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from accelerators import Accelerator
from simulator.decisions.box import Decisions
from simulator.decisions.evidence import Changes, Differences, Ranges, Signatures
from simulator.decisions.frames import KEEP, FrameDecisions
from simulator.decisions.incremental import IncrementalRows
from simulator.decisions.left import layer_of_rows
from simulator.decisions.rows import KeptRows
from simulator.timing.pass_transfers import table_bytes
from simulator.timing.remaining import Remaining
from simulator.timing.transfers import byte_count
from workloads.traces.layer import Layer

if TYPE_CHECKING:
    import networkx as nx


def remembered_bytes(layer: Layer, decisions: Decisions | None, accelerator: Accelerator) -> int:
    """Bytes that a layer keeps from frame to frame for what is decided on its rows.

    Of frames in a row, those of one. Of rows to which differences are added: inputs, and results in
    the accumulators' width. Of rows that keep their result since nothing changed: inputs that are
    compared with, and results, as operands. Of several techniques, that of all. 0 where nothing is
    remembered.

    Args:
        layer: it.
        decisions: on it.
        accelerator: whose operands and accumulators they are.
    """
    if decisions is None:
        return 0
    needed = _of_rows(layer, decisions, accelerator)
    if decisions.then is not None:
        left = layer_of_rows(layer, decisions.rows)
        needed += remembered_bytes(left, decisions.then, accelerator)
    return needed


def _of_rows(layer: Layer, decisions: Decisions, accelerator: Accelerator) -> int:
    """The same of the first of several techniques."""
    rows, evidence, gemm = decisions.rows, decisions.evidence, layer.gemm
    if isinstance(rows, KeptRows) and isinstance(evidence, Changes):
        return byte_count(evidence.kept_elements, accelerator.operand_bits)
    if not isinstance(rows, IncrementalRows) or not rows.keeps:
        return 0
    bits = evidence.remembered_bits if isinstance(evidence, Differences) else None
    bits = accelerator.operand_bits if bits is None else bits
    inputs = byte_count(layer.input_elements * rows.lag // gemm.m, bits)
    return inputs + byte_count(gemm.count * rows.lag * gemm.n, accelerator.accumulator_bits)


def kept_bytes(layer: Layer, decisions: Decisions, accelerator: Accelerator) -> int:
    """Memory that one technique's decisions on a layer keep filled from frame to frame.

    Beside what is remembered of frames: results of the batch before, of rows that keep theirs for
    other reasons than that nothing changed, as operands; and the tables of a stream's clusters,
    full, with a result of n accumulators for each entry. A table without end has no size, and
    counts for nothing.

    Args:
        layer: it.
        decisions: on it, without what is decided next.
        accelerator: the design.
    """
    rows, evidence, gemm = decisions.rows, decisions.evidence, layer.gemm
    if isinstance(rows, KeptRows) and not isinstance(evidence, Changes):
        return byte_count(gemm.count * gemm.m * gemm.n, accelerator.operand_bits)
    table = evidence.cache if isinstance(evidence, Signatures | Ranges) else None
    if table is None or table.entries is None:
        return _of_rows(layer, decisions, accelerator)
    left = Remaining.of(layer, replace(decisions, then=None))
    results = byte_count(table.entries * layer.gemm.n, accelerator.accumulator_bits)
    return decisions.shared.clusters.size * (table_bytes(left, accelerator) + results)


def results_held(
    layers: Sequence[Layer], graph: "nx.DiGraph[str]", frames: FrameDecisions, operand_bits: int
) -> dict[str, int]:
    """Layer -> bytes of its result that are held for frames in which it does not run.

    Of layers whose result stays as it was in some frame, and is then read: by a layer that runs, or
    as the model's answer, where the frame's answer is not an earlier one. Results that motion moves
    are the `Warps`'.

    Args:
        layers: in the order of calls.
        graph: of them, as `WorkloadTrace.graph`.
        frames: the decisions.
        operand_bits: of a value.
    """
    own_answer = frames.answers == np.arange(frames.frames)
    found = {}
    for layer in layers:
        made = frames.layers.get(layer.name)
        if made is None or not (made == KEEP).any():
            continue
        readers = [frames.runs(each) for each in graph.successors(layer.name)] or [own_answer]
        if ((made == KEEP) & np.logical_or.reduce(readers)).any():
            values = layer.gemm.count * layer.gemm.m * layer.gemm.n // frames.frames
            found[layer.name] = byte_count(values, operand_bits)
    return found


def with_room(
    layers: Sequence[tuple[Layer, Decisions | None]], accelerator: Accelerator
) -> list[tuple[Layer, Decisions | None]]:
    """The same, those marked whose remembered inputs and results stay on the chip.

    Every layer's live from one frame to the next, so they share the state buffer: in the order of
    calls, each that still fits; of several techniques on a layer, the first to decide before the
    others.

    Args:
        layers: with their decisions.
        accelerator: the design.
    """
    room = 0 if accelerator.state_buffer is None else accelerator.state_buffer.capacity_bytes
    found: list[tuple[Layer, Decisions | None]] = []
    for layer, decisions in layers:
        made, room = (
            (decisions, room) if decisions is None else _placed(layer, decisions, accelerator, room)
        )
        found.append((layer, made))
    return found


def _placed(
    layer: Layer, decisions: Decisions, accelerator: Accelerator, room: int
) -> tuple[Decisions, int]:
    """Decisions, marked where there is room, and the room that is left."""
    needed, then = _of_rows(layer, decisions, accelerator), decisions.then
    if 0 < needed <= room:
        assert isinstance(decisions.rows, IncrementalRows | KeptRows)
        room -= needed
        decisions = replace(decisions, rows=replace(decisions.rows, on_chip=True))
    if then is not None:
        then, room = _placed(layer_of_rows(layer, decisions.rows), then, accelerator, room)
        decisions = replace(decisions, then=then)
    return decisions, room
