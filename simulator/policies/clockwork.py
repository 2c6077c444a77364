"""Clockwork: stages of a network have their own update rate, or run when what they see changed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase

import networkx as nx
import numpy as np

from accelerators import ConfigError
from accelerators.rules import refuse, show, true_of, violations
from simulator.decisions.frame_evidence import FrameDifferences
from simulator.decisions.frames import KEEP, RUN, FrameDecisions
from simulator.policies.policy import LayerState, ReusePolicy
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace

_EXAMPLE = "try 'layer3.*=2 layer4.*=4'"


@dataclass(frozen=True, kw_only=True)
class Clockwork(ReusePolicy):
    """Deep layers run in fewer frames than shallow ones, which then meet results of before.

    Clockwork convnets (Shelhamer et al., ECCV workshops 2016): what a skip connection joins is a
    deep result of an earlier frame and a shallow one of this. Nothing is moved. The images of a
    batch are frames in a row; all layers run in the first of each batch.

    A stage is the layers whose names match a pattern. It runs in every n-th frame; or, adaptively,
    where the input of its first layer changed since the stage ran last. That can only be known in
    frames in which all that this layer depends on runs; in others, where a stage before it is kept,
    the stage is kept too. What is compared there is what the dense model computes, so that no
    policy may change the layers before it.

    Attributes:
        rates: `pattern=n` of each stage that runs in every n-th frame, 1 to 1048576, with commas
            or spaces between them.
        changes: `pattern=threshold` of each stage that runs where the mean squared difference of
            its input is above the threshold, 0 to 1e30. Layers in none of the two run in every
            frame; the first pattern that matches is a layer's.

    Raises:
        ConfigError: at construction, where a stage can't be read; at `decide()`, where a pattern
            matches no layer, or the rows of a layer's frames can't be told apart.
    """

    rates: str = field(
        default="", metadata=true_of(lambda x: _reads(x, int), "be stages", _EXAMPLE)
    )
    changes: str = field(
        default="", metadata=true_of(lambda x: _reads(x, float), "be stages", _EXAMPLE)
    )

    def __post_init__(self) -> None:
        """The stages must be some."""
        refuse(violations(self, "Clockwork"))

    def applies_to(self, layer: Layer) -> bool:
        """To none: only frames are decided on."""
        return False

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """Every pattern must match a layer."""
        names = [layer.name for layer in layers]
        refuse(
            [
                f"Clockwork.{of} pattern {show(pattern, str)} must match a layer; layers are "
                + ", ".join(names)
                for of, stages in (("rates", self.rates), ("changes", self.changes))
                for pattern in _stages(stages)
                if not any(fnmatchcase(name, pattern) for name in names)
            ]
        )

    def frames(self, trace: WorkloadTrace) -> FrameDecisions | None:
        """Each stage's frames; `None` where all layers run in all."""
        if trace.images == 1:
            return None
        stages: dict[str, list[str]] = {}
        rates, changes = _stages(self.rates), _stages(self.changes)
        for layer in trace.layers:
            matches = (each for each in (*rates, *changes) if fnmatchcase(layer.name, each))
            pattern = next(matches, None)
            if pattern is not None:
                stages.setdefault(pattern, []).append(layer.name)
        runs = {layer.name: np.ones(trace.images, bool) for layer in trace.layers}
        for pattern, names in stages.items():
            if pattern in rates:
                made = np.arange(trace.images) % int(rates[pattern]) == 0
                runs.update(dict.fromkeys(names, made))
        # In the order of calls, so that what a stage depends on is known.
        evidence = []
        for pattern, names in stages.items():
            if pattern not in rates:
                seen = [runs[each] for each in nx.ancestors(trace.graph, names[0]) - {*names}]
                known = np.logical_and.reduce([np.ones(trace.images, bool), *seen])
                made, looks = _changed(trace, names[0], known, changes[pattern])
                runs.update(dict.fromkeys(names, made))
                evidence.append(looks)
        made_of = {
            name: np.where(each, RUN, KEEP).astype(np.int8)
            for name, each in runs.items()
            if not each.all()
        }
        if not made_of and not evidence:
            return None
        return FrameDecisions(
            frames=trace.images,
            layers=made_of,
            answers=np.arange(trace.images),
            evidence=tuple(evidence),
        )

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> None:
        """No decisions on the layers that run."""

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "clockwork", **asdict(self)}


def _stages(text: str) -> dict[str, float]:
    """Pattern -> number.

    Raises:
        ValueError: the text is none.
    """
    found: dict[str, float] = {}
    for each in text.replace(",", " ").split():
        pattern, _, value = each.rpartition("=")
        if not pattern or pattern in found:
            raise ValueError
        found[pattern] = float(value)
    return found


def _reads(text: object, kind: type) -> bool:
    """Whether a text is stages with numbers in their range."""
    if type(text) is not str:
        return False
    try:
        numbers = _stages(text).values()
    except ValueError:
        return False
    if kind is int:
        return all(1 <= each <= 2**20 and each == int(each) for each in numbers)
    return all(0 <= each <= 1e30 for each in numbers)


def _changed(
    trace: WorkloadTrace, first: str, known: np.ndarray, threshold: float
) -> tuple[np.ndarray, FrameDifferences]:
    """The frames in which a stage runs, and what was compared for it.

    Args:
        trace: the workload.
        first: the stage's first layer.
        known: `(images,)` bool, frames in which all runs that the layer depends on.
        threshold: mean squared difference above which it runs.
    """
    given = trace.given(first)
    if len(given) % trace.images:
        raise ConfigError(
            f"Clockwork.changes of layer {first!r} must see an input of {trace.images} frames, got "
            f"shape {given.shape}; let the stage run at a rate"
        )
    maps = given.reshape(trace.images, -1)
    runs, last = np.zeros(trace.images, bool), 0
    runs[0] = True
    for frame in np.flatnonzero(known)[1:]:
        change = np.square(maps[frame] - maps[last]).mean(dtype=np.float64)
        if change > threshold:
            runs[frame], last = True, frame
    compares = known.copy()
    compares[0] = False
    return runs, FrameDifferences(
        elements=maps.shape[1], comparisons=compares.astype(np.int64), held=runs.copy()
    )


register(
    Technique(
        name="clockwork",
        title="Clockwork convnets",
        axis="frames",
        word="keep",
        grain="layer and frame",
        rule="Stages of a network run in every n-th frame, deep ones in fewer; or where what a "
        "stage sees changed since it ran. Else their results are those of before.",
        evidence="nothing at fixed rates; differences of a stage's input where it adapts",
        source="Shelhamer et al., Clockwork convnets for video semantic segmentation, ECCV "
        "workshops 2016",
        policy=Clockwork,
        units=("frame_differencer",),
    )
)
