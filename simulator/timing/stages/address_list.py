"""The address list: names the rows that are computed, and those that skipped ones are made of."""

from functools import partial
from typing import Any

import numpy as np

from accelerators import ConfigError
from accelerators.rules import refuse
from accelerators.units import AddressList
from simulator.decisions.rows import FilledRows, KeptRows
from simulator.timing.stages.stage import Counts, Place, Stage, Work, register
from simulator.timing.tiles import Tiles
from simulator.timing.transfers import Transfer, byte_count, ceil_div


@register
class Addressing(Stage):
    """An entry is read for each row that a tile stands for, while the array takes its rows.

    Filled rows have the same list for every image: it is loaded once for the layer. Of kept rows,
    each product has a list of its own, loaded before its first tile.

    Not modelled: that what found a list out could write it here without a way through the DRAM.
    """

    units = ("address_list",)
    track = "addressing"

    @property
    def place(self) -> Place:
        """It feeds the array."""
        return "beside"

    @property
    def unit(self) -> AddressList:
        """The unit."""
        unit = self.accelerator.address_list
        assert unit is not None
        return unit

    @property
    def entries(self) -> int:
        """Entries of one list: a row of a product, or a position of an image."""
        rows = self._rows
        return rows.positions if isinstance(rows, FilledRows) else rows.gemm.m

    @property
    def _rows(self) -> FilledRows | KeptRows:
        assert self.left.decisions is not None
        rows = self.left.decisions.rows
        if isinstance(rows, FilledRows | KeptRows):
            return rows
        raise ConfigError(
            f"decisions of layer {self.left.layer.name!r} must fill or keep rows for an address "
            f"list to name, got {type(rows).__name__}; do not ask for the unit"
        )

    def check(self) -> None:
        """The list fits, its addresses reach, and it can say what was decided."""
        unit, entries, name = self.unit, self.entries, self.left.layer.name
        broken = []
        if entries > unit.entries:
            broken.append(
                f"Accelerator.address_list.entries must hold all {entries} rows of layer {name!r}, "
                f"got {unit.entries}; use {entries} or more"
            )
        if entries > 2**unit.address_bits:
            broken.append(
                f"Accelerator.address_list.address_bits must tell {entries} rows of layer "
                f"{name!r} apart, got {unit.address_bits}; use {(entries - 1).bit_length()} or more"
            )
        if isinstance(self._rows, FilledRows):
            broken += self._broken_taps(self._rows)
        refuse(broken)

    def _broken_taps(self, rows: FilledRows) -> list[str]:
        """A filled row takes `taps` results in equal shares, one of them repeatedly if need be."""
        unit, given = self.unit, rows.taps.shape[1]
        if rows.weights is None:  # a single one, as it is
            return []
        if unit.counted:
            return self._not_counted(rows)
        shares = np.delete(rows.weights, rows.computed, axis=0) * np.float64(unit.taps)
        whole = np.rint(shares)
        if np.allclose(shares, whole, atol=1e-4) and np.all(whole.sum(axis=1) == unit.taps):
            return []
        return [
            f"Accelerator.address_list.taps must name every row that layer "
            f"{self.left.layer.name!r} fills one from, in equal shares, got {unit.taps} for up to "
            f"{given} rows of other shares; use as many taps as shares are parts of, such as 4 "
            "for quarters"
        ]

    def _not_counted(self, rows: FilledRows) -> list[str]:
        """Of a counted entry, as many results as a shift divides by, in equal shares."""
        assert rows.weights is not None
        taken = rows.taps_of_positions
        equal = np.where(rows.weights != 0, 1 / taken[:, None], 0)
        is_power = (taken & (taken - 1)) == 0
        if np.allclose(rows.weights, equal) and is_power.all() and taken.max() <= self.unit.taps:
            return []
        return [
            f"Accelerator.address_list.taps must be the most rows that layer "
            f"{self.left.layer.name!r} fills one from, 1, 2, 4, ... in equal shares where entries "
            f"are counted, got {self.unit.taps} for up to {int(taken.max())}; use more taps, or "
            "counted=False for other shares"
        ]

    def work(self, tiles: Tiles) -> Work:
        """Each port reads an entry a cycle."""
        reads = tiles.rows
        cycles = ceil_div(reads, self.unit.ports)
        lists = np.zeros(tiles.shape, np.int64)
        first = lists.reshape(tiles.shape[0], -1)[:, 0]
        loaded = byte_count(self.entries, self.unit.entry_bits)
        if isinstance(self._rows, FilledRows):
            first[:1] = loaded
        else:
            first[:] = loaded
        return Work(
            limits={"address_list": cycles},
            busy_cycles={"address_list": cycles},
            transfers=(Transfer(kind="addresses", moved_bytes=lists),),
            actions=partial(self._actions, tiles, reads, int(np.count_nonzero(lists))),
        )

    def _actions(self, tiles: Tiles, reads: Any, lists: int) -> Counts:
        return {
            ("address_list", "write"): lists * self.entries,
            ("address_list", "read"): tiles.total(np.broadcast_to(reads, tiles.shape)),
        }
