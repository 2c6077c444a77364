"""A street drive, a wide network on it, and designs judged there: what study 018 stands on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from reuse_networks import POINT

from accelerators import Accelerator, ConfigError, area_by_part, preset
from codesign import Constraints, StudyPlan, StudyResult, Workload, load_study, load_workload
from codesign.evaluation.allotting import with_dials_allotted
from codesign.evaluation.evaluator import Evaluator
from codesign.evaluation.held_out import held_out_evaluator
from codesign.evaluation.threads import single_thread
from codesign.space.fields import field_value, with_fields
from codesign.space.technique_space import TechniqueSpace
from codesign.space.techniques import DENSE
from simulator import DesignReport, SimulationReport, decide, simulate
from simulator.timing.dense_baseline import time_dense, with_rates
from workloads import Layer

DRIVES = ("seq_0016E5_15hz", "test_1hz")
MODEL = "resnet18_w64_camvid"
BASE = "every_64x64"
GROUPING = (
    "layer1.0.conv1,layer1.0.conv2,layer1.*,layer2.?.conv?,layer3.?.conv?,layer4.?.conv?,"
    "decoder.smooth.0"
)
# Of the drive at 5 Hz: two frames to calibrate on, ten to choose on, and the twenty that follow.
CHOOSE, UNSEEN, OTHERS = "choose", "unseen", "others"
CHOSEN_ON, JUDGED, EVERY, CALIBRATING = 10, 20, 3, 2
# Of the other drives, at 1 Hz, every so-manieth.
OTHERS_EVERY = 12
# The start that techniques are compared at: relative squared errors of the answers add up to it.
START = "error_0.08"

# Arrays and capacities of buffers, in bytes, among which the thriftiest dense design is looked for.
ARRAYS = tuple(product((32, 64, 96), repeat=2))
CAPACITIES = tuple(1 << bits for bits in (16, 18, 20))
OUTPUT_CAPACITIES = CAPACITIES[:2]

# What is changed on a design -> path of a field of a unit, and by how much it is multiplied.
CHANGES = {
    "twice the bandwidth of DRAM": ("dram.bandwidth_bytes_per_cycle", 2),
    "twice the leader table's lanes": ("leader_table.lanes", 2),
    "twice the gathering lanes": ("reconstructor.width", 2),
    "twice the centroid buffer": ("centroid_buffer.capacity_bytes", 2),
    "twice the output buffer": ("output_buffer.capacity_bytes", 2),
    "an eighth of the weight buffer": ("weight_buffer.capacity_bytes", 1 / 8),
}


def plan_of(drive: Path, trials: int, workers: int) -> StudyPlan:
    """The search that README shows, on a drive."""
    return StudyPlan(
        model=MODEL, inputs=f"camvid:{drive}", every=EVERY, images=CHOSEN_ON,
        calibration_images=CALIBRATING, held_out=JUDGED,
        constraints=Constraints(accuracy_loss=POINT),
        accelerator=BASE, techniques=(DENSE, "leaders"), grouping=GROUPING, trials=trials,
        workers=workers,
    )  # fmt: skip


def other_drives(folder: Path) -> Workload:
    """The network on frames of other drives."""
    return load_workload(
        model=MODEL, inputs=f"camvid:{folder}", every=OTHERS_EVERY, images=JUDGED,
        calibration_images=0,
    )  # fmt: skip


def searched(plan: StudyPlan, workload: Workload, folder: Path) -> StudyResult:
    """Search, go on, or read what is there."""
    storage = folder / "study.journal"
    if storage.exists():
        found = load_study(storage)
        if found.held_out is not None and len(found.trials) == plan.trials:
            return found
    return plan.search(workload, storage=folder, resume=storage.exists())


@dataclass(frozen=True, kw_only=True, eq=False)
class Street:
    """The network on the frames to choose on, and what judges a space's designs on all of them.

    Attributes:
        workload: on the frames to choose on; those that are not seen are held out.
        others: on frames of other drives.
        space: of the designs.
    """

    workload: Workload
    others: Workload
    space: TechniqueSpace

    @cached_property
    def _on(self) -> dict[str, Evaluator]:
        full = Evaluator.of(self.workload, self.space)
        others = replace(self.workload, held_out=self.others.trace)
        unseen, elsewhere = (held_out_evaluator(x, full) for x in (self.workload, others))
        assert unseen is not None and elsewhere is not None  # both have inputs
        return {CHOOSE: full, UNSEEN: unseen, OTHERS: elsewhere}

    def judged(self, parameters: Mapping[str, Any], frames: str) -> dict[str, Any]:
        """What is known of a design on some frames, as `SimulationReport.to_dict` tells it.

        Raises:
            ConfigError: it is no design, or failed.
        """
        found = self._on[frames](parameters)
        if found.values is None:
            raise ConfigError(f"parameters must make a design that runs, got {found.reason}")
        return found.summary


def allotted_start(workload: Workload, technique: str) -> tuple[TechniqueSpace, Mapping | None]:
    """The space of a technique and the setting in which its groups share what they bear; `None`
    where no setting keeps to the error."""
    space = TechniqueSpace.for_techniques(
        workload.trace, preset(BASE), (DENSE, technique), grouping=GROUPING
    )
    space = with_dials_allotted(space, workload)
    return space, space.start.get(START)


def changed(
    workload: Workload, space: TechniqueSpace, parameters: Mapping[str, Any]
) -> dict[str, SimulationReport]:
    """A design as it is, and with one thing changed at a time; decisions are the same.

    What a design cannot have is left out: a leader table has no more lanes than entries.
    """
    design, policy = space.build(parameters)
    with single_thread():
        run = decide(
            workload.trace, policy, model=workload.model, calibration=workload.calibration,
            layer_errors=False,
        )  # fmt: skip
        found = {"as it is": simulate(workload.trace, design, run)}
        for name, (path, times) in CHANGES.items():
            value = field_value(design, path)
            if value is None:
                continue
            try:
                other = with_fields(design, {path: type(value)(value * times)})
                found[name] = simulate(workload.trace, other, run)
            except ConfigError:  # all leaders are compared at once already
                continue
    return found


def dense_designs(
    layers: tuple[Layer, ...], base: Accelerator, largest_mm2: float
) -> list[dict[str, Any]]:
    """Dense designs of many sizes, as `thriftiest` takes them: what, area, cycles and energy.

    Args:
        layers: of a batch of images.
        base: without its reuse units, what else the designs have.
        largest_mm2: larger ones are left out.
    """
    plain, images = base.without_reuse(), layers[0].images
    found = []
    for (rows, columns), *sizes in product(ARRAYS, CAPACITIES, CAPACITIES, OUTPUT_CAPACITIES):
        array = replace(plain.array, rows=rows, columns=columns)
        try:
            design = with_rates(plain, array, tuple(sizes))
            area_mm2 = sum(area_by_part(design).values())
            if area_mm2 > largest_mm2:
                continue
            report = DesignReport.of(design, time_dense(layers, design), images)
        except ConfigError:  # a buffer holds no tile of a layer
            continue
        found.append(
            {
                "design": f"{rows}x{columns}, buffers of {', '.join(f'{x >> 10}' for x in sizes)} "
                "KiB",
                "mm2": area_mm2,
                "cycles": report.cycles / images,
                "energy_pj": report.total_energy_pj / images,
            }
        )
    return found


def thriftiest(designs: Sequence[Mapping[str, Any]], area_mm2: float) -> Mapping[str, Any]:
    """Of those no larger, the one with the least energy."""
    return min(
        (each for each in designs if each["mm2"] <= area_mm2), key=lambda each: each["energy_pj"]
    )
