"""The frame differencer: frames against those that were held."""

from functools import partial

import numpy as np

from accelerators.units import FrameDifferencer
from simulator.decisions.frame_evidence import FrameDifferences
from simulator.timing.stages.above import AboveStage, register_above
from simulator.timing.stages.stage import Counts, Work
from simulator.timing.transfers import Transfer, byte_count, ceil_div


@register_above
class Differencing(AboveStage):
    """A frame is read once from the DRAM, and compared with all that it is compared with.

    Frames that are held stay in the unit's own memory where all of them fit; else they are read
    from the DRAM again, where they lie in any case, as the model's inputs or a layer's results.
    """

    units = ("frame_differencer",)
    evidence: FrameDifferences

    @property
    def unit(self) -> FrameDifferencer:
        """The unit."""
        unit = self.accelerator.frame_differencer
        assert unit is not None
        return unit

    @property
    def frame_bytes(self) -> int:
        """Of what is compared of a frame."""
        return byte_count(self.evidence.elements, self.accelerator.operand_bits)

    @property
    def is_held(self) -> bool:
        """Whether held frames fit into the unit's memory."""
        return self.unit.held_bytes >= self.evidence.places * self.frame_bytes

    def work(self) -> Work:
        """Each lane takes an element of a comparison a cycle; then a block is weighted a cycle."""
        evidence, unit = self.evidence, self.unit
        turns = int(ceil_div(evidence.elements, unit.lanes))
        if evidence.blocks > 1:
            turns += evidence.blocks
        cycles = evidence.comparisons * turns
        compares = evidence.comparisons > 0
        read = compares.astype(np.int64)
        if self.is_held:
            read |= evidence.held
        else:
            read = read + evidence.comparisons
        return Work(
            limits={"frame_differencer": cycles},
            busy_cycles={"frame_differencer": cycles},
            latency_cycles=unit.latency_cycles * compares,
            transfers=(Transfer(kind="compared_frames", moved_bytes=read * self.frame_bytes),),
            actions=partial(self._actions, int(evidence.comparisons.sum())),
        )

    def _actions(self, comparisons: int) -> Counts:
        evidence = self.evidence
        counts = {
            ("frame_differencer", "square"): comparisons * evidence.elements,
            ("frame_differencer", "compare"): comparisons,
        }
        if evidence.blocks > 1:
            counts["frame_differencer", "weigh"] = comparisons * evidence.blocks
        if self.is_held and self.unit.held_bytes:
            held = int(evidence.held.sum())
            counts["frame_differencer", "read_byte"] = comparisons * self.frame_bytes
            counts["frame_differencer", "write_byte"] = held * self.frame_bytes
        return counts
