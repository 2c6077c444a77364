"""Gating: an image's channels are added up and its gains put in order, before its first tile."""

from functools import partial

import numpy as np

from accelerators import ChannelGate
from accelerators.rules import refuse
from simulator.timing.stages.stage import Counts, Stage, Work, register
from simulator.timing.tiles import Tiles
from simulator.timing.transfers import ceil_div


@register
class Gating(Stage):
    """Every image's inputs are added up, `lanes` values a cycle, and its n gains put in order.

    An image that is worked on alone waits for its own; where all of a batch are worked on together,
    for all of them. Gains come from a product of their own, a layer of its own in the trace.

    Not modelled: that sums are added up as the layer before writes its outputs, whose time this
    would hide in.
    """

    units = ("channel_gate",)
    track = "gating"

    @property
    def unit(self) -> ChannelGate:
        """The unit."""
        unit = self.accelerator.channel_gate
        assert unit is not None
        return unit

    def check(self) -> None:
        """A sum and a gain for each channel."""
        layer, held = self.left.layer, self.unit.channels
        channels = max(layer.input_shape[1], layer.gemm.n)
        if held < channels:
            refuse(
                [
                    f"Accelerator.channel_gate.channels must hold the {channels} channels of layer "
                    f"{layer.name!r}, got {held}; use {channels} or more"
                ]
            )

    def work(self, tiles: Tiles) -> Work:
        """All of it before an image's first tile."""
        layer, products = self.left.layer, tiles.shape[0]
        inserted = layer.row_images * layer.gemm.n
        cycles = np.zeros(tiles.shape, np.int64)
        cycles.reshape(products, -1)[:, 0] = ceil_div(
            layer.input_elements // products, self.unit.lanes
        ) + ceil_div(inserted, products)
        return Work(
            limits={"channel_gate": cycles},
            busy_cycles={"channel_gate": cycles},
            actions=partial(self._actions, inserted),
        )

    def _actions(self, inserted: int) -> Counts:
        return {
            ("channel_gate", "accumulate"): self.left.layer.input_elements,
            ("channel_gate", "insert"): inserted,
        }
