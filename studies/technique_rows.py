"""A row for each technique on one accelerator: what study 019 tables."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from reuse_networks import POINT

from accelerators import Accelerator, ConfigError, area_by_part, preset, presets
from codesign import Workload, load_workload, search
from codesign.evaluation.threads import single_thread
from codesign.space.technique_space import TechniqueSpace
from codesign.space.techniques import DENSE, THEN, found_techniques
from codesign.study.result import energy_delay_ratio
from codesign.study.trial import Trial
from simulator import decide, simulate, techniques
from workloads import TraceError

BASE = "every_64x64"
# Trials of the small search of a technique's settings and of its hardware.
TRIALS = 10


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A network and its inputs: some to calibrate on, some to choose on, and those that judge.

    Attributes:
        name: in words.
        model, inputs: as `codesign search` takes them.
        choose, judge: how many inputs.
        every: distance of frames.
        frames: whether inputs are frames in a row, which temporal techniques need.
        weights: a file, where the network's name brings none.
        grouping: as `codesign search --grouping`.
    """

    name: str
    model: str
    inputs: str
    choose: int
    judge: int
    every: int = 1
    frames: bool = True
    weights: Path | None = None
    grouping: str = "stage"
    calibrate: int = 2

    def workload(self) -> Workload:
        """The network captured on all of them."""
        return load_workload(
            model=self.model,
            inputs=self.inputs,
            images=self.choose,
            every=self.every,
            weights=self.weights,
            calibration_images=self.calibrate,
            held_out=self.judge,
        )


@dataclass(frozen=True, kw_only=True)
class Row:
    """A technique on a scene, on the inputs that judge.

    Attributes:
        scene, technique: names.
        settings: of the design that was chosen.
        removed: of the multiplications.
        speed_same, energy_same: against dense on the same array.
        speed_equal, energy_equal: against the best dense design of equal area.
        unit_mm2: area of the technique's units.
        dense, after: score, or 1 and the agreement with the dense network.
        kept_bytes: memory for what is kept from frame to frame, as the design stores it.
        bound: what holds the design up.
        within: whether it lost no more than a point where it was chosen.
        reason: why there are no numbers, if there are none.
    """

    scene: str
    technique: str
    settings: str = ""
    removed: float | None = None
    speed_same: float | None = None
    energy_same: float | None = None
    speed_equal: float | None = None
    energy_equal: float | None = None
    unit_mm2: float | None = None
    dense: float | None = None
    after: float | None = None
    kept_bytes: int | None = None
    bound: str = ""
    within: bool = True
    reason: str = ""

    def cells(self) -> list[str]:
        """As the table has them."""
        return ["" if value is None else _text(value) for value in vars(self).values()]

    @classmethod
    def headings(cls) -> list[str]:
        """Of the columns."""
        return [each.name.replace("_", " ") for each in fields(cls)]


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def base_with(units: Sequence[str]) -> Accelerator:
    """The array of the base with units that it lacks, as other ready designs have them.

    Raises:
        ConfigError: no ready design has one.
    """
    base = preset(BASE)
    missing = [name for name in units if getattr(base, name, None) is None]
    found: dict[str, Any] = {}
    for name in missing:
        owners = [each for each in presets().values() if getattr(each, name, None) is not None]
        if not owners:
            raise ConfigError(f"units must be of a ready design, got {name}; add a preset")
        found[name] = getattr(owners[-1], name)
    if {"lanes", "weight_tables"} & {*missing}:
        # Of so many lanes each has a bank of the activation buffer, which has 1,024 at most.
        found["array"] = replace(base.array, rows=32, columns=32, dataflow="output_stationary")
    return replace(base, **found)


def row_of(scene: Scene, workload: Workload, choice: str, folder: Path, trials: int) -> Row:
    """What a technique is worth on a scene: chosen on some inputs, judged on others.

    Args:
        scene: the network and inputs.
        workload: the same, captured.
        choice: a technique, several with `+` between them, or with `,` one of frames and others.
        folder: where the search is kept; one that is there goes on.
        trials: of the search.
    """
    names = tuple(choice.split(","))
    found = found_techniques(names)
    if not scene.frames and any(_is_temporal(each.name) for each in found):
        return Row(scene=scene.name, technique=choice, reason="inputs are no frames in a row")
    try:
        base = base_with([unit for each in found for unit in each.units])
        space = TechniqueSpace.for_techniques(
            workload.trace, base, (DENSE, *names), grouping=scene.grouping
        )
        storage = folder / f"{choice.replace(THEN, '_then_').replace(',', '_with_')}.journal"
        result = search(
            workload, space, trials=trials, storage=storage, resume=storage.exists(), workers=1,
            executor="inline",
        )  # fmt: skip
    except (ConfigError, TraceError) as error:
        return Row(scene=scene.name, technique=choice, reason=str(error).splitlines()[0])
    searched = result.space  # with dials allotted
    assert isinstance(searched, TechniqueSpace)
    own = {each.name for each in found}
    using = [
        trial
        for trial in result.of_state("complete")
        if searched.techniques_in(trial.parameters) == own
    ]
    if not using:
        failed = [t.reason for t in result.trials if t.reason]
        reason = failed[0].splitlines()[0] if failed else "no trial uses it"
        return Row(scene=scene.name, technique=choice, reason=reason)
    chosen, within = _chosen(using, result.baseline["accuracy"])
    return _judged(scene, workload, choice, searched, chosen, within)


def _is_temporal(name: str) -> bool:
    """Whether it keeps something from frame to frame."""
    entry = techniques()[name]
    return entry.word == "keep" or entry.axis == "frames"


def _chosen(trials: Sequence[Trial], dense: float) -> tuple[Trial, bool]:
    """The best that loses at most a point; else the one that loses least."""
    within = [each for each in trials if dense - (each.values or {})["accuracy"] <= POINT]
    if within:
        return min(within, key=energy_delay_ratio), True
    return max(trials, key=lambda each: (each.values or {})["accuracy"]), False


def _judged(
    scene: Scene,
    workload: Workload,
    choice: str,
    space: TechniqueSpace,
    trial: Trial,
    within: bool,
) -> Row:
    """A design on the inputs that judge."""
    design, policy = space.build(trial.parameters)
    assert workload.held_out is not None
    trace = workload.held_out
    with single_thread():
        run = decide(
            trace, policy, model=workload.model,
            calibration=workload.calibration or workload.trace, layer_errors=False,
        )  # fmt: skip
        report = simulate(trace, design, run)
    every = sum(layer.gemm.macs for layer in trace.layers)
    done = sum(layer.timing.macs for layer in report.reuse.layers)
    units = {unit for each in found_techniques(tuple(choice.split(","))) for unit in each.units}
    areas = area_by_part(design)
    dense, after = (
        (1.0, report.agreement)
        if report.dense_accuracy is None
        else (report.dense_accuracy, report.accuracy)
    )
    return Row(
        scene=scene.name,
        technique=choice,
        settings="; ".join(f"{g}: {t}" for g, t in space.reuse_texts(trial.parameters).items()),
        removed=1 - done / every,
        speed_same=report.speedup_equal_array,
        energy_same=report.energy_ratio_equal_array,
        speed_equal=report.speedup_equal_area,
        energy_equal=report.energy_ratio_equal_area,
        unit_mm2=sum(area for name, area in areas.items() if name in units),
        dense=dense,
        after=after,
        kept_bytes=report.reuse.kept_bytes,
        bound=report.reuse.bound_by,
        within=within,
    )
