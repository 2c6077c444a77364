"""Subtracting: earlier inputs from a tile's, and marks of what is left to multiply."""

from functools import partial
from typing import Any

import numpy as np

from accelerators import ConfigError, DifferenceUnit
from simulator.decisions.evidence import Differences
from simulator.decisions.incremental import IncrementalRows
from simulator.timing.stages.stage import Counts, Stage, Work, register
from simulator.timing.tiles import Tiles
from simulator.timing.transfers import Transfer, access_bytes, byte_count, ceil_div, port_cycles


@register
class Subtracting(Stage):
    """Inputs are compared as they are stored, each once, in the column tile that looks first.

    Differences go back to the activation buffer in place of the inputs. What is remembered of the
    frame before is loaded, and what the next one shall remember is stored: from and to the state
    buffer, where the layer has room there, else the DRAM. Rows that are computed anew have nothing
    to be compared with. Marks are gathered of every row and element of k, as the array meets them.

    Not modelled: room in the activation buffer for what is remembered; that levels which did not
    change need not be stored again; inputs of a halo that two tiles share, which are counted once.
    """

    units = ("difference_unit",)
    track = "subtracting"

    @property
    def unit(self) -> DifferenceUnit:
        """The unit."""
        unit = self.accelerator.difference_unit
        assert unit is not None
        return unit

    @property
    def evidence(self) -> Differences:
        """What was compared.

        Raises:
            ConfigError: something else was decided by.
        """
        assert self.left.decisions is not None
        evidence = self.left.decisions.evidence
        if isinstance(evidence, Differences) and self.left.incremental is not None:
            return evidence
        raise ConfigError(
            f"decisions of layer {self.left.layer.name!r} must add differences to earlier results "
            f"for a difference unit to work, got {evidence.words}; decide with FineChanges"
        )

    @property
    def rows(self) -> IncrementalRows:
        """The layer's rows."""
        assert self.left.incremental is not None
        return self.left.incremental

    def check(self) -> None:
        """Levels are told where they were decided on."""
        if self.evidence.quantises and not self.unit.quantises:
            raise ConfigError(
                "Accelerator.difference_unit.quantises must be True for levels, as in layer "
                f"{self.left.layer.name!r}, got False; change it, or decide with FineChanges"
            )

    def work(self, tiles: Tiles) -> Work:
        """What takes longest of comparing, gathering marks and the buffers' ports."""
        accelerator, unit, layer = self.accelerator, self.unit, self.left.layer
        whole = layer.input_elements // layer.gemm.count
        shares = np.cumsum(tiles.rows) * whole // layer.gemm.m
        elements = np.diff(shares, prepend=0).reshape(tiles.rows.shape) * tiles.looked
        marks = byte_count(tiles.rows * layer.gemm.k, 1) * tiles.looked
        width = unit.lanes * accelerator.operand_bits // 8
        cycles = np.maximum(ceil_div(elements, unit.lanes), ceil_div(marks, width))
        buffer = accelerator.activation_buffer
        read = access_bytes(elements, unit.lanes, accelerator.operand_bits, buffer)
        limits = {"difference_unit": cycles, "activation_buffer": port_cycles(2 * read, buffer)}
        loaded, stored = self._remembered(tiles, elements)
        transfers: tuple[Transfer, ...] = ()
        if self.rows.on_chip:
            assert accelerator.state_buffer is not None
            limits["state_buffer"] = port_cycles(loaded + stored, accelerator.state_buffer)
        elif self.rows.keeps:
            transfers = (
                Transfer(kind="remembered_inputs", moved_bytes=loaded),
                Transfer(kind="remembered_inputs", moved_bytes=stored, stored=True),
            )
        return Work(
            limits=limits,
            latency_cycles=unit.latency_cycles * tiles.looked,
            busy_cycles={"difference_unit": cycles},
            transfers=transfers,
            actions=partial(self._actions, tiles, elements, marks, read, (loaded, stored)),
        )

    def _remembered(self, tiles: Tiles, elements: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bytes that tiles load, and store, of remembered inputs."""
        bits = self.evidence.remembered_bits
        bits = self.accelerator.operand_bits if bits is None else bits
        stored = np.zeros(tiles.shape, np.int64) + byte_count(elements, bits)
        return stored * (rows_of_tiles(~self.rows.anew, tiles) > 0), stored

    def _actions(
        self, tiles: Tiles, elements: Any, marks: Any, read: Any, remembered: tuple[Any, Any]
    ) -> Counts:
        compared, loaded, stored = (tiles.total(each) for each in (elements, *remembered))
        counts = {
            ("difference_unit", "subtract"): compared,
            ("difference_unit", "mark"): tiles.total(marks),
            ("activation_buffer", "read_byte"): tiles.total(read),
            ("activation_buffer", "write_byte"): tiles.total(read),
        }
        if self.evidence.quantises:
            counts["difference_unit", "quantise"] = compared
        if self.rows.on_chip:
            counts["state_buffer", "read_byte"] = loaded
            counts["state_buffer", "write_byte"] = stored
        return counts


def rows_of_tiles(chosen: np.ndarray, tiles: Tiles) -> np.ndarray:
    """int64, how many of the chosen rows each tile stands for; broadcasts to the tiles.

    Args:
        chosen: `(count, m)` bool.
        tiles: that the layer is cut into, by rows in one of their axes.
    """
    of_rows = np.ravel(tiles.rows)
    counts = np.add.reduceat(chosen, np.cumsum(of_rows) - of_rows, axis=1, dtype=np.int64)
    return counts.reshape(len(chosen), *tiles.rows.shape[1:])
