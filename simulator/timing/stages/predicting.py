"""The sum predictor: beside the array, whose units it lets end their sums."""

from functools import partial
from typing import Any

import numpy as np

from accelerators.rules import refuse
from accelerators.units import SumPredictor
from simulator.decisions.box import Decisions
from simulator.decisions.evidence import PartialSums
from simulator.timing.stages.stage import Counts, Place, Stage, Work, register
from simulator.timing.tiles import Tiles
from simulator.timing.transfers import ceil_div


@register
class Predicting(Stage):
    """Comparators look at sums as they grow; a network's products have multipliers of their own,
    and signs that are added up in place of products have adders.

    A comparison takes no cycle: it is made while the next product is. What the network, or signs,
    make of a tile is there while the array works on another.

    Not modelled: that the first tile of a layer waits for its predictions; loading thresholds,
    which come with a layer's biases.
    """

    units = ("sum_predictor",)
    track = "predicting"

    @property
    def place(self) -> Place:
        """It lets the array's units go on or end."""
        return "beside"

    @property
    def unit(self) -> SumPredictor:
        """The unit."""
        unit = self.accelerator.sum_predictor
        assert unit is not None
        return unit

    @property
    def made(self) -> Decisions:
        """Those that end sums: the layer's, or of rows that are shared, those on their clusters."""
        made = self.left.decisions
        while made is not None and not isinstance(made.evidence, PartialSums):
            made = made.then
        assert made is not None
        return made

    @property
    def evidence(self) -> PartialSums:
        """What was looked at."""
        evidence = self.made.evidence
        assert isinstance(evidence, PartialSums)
        return evidence

    def check(self) -> None:
        """Thresholds fit, a network has its multipliers, and orders of columns have lanes."""
        made, unit, name = self.made, self.unit, self.left.layer.name
        columns, broken = made.gemm.n * made.gemm.count, []
        if columns > unit.thresholds:
            broken.append(
                f"Accelerator.sum_predictor.thresholds must hold the {columns} columns of layer "
                f"{name!r}, got {unit.thresholds}; use as many or more"
            )
        if self.evidence.products and not unit.multipliers:
            broken.append(
                "Accelerator.sum_predictor.multipliers must be at least 1 where a network "
                f"predicts, as for layer {name!r}, got 0; use 16"
            )
        if self.evidence.additions and not unit.adders:
            broken.append(
                "Accelerator.sum_predictor.adders must be at least 1 where signs predict, as for "
                f"layer {name!r}, got 0; use 16"
            )
        order = None if made.depth is None else made.depth.order
        own_orders = order is not None and order.ndim == 2
        if own_orders and made is not self.left.decisions:
            broken.append(
                f"decisions of layer {name!r} must not sum shared rows in an order of each column: "
                "they are multiplied in step, an activation for all columns; share no rows, or "
                "predict from a part of the sum"
            )
        elif own_orders and self.accelerator.lanes is None:
            broken.append(
                f"Accelerator.lanes must be there to sum layer {name!r} in an order of each "
                "column, got none: a systolic array hands one activation from column to column; "
                "start from the preset 'predictor_lanes_16x16'"
            )
        refuse(broken)

    def work(self, tiles: Tiles) -> Work:
        """The network's products, and additions of signs, of a tile's outputs."""
        evidence, unit = self.evidence, self.unit
        cycles: Any = 0
        outputs = np.broadcast_to(tiles.m * tiles.n, tiles.shape)
        all_outputs = max(1, int(outputs.sum()))
        for number, at_once in (
            (evidence.products, unit.multipliers),
            (evidence.additions, unit.adders),
        ):
            if number:
                cycles = cycles + ceil_div(number * outputs, at_once * all_outputs)
        return Work(
            limits={"sum_predictor": cycles},
            busy_cycles={"sum_predictor": cycles},
            actions=partial(self._actions, tiles),
        )

    def _actions(self, tiles: Tiles) -> Counts:
        evidence = self.evidence
        counts = {
            ("sum_predictor", "check"): evidence.checks,
            ("sum_predictor", "threshold"): tiles.total(tiles.m * tiles.n),
        }
        if evidence.additions:
            counts["sum_predictor", "add"] = evidence.additions
        if evidence.products:
            counts["sum_predictor", "multiply"] = evidence.products
        return counts
