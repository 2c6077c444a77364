"""What lies around a layer that is decided on: the network, and what was decided before it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from simulator.decisions.box import Decisions
from workloads.traces.after import Step
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace


@dataclass(frozen=True, kw_only=True, eq=False)
class Surroundings:
    """The network in which a layer is decided on.

    Values are numbered as in `workloads.traces.after`: a product's result, and what each step makes
    of earlier values, have one number in the whole network.

    Attributes:
        trace: the workload: its layers, and what follows each.
        decisions: of the layers that were called before, `None` of those that run dense.
        answers: classes that the last frame of the batch before was answered with; `None` before
            the first batch, or where no model runs.
        runs_model: whether answers are known once the batch is through.
    """

    trace: WorkloadTrace
    decisions: Mapping[str, Decisions | None] = field(default_factory=dict)
    answers: np.ndarray | None = None
    runs_model: bool = False

    @cached_property
    def steps(self) -> Mapping[int, Step]:
        """Number of a value -> the step that makes it, products among them, in ascending order."""
        found = {
            step.number: step
            for layer in self.trace.layers
            if layer.after is not None
            for step in layer.after.steps
        }
        return dict(sorted(found.items()))

    @cached_property
    def products(self) -> Mapping[int, Layer]:
        """Number of a product's result -> its layer."""
        return {layer.after.number: layer for layer in self.trace.layers if layer.after is not None}

    def input_of(self, layer: Layer) -> int | None:
        """The value that a layer's rows are made of; `None` where nobody knows."""
        own = None if layer.after is None else self.steps.get(layer.after.number)
        return own.inputs[0] if own is not None and len(own.inputs) == 1 else None
