"""Watching: a tile's input is compared with what is remembered of it, changed rows are listed."""

from functools import partial

import numpy as np

from accelerators import ChangeDetector, ConfigError
from accelerators.units.change_detector import MARKS_OF_WORD
from simulator.decisions.evidence import Changes
from simulator.timing.stages.stage import Counts, Stage, Work, register
from simulator.timing.tiles import Tiles
from simulator.timing.transfers import Transfer, byte_count, ceil_div, port_cycles


@register
class Watching(Stage):
    """Values of a tile's share of the input are compared once; its changed rows are listed for
    every column tile.

    References are loaded as the tile's input is, and written where they change: from and to the
    state buffer, where the layer has room there, else the DRAM. Where an earlier frame's input is
    the reference as it lies, nothing is written in the DRAM, and all of it on the chip.
    What is compared is spread evenly over the layer's rows: of the first frame of a stream, which
    is not compared, a batch of frames has its share too.

    Not modelled: lines of a tile's halo, which two tiles share, are compared once.
    """

    units = ("change_detector",)
    track = "watching"

    @property
    def unit(self) -> ChangeDetector:
        """The unit."""
        unit = self.accelerator.change_detector
        assert unit is not None
        return unit

    @property
    def changes(self) -> Changes:
        """What the layer was decided by."""
        assert self.left.decisions is not None
        evidence = self.left.decisions.evidence
        if not isinstance(evidence, Changes):
            raise ConfigError(
                f"decisions of layer {self.left.layer.name!r} must follow from changes for a "
                f"{self.unit.words} to work, got {evidence.words}; decide with ChangedPositions"
            )
        return evidence

    def check(self) -> None:
        """The kernel reaches over lines that are at hand."""
        needed = self.changes.line_bits
        if self.unit.line_bits < needed:
            raise ConfigError(
                "Accelerator.change_detector.line_bits must hold the lines that the kernel of "
                f"layer {self.left.layer.name!r} reaches over, {needed} places, got "
                f"{self.unit.line_bits}; use {needed} or more"
            )

    def work(self, tiles: Tiles) -> Work:
        """What takes longer of comparing, reading values and listing rows sets the pace."""
        unit, bits, changes = self.unit, self.accelerator.operand_bits, self.changes
        compared = self._share(tiles, changes.compared) * tiles.looked
        listed = np.asarray(tiles.m)
        watching = np.maximum(ceil_div(compared, unit.lanes), listed)
        buffer = self.accelerator.activation_buffer
        word = buffer.width_bits // 8
        read_bytes = ceil_div(byte_count(compared, bits), word) * word
        loaded = np.zeros(tiles.shape, np.int64) + byte_count(compared, bits)
        stored = byte_count(self._share(tiles, self._written) * tiles.looked, bits)
        stored = np.zeros(tiles.shape, np.int64) + stored
        limits = {
            "change_detector": watching,
            "activation_buffer": port_cycles(read_bytes, buffer),
        }
        transfers, held = self._marks(tiles), self.accelerator.state_buffer
        if self.left.updated_in_place:
            assert held is not None
            limits["state_buffer"] = port_cycles(loaded + stored, held)
        else:
            transfers = (
                Transfer(kind="references", moved_bytes=loaded),
                Transfer(kind="new_references", moved_bytes=stored, stored=True),
                *transfers,
            )
        return Work(
            limits=limits,
            latency_cycles=unit.latency_cycles,
            busy_cycles={"change_detector": watching},
            transfers=transfers,
            actions=partial(self._actions, tiles, compared, listed, read_bytes, (loaded, stored)),
        )

    @property
    def _written(self) -> int:
        """Values of references that are written, in all frames."""
        if self.changes.copies and self.left.updated_in_place:
            return self.left.layer.input_elements
        return self.changes.updated

    def _share(self, tiles: Tiles, total: int) -> np.ndarray:
        """Each tile's part of what is spread over the rows of all products."""
        rows, gemm = np.asarray(tiles.rows), self.left.layer.gemm
        ends = np.cumsum(rows, dtype=np.int64)
        shares = np.diff(np.concatenate([[0], ends]) * (total // gemm.count) // gemm.m)
        return shares.reshape(rows.shape)

    def _marks(self, tiles: Tiles) -> tuple[Transfer, ...]:
        """Marks of a layer with more rows than are held, out once and back when needed again."""
        marks = np.zeros(tiles.shape, np.int64) + byte_count(np.asarray(tiles.rows), 1)
        again = np.broadcast_to(np.asarray(tiles.looked) == 0, tiles.shape)
        if self.left.layer.gemm.m <= self.unit.marks or not again.any():
            return ()
        return (
            Transfer(kind="marks", moved_bytes=np.where(again, 0, marks), stored=True),
            Transfer(kind="marks", moved_bytes=np.where(again, marks, 0)),
        )

    def _actions(
        self,
        tiles: Tiles,
        compared: np.ndarray,
        listed: np.ndarray,
        read_bytes: np.ndarray,
        references: tuple[np.ndarray, np.ndarray],
    ) -> Counts:
        words = ceil_div(np.asarray(tiles.rows), MARKS_OF_WORD)
        values = tiles.total(compared)
        # Of each place a line is written, and those before it read with it.
        channels = max(1, self.left.layer.input_elements // self._places)
        lines = ceil_div(values // channels, MARKS_OF_WORD) if self.changes.line_bits else 0
        layer = self.left.layer
        kernel = 1 if layer.convolution is None else layer.convolution.kernel[0]
        counts = {
            ("change_detector", "compare"): values,
            ("change_detector", "write_line"): lines,
            ("change_detector", "read_line"): lines * (kernel - 1),
            ("change_detector", "write_marks"): tiles.total(words * tiles.looked),
            ("change_detector", "read_marks"): tiles.total(np.broadcast_to(words, tiles.shape)),
            ("change_detector", "list"): tiles.total(np.broadcast_to(listed, tiles.shape)),
            ("activation_buffer", "read_byte"): tiles.total(read_bytes),
        }
        if self.left.updated_in_place:
            loaded, stored = references
            counts["state_buffer", "read_byte"] = tiles.total(loaded)
            counts["state_buffer", "write_byte"] = tiles.total(stored)
        return counts

    @property
    def _places(self) -> int:
        """Places of all images of the input."""
        layer = self.left.layer
        if layer.convolution is None:
            return layer.gemm.m
        return layer.input_shape[0] * int(np.prod(layer.input_shape[2:]))
