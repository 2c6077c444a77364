"""Several captures of one model, of which each frame runs one: other sizes, or other networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from accelerators import Accelerator, ConfigError
from accelerators.rules import named
from simulator.decisions.frame_evidence import FrameEvidence
from simulator.decisions.frames import FrameDecisions
from simulator.results.design import DesignReport
from simulator.running.quality import quality_of
from simulator.timing.above import above_timings
from simulator.timing.dense_baseline import equal_area_dense, same_array_dense, time_dense
from simulator.timing.engines.engine import ENGINES
from simulator.timing.remaining import layer_of_images
from workloads.traces.trace import WorkloadTrace


@dataclass(frozen=True, kw_only=True)
class VariantsReport:
    """Frames that ran in one of several variants, beside all of them in the first.

    Attributes:
        chosen: `(frames,)` int64, the variant of each frame, a place among `runs`' names.
        runs: variant -> its frames on the design, with what is done above the layers to choose;
            `None` where it has no frames.
        dense: all frames in the first variant, on the dense design with the same array.
        dense_equal_area: likewise on the best dense design found that is no larger.
        macs: of all frames.
        dense_macs: of all frames in the first variant.
        quality: `accuracy`, `dense_accuracy`, `agreement`, `intervals` ..., as of a `ReuseRun`;
            answers of other shapes are enlarged bilinearly.
    """

    chosen: np.ndarray = field(repr=False)
    runs: Mapping[str, DesignReport | None]
    dense: DesignReport
    dense_equal_area: DesignReport
    macs: int
    dense_macs: int
    quality: Mapping[str, Any] = field(repr=False)

    @property
    def cycles(self) -> int:
        """Cycles of all frames."""
        return sum(run.cycles for run in self.runs.values() if run is not None)

    @property
    def total_energy_pj(self) -> float:
        """Energy of all frames."""
        return sum(run.total_energy_pj for run in self.runs.values() if run is not None)

    @property
    def ratios(self) -> dict[str, float]:
        """Speed (above 1 is faster) and energy (below 1 is less) against both dense designs."""
        return {
            "speedup_equal_array": self.dense.cycles / self.cycles,
            "speedup_equal_area": self.dense_equal_area.cycles / self.cycles,
            "energy_ratio_equal_array": self.total_energy_pj / self.dense.total_energy_pj,
            "energy_ratio_equal_area": self.total_energy_pj / self.dense_equal_area.total_energy_pj,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = list(self.runs)
        answers = ("accuracy", "dense_accuracy", "agreement", "output_mse", "unjudged")
        return {
            **self.ratios,
            "remaining_macs": self.macs / self.dense_macs,
            "frames": {name: int(np.sum(self.chosen == at)) for at, name in enumerate(names)},
            "chosen": [names[at] for at in self.chosen],
            **{name: self.quality.get(name) for name in answers},
            "runs": {name: run and run.to_dict() for name, run in self.runs.items()},
            "dense": self.dense.to_dict(),
            "dense_equal_area": self.dense_equal_area.to_dict(),
        }


def simulate_variants(
    traces: Mapping[str, WorkloadTrace],
    chosen: Sequence[int] | np.ndarray,
    accelerator: Accelerator,
    *,
    evidence: Mapping[str, Sequence[FrameEvidence]] | None = None,
    engine: str = "compiled",
) -> VariantsReport:
    """Run each frame in the variant that was chosen for it.

    The frames of a variant are a batch of its own, as those of the first are for the comparison.
    Layers run dense.

    Args:
        traces: variant -> the model captured in it, on the same frames; the first is what the
            others are compared with, and has the labels.
        chosen: `(frames,)`, a place among the variants for each.
        accelerator: the design.
        evidence: variant -> what was looked at in its frames, in their order, to choose the next
            one's; its units are on the design and have rows of their own.
        engine: see `simulate`.

    Raises:
        ConfigError: the variants are of other numbers of frames, there is no such variant, or the
            design lacks a unit of the evidence.

    Not modelled: making frames smaller, and enlarging answers.
    """
    timer = named("simulate_variants.engine", engine, ENGINES)
    first = next(iter(traces.values()))
    places = np.asarray(chosen)
    _check(traces, places, evidence or {})
    runs: dict[str, DesignReport | None] = {}
    macs = 0
    for at, (name, trace) in enumerate(traces.items()):
        count = int(np.sum(places == at))
        if not count:
            runs[name] = None
            continue
        layers = tuple(layer_of_images(layer, count) for layer in trace.layers)
        looked = FrameDecisions(
            frames=count,
            answers=np.arange(count),
            evidence=tuple((evidence or {}).get(name, ())),
        )
        macs += sum(layer.gemm.macs for layer in layers)
        above = above_timings(looked, layers, accelerator)
        timings = time_dense(layers, accelerator, timer)
        runs[name] = DesignReport.of(accelerator, timings, count, above=above)
    plain = same_array_dense(accelerator)
    best, best_timings = equal_area_dense(first.layers, accelerator, timer)
    return VariantsReport(
        chosen=places,
        runs=runs,
        dense=DesignReport.of(plain, time_dense(first.layers, plain, timer), first.images),
        dense_equal_area=DesignReport.of(best, best_timings, first.images),
        macs=macs,
        dense_macs=first.macs,
        quality=quality_of(first, variant_outputs(list(traces.values()), places)),
    )


def variant_outputs(traces: Sequence[WorkloadTrace], chosen: np.ndarray) -> np.ndarray | None:
    """Each frame's output in the variant chosen for it, in the shape of the first one's.

    Maps of other sizes are enlarged, or made smaller, bilinearly. `None` where a variant that is
    chosen has no outputs, or such that no resizing makes them the first one's.
    """
    first = traces[0].outputs
    if first is None:
        return None
    merged = np.empty_like(first)
    for at, trace in enumerate(traces):
        frames = np.flatnonzero(chosen == at)
        if not len(frames):
            continue
        if trace.outputs is None or len(trace.outputs) != len(first):
            return None
        own = trace.outputs[frames]
        if own.shape[1:] != first.shape[1:]:
            if own.ndim != 4 or first.ndim != 4 or own.shape[1] != first.shape[1]:
                return None
            own = _resized(own, first.shape[2:])
        merged[frames] = own
    return merged


def _resized(maps: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """`(frames, channels, height, width)` maps of another size."""
    import torch

    given = torch.from_numpy(np.ascontiguousarray(maps, np.float32))
    made = torch.nn.functional.interpolate(given, size=size, mode="bilinear", align_corners=False)
    return made.numpy()


def _check(
    traces: Mapping[str, WorkloadTrace],
    chosen: np.ndarray,
    evidence: Mapping[str, Sequence[FrameEvidence]],
) -> None:
    """Variants, choices and evidence must be of the same frames."""
    frames = next(iter(traces.values())).images
    broken = [
        f"simulate_variants.traces[{name!r}] must be of the first one's {frames} frames, got "
        f"{trace.images}; capture all variants on the same ones"
        for name, trace in traces.items()
        if trace.images != frames
    ]
    whole = chosen.shape == (frames,) and chosen.dtype.kind in "iu"
    if not whole or ((chosen < 0) | (chosen >= len(traces))).any():
        broken.append(
            f"simulate_variants.chosen must be a place from 0 to {len(traces) - 1} for each of "
            f"{frames} frames, got {chosen.dtype} of shape {chosen.shape}; choose one for each"
        )
    broken += [
        f"simulate_variants.evidence must be of variants, got {name!r}; variants are "
        + ", ".join(traces)
        for name in evidence
        if name not in traces
    ]
    if broken:
        raise ConfigError(broken)
