"""Warping: the key frame's maps are moved to where their contents are now."""

from functools import partial
from math import ceil

import numpy as np

from accelerators import ConfigError, Warper
from accelerators.units.warper import TAPS
from simulator.decisions.moved_maps import MovedMap, Warps
from simulator.timing.stages.above import AboveStage, register_above
from simulator.timing.stages.stage import Counts, Work
from simulator.timing.transfers import Transfer, byte_count, ceil_div


@register_above
class Warping(AboveStage):
    """A value a lane and cycle, of every map that crosses to the layers that run.

    Where the warper's memory holds all these maps they are kept there in key frames, as they leave
    the output buffer; where not, they are loaded for each frame, a band of rows of as many channels
    as there are lanes after the other. Moved maps are stored in the DRAM, where the layers that run
    load them.

    Not modelled: taps that lie in one bank.
    """

    units = ("warper",)
    evidence: Warps

    @property
    def unit(self) -> Warper:
        """The unit."""
        unit = self.accelerator.warper
        assert unit is not None
        return unit

    @property
    def _holds_all(self) -> bool:
        return self.unit.capacity_bytes >= sum(self._bytes(each) for each in self.evidence.maps)

    def _bytes(self, moved: MovedMap) -> int:
        return byte_count(moved.elements, self.accelerator.operand_bits)

    def check(self) -> None:
        """The memory holds all maps, or the rows of each that a moved row may come from."""
        if self._holds_all:
            return
        for each in self.evidence.maps:
            reach = ceil(self.evidence.radius / each.strides[0])
            rows = min(each.size[0], 2 * reach + 2)
            channels = min(each.channels, self.unit.lanes)
            needed = byte_count(rows * each.size[1] * channels, self.accelerator.operand_bits)
            if self.unit.capacity_bytes < needed:
                raise ConfigError(
                    "Accelerator.warper.capacity_bytes must hold the rows that a moved row may "
                    f"come from, {rows} of {each.size[1]} positions and {channels} channels at "
                    f"layer {each.layer!r}, got {self.unit.capacity_bytes}; use {needed} or more, "
                    "or a smaller radius"
                )

    def work(self) -> Work:
        """Lanes set the pace."""
        unit, frames = self.unit, self.frames.frames
        cycles, stored, loaded, written = (np.zeros(frames, np.int64) for _ in range(4))
        for each in self.evidence.maps:
            moved = each.frames.astype(np.int64)
            of_map = ceil_div(each.elements, unit.lanes)
            cycles += moved * of_map
            stored += moved * self._bytes(each)
            if self._holds_all:
                written[np.unique(self.evidence.keys[each.frames])] += of_map
            else:
                loaded += moved * self._bytes(each)
                written += moved * of_map
        return Work(
            limits={"warper": cycles},
            latency_cycles=(cycles > 0) * unit.latency_cycles,
            busy_cycles={"warper": cycles},
            transfers=(
                Transfer(kind="stored_maps", moved_bytes=loaded),
                Transfer(kind="moved_maps", moved_bytes=stored, stored=True),
            ),
            actions=partial(self._actions, TAPS * int(cycles.sum()), int(written.sum())),
        )

    def _actions(self, read_words: int, written_words: int) -> Counts:
        values = sum(each.elements * int(each.frames.sum()) for each in self.evidence.maps)
        return {
            ("warper", "interpolate"): values,
            ("warper", "read_map"): read_words,
            ("warper", "write_map"): written_words,
        }
