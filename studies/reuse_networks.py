"""Real networks, each with the best design of a small search over techniques; for study 017."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerators import preset
from codesign import Workload, load_workload, search
from codesign.space.technique_space import TechniqueSpace
from codesign.space.techniques import TECHNIQUES
from codesign.study.trial import Trial

# May be lost, of the score or of the agreement with the dense network.
POINT = 0.01
# Network -> the same, trained under reuse.
TRAINED = {"resnet18_camvid": "resnet18_camvid_reuse"}


def network_rows(
    asked: Iterable[str], out: Path, *, trials: int, images: int, base: str = "every_64x64"
) -> list[dict[str, object]]:
    """A line for each network, and for those of them that were trained under reuse.

    Args:
        asked: `MODEL:INPUTS`, as `codesign search` takes them.
        out: where studies are kept, a folder each; a search that is there goes on.
        trials: of each search.
        images: to judge on.
        base: a preset with the units of all techniques.
    """
    rows = []
    for each in asked:
        model, _, inputs = each.partition(":")
        for name in filter(None, (model, TRAINED.get(model))):
            workload = load_workload(
                model=name,
                inputs=inputs or "bikes",
                images=images,
                calibration_images=min(images, 4),
                calibrate_under_reuse=name in TRAINED.values(),
            )
            rows.append(network_row(workload, out / name, trials=trials, base=base))
    return rows


def network_row(
    workload: Workload,
    folder: Path,
    *,
    trials: int,
    base: str,
    techniques: Sequence[str] = tuple(TECHNIQUES),
) -> dict[str, object]:
    """The best design that loses at most a point; a dense one where no other pays."""
    space = TechniqueSpace.for_techniques(workload.trace, preset(base), techniques)
    storage = folder / "study.journal"
    found = search(
        workload, space, trials=trials, storage=storage, resume=storage.exists(), workers=1,
        executor="inline",
    )  # fmt: skip
    best = best_of(found.judged, dense=found.baseline["accuracy"])
    used = sorted({best.parameters[f"{group}.technique"] for group in space.groups})
    lost = found.baseline["accuracy"] - best.values["accuracy"]
    return {
        "network": workload.name,
        "judged by": found.accuracy.words,
        "products left": f"{products_left(best.summary):.2f}",
        "points lost": f"{100 * lost:.1f}",
        "speed": f"{best.summary['speedup_equal_area']:.2f}x",
        "energy": f"{best.summary['energy_ratio_equal_area']:.2f}x",
        "techniques": ", ".join(used),
        "trial": f"{best.number} of {trials}",
    }


def best_of(trials: Iterable[Trial], *, dense: float) -> Trial:
    """Of those that lose at most a point, that with the least product of time and energy.

    Both are over the best dense design of the same area, so that dense designs have 1 and 1.
    """
    kept = [each for each in trials if each.values["accuracy"] >= dense - POINT]  # type: ignore[index]
    return min(
        kept,
        key=lambda each: (
            each.summary["energy_ratio_equal_area"] / each.summary["speedup_equal_area"],
            each.number,
        ),
    )


def products_left(summary: Mapping[str, Any]) -> float:
    """Multiplications on the array over those of all layers."""
    layers = summary["designs"][summary["design"]]["layers"]
    every = sum(each["m"] * each["n"] * each["k"] * each["count"] for each in layers)
    return sum(each["macs"] for each in layers) / every
