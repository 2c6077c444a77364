"""Real networks, each with the best design of a small search over techniques; for study 017."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerators import preset
from codesign import Workload, load_workload, search
from codesign.space.technique_space import TECHNIQUE, TechniqueSpace
from codesign.space.techniques import DENSE, SHARING
from codesign.study.result import energy_delay_ratio
from codesign.study.trial import Trial

# May be lost, of the score or of the agreement with the dense network.
POINT = 0.01
# Network -> the same, trained under reuse, of those that come with weights.
TRAINED = {"resnet18_camvid": "resnet18_camvid_reuse"}
# Names of networks of the studies' own.
OWN = {"vit_cifar10": f"{Path(__file__).parent / 'small_vit.py'}:SmallViT"}


def network_rows(
    asked: Iterable[str],
    out: Path,
    *,
    trials: int,
    images: int,
    base: str = "every_64x64",
    weights: Mapping[str, str] | None = None,
    trained: Mapping[str, str] | None = None,
) -> list[dict[str, object]]:
    """A line for each network, and for those of them that were trained under reuse.

    Args:
        asked: `MODEL:INPUTS`, as `codesign search` takes them; or a name of `OWN`.
        out: where studies are kept, a folder each; a search that is there goes on.
        trials: of each search.
        images: to judge on.
        base: a preset with the units of all techniques.
        weights: network -> file of its weights.
        trained: the same of weights that were trained under reuse, for a second line.
    """
    rows = []
    for each in asked:
        model, _, inputs = each.partition(":")
        for name, network, file, after in _before_and_after(model, weights or {}, trained or {}):
            workload = load_workload(
                model=OWN.get(network, network),
                weights=file,
                inputs=inputs or "bikes",
                images=images,
                calibration_images=min(images, 4),
                calibrate_under_reuse=after,
            )
            row = network_row(workload, out / name, trials=trials, base=base)
            rows.append({"network": f"{name}, {workload.name.partition(' on ')[2]}", **row})
    return rows


def _before_and_after(
    model: str, weights: Mapping[str, str], trained: Mapping[str, str]
) -> Iterator[tuple[str, str, str | None, bool]]:
    """What a line is called, its network, file of weights, and whether it was trained for reuse."""
    yield model, model, weights.get(model), False
    if model in trained:
        yield f"{model}_trained", model, trained[model], True
    elif model in TRAINED:
        yield TRAINED[model], TRAINED[model], None, True


def network_row(
    workload: Workload,
    folder: Path,
    *,
    trials: int,
    base: str,
    techniques: Sequence[str] = tuple(SHARING),
) -> dict[str, object]:
    """The best design that loses at most a point; a dense one where no other pays.

    Best is the least product of time and energy, each over that of the best dense design as large.
    Beside it stands the best that reuses; where all of these lose more, that which loses least.
    """
    space = TechniqueSpace.for_techniques(workload.trace, preset(base), techniques)
    storage = folder / "study.journal"
    found = search(
        workload, space, trials=trials, storage=storage, resume=storage.exists(), workers=1,
        executor="inline",
    )  # fmt: skip
    best = found.best(accuracy_drop=POINT)
    assert best is not None  # dense designs are tried, and lose nothing
    dense = found.baseline["accuracy"]
    reusing = [each for each in found.judged if techniques_of(each, space)]
    within = [each for each in reusing if lost(each, dense) <= POINT]
    nearest = min(within, key=energy_delay_ratio, default=None) or min(
        reusing, key=lambda each: lost(each, dense), default=None
    )
    return {
        "judged by": found.quality,
        "products left": f"{products_left(best.summary):.2f}",
        "points lost": f"{100 * lost(best, dense):.1f}",
        "speed": f"{best.summary['speedup_equal_area']:.2f}x",
        "energy": f"{best.summary['energy_ratio_equal_area']:.2f}x",
        "techniques": ", ".join(techniques_of(best, space)) or "dense",
        "trial": f"{best.number} of {trials}",
        "with reuse: left, lost, speed, energy": "none"
        if nearest is None
        else f"{products_left(nearest.summary):.2f} {100 * lost(nearest, dense):.1f} "
        f"{nearest.summary['speedup_equal_area']:.2f}x "
        f"{nearest.summary['energy_ratio_equal_area']:.2f}x",
    }


def techniques_of(trial: Trial, space: TechniqueSpace) -> list[str]:
    """Those that some group uses."""
    used = {trial.parameters[f"{group}{TECHNIQUE}"] for group in space.groups}
    return sorted(used - {DENSE})


def lost(trial: Trial, dense: float) -> float:
    """Of the dense network's score, or of the agreement with it."""
    assert trial.values is not None
    return dense - trial.values["accuracy"]


def products_left(summary: Mapping[str, Any]) -> float:
    """Multiplications on the array over those of all layers."""
    layers = summary["designs"][summary["design"]]["layers"]
    every = sum(each["m"] * each["n"] * each["k"] * each["count"] for each in layers)
    return sum(each["macs"] for each in layers) / every
