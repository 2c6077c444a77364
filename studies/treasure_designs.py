"""Designs for networks trained under reuse: a search for each, and the paper's row beside ours."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from paper_tables import published
from reuse_networks import products_left, techniques_of
from streets import CALIBRATION_FRAMES, POINT, Settings, Streets, policy_of, traced, tried
from torch import nn

from accelerators import preset
from codesign import StudyResult, Workload, search
from codesign.space.technique_space import TECHNIQUE, TechniqueSpace
from codesign.space.techniques import DENSE, SHARING
from codesign.study.result import energy_delay_ratio
from codesign.study.trial import Trial
from simulator import decide, simulate

# Has the units of all techniques.
BASE = "every_64x64"
# Frames of the drive to choose on that designs are searched on, and of the one to judge on.
SEARCHED_FRAMES, JUDGED_FRAMES = 8, 20
# Name of the start that is the policy the network was trained under.
TRAINED = "trained"
# Network -> patterns of the layers that choose a technique together: a stage each, without the
# first layer, which runs dense. Swin's products of attention, which end in s, run dense too.
_STAGES = ("layer1.*", "layer2.*", "layer3.*", "layer4.*")
GROUPS: dict[str, tuple[str, ...]] = {
    "resnet18": (*_STAGES, "decoder.*"),
    "swin": (*(f"backbone.swin.encoder.layers.{stage}.*[!s]" for stage in range(3)), "decoder.*"),
    "resnet38": (*(f"b{stage}.*" for stage in range(2, 8)), "head.*"),
    "psanet": (*_STAGES, "psa.*", "cls.*"),
    "resnest": ("conv1.[36]", *_STAGES, "decoder.*"),
}
_TASKS = {"scenes": "scene_parsing", "lanes": "lane_detection"}


def space_of(
    workload: Workload,
    groups: Sequence[str],
    settings: Settings,
    techniques: Sequence[str],
) -> TechniqueSpace:
    """The space over techniques, with what the network was trained under among its starts.

    LSH may also share within whole images and cut rows as PyTorch unfolds them, as SA-training has
    it. One length serves all groups, cut to a layer's rows, and one number of hashes each group: of
    settings of each layer's own, the longest and the most frequent. A search sets hashes by what it
    measures that groups bear; `hardware_of` keeps those of the training.

    Args:
        workload: of the network.
        groups: patterns of layers.
        settings: that the network was trained under.
        techniques: LSH among them.
    """
    length = max(each[1] for each in settings.values())
    space = TechniqueSpace.for_techniques(
        workload.trace, preset(BASE), techniques, grouping=",".join(groups)
    )
    choices = {parameter.name: parameter.choices for parameter in space.parameters}
    policy = next(iter(policy_of(settings).policies.values()))
    fields: dict[str, Sequence[Any]] = {
        "lsh.scope": ("tile", policy.scope),
        "lsh.order": ("channels_last", policy.order),
        "lsh.length": sorted({*choices["lsh.length"], length}),
    }
    trained = {
        "lsh.scope": policy.scope,
        "lsh.order": policy.order,
        "lsh.look_once": policy.look_once,
        "lsh.length": length,
        "front_end.projection": policy.projection,
    }
    for group, layers in space.groups.items():
        own = Counter(settings[name][0] for name in layers if name in settings)
        trained[f"{group}{TECHNIQUE}"] = "lsh" if own else DENSE
        if own:
            name = f"{group}.lsh.hashes"
            trained[name] = own.most_common(1)[0][0]
            fields[name] = sorted({*choices[name], trained[name]})
    wider = space.narrowed(fields)
    assert isinstance(wider, TechniqueSpace)
    start = wider.start["start"]
    return replace(wider, start={**wider.start, TRAINED: {**start, **trained}})


def hardware_of(space: TechniqueSpace) -> TechniqueSpace:
    """The hardware of a space alone, under the policy that the network was trained under.

    Its decisions are made once; trials differ in what they run on.
    """
    trained = space.start[TRAINED]
    parameters = tuple(
        replace(each, choices=(trained[each.name],)) if each.name in space.of_decisions else each
        for each in space.parameters
    )
    return replace(space, parameters=parameters, start={TRAINED: trained})


def best_design(
    name: str,
    aware: nn.Module,
    original: nn.Module,
    streets: Streets,
    settings: Settings,
    folder: Path,
    *,
    trials: int,
) -> dict[str, dict[str, Any]]:
    """What searches find for a network trained under reuse, judged on the drive to judge on.

    Args:
        name: of the network, as in `MODELS`.
        aware: trained under reuse.
        original: trained dense; scores are against its.
        streets: drives.
        settings: that `aware` was trained under.
        folder: where the studies are kept; those that are there go on.
        trials: of each of two searches: for hardware under the policy of the training, whose
            decisions are made once, and over techniques, that policy among them.

    Returns:
        "trained": under the policy of the training. "best": of all trials that reuse and lose at
        most a point on the frames searched on. Each is that with the least product of time and
        energy over those of the best dense design as large; where all lose more than a point, that
        which loses least.
    """
    workload = Workload(
        trace=traced(aware, streets, streets.choose, SEARCHED_FRAMES),
        model=aware,
        calibration=traced(aware, streets, streets.train, CALIBRATION_FRAMES),
        calibrate_under_reuse=True,
        name=f"{name} on {SEARCHED_FRAMES} frames of {streets.choose.source}",
    )
    groups = GROUPS[name.partition("_")[0]]
    hardware = hardware_of(space_of(workload, groups, settings, ("lsh",)))
    trained = _searched(workload, hardware, folder / "hardware", trials)
    free = space_of(workload, groups, settings, tuple(SHARING))
    any_policy = _searched(workload, free, folder / "techniques", trials)
    dense = tried(original, streets, streets.choose, SEARCHED_FRAMES, {})["score"]
    score = tried(original, streets, streets.judge, JUDGED_FRAMES, {})["score"]
    judged = replace(workload, trace=traced(aware, streets, streets.judge, JUDGED_FRAMES))
    found = {}
    for which, studies in ((TRAINED, (trained,)), ("best", (trained, any_policy))):
        study, trial = cheapest(studies, free.groups, dense)
        found[which] = on_other_frames(study, trial, judged) | {
            "original": score,
            "techniques": techniques_of(trial, free),
            "left": products_left(trial.summary),
            "trial": trial.number,
        }
    return found


def _searched(workload: Workload, space: TechniqueSpace, folder: Path, trials: int) -> StudyResult:
    storage = folder / "study.journal"
    return search(
        workload, space, trials=trials, storage=storage, resume=storage.exists(), workers=1,
        executor="inline",
    )  # fmt: skip


def cheapest(
    studies: Iterable[StudyResult], groups: Iterable[str], dense: float
) -> tuple[StudyResult, Trial]:
    """Of the trials that reuse, and the study that it is of; see `best_design`.

    Args:
        studies: searches.
        groups: that choose techniques.
        dense: score of the network trained dense.
    """
    switches = [f"{group}{TECHNIQUE}" for group in groups]
    reusing = [
        (study, trial)
        for study in studies
        for trial in study.judged
        if any(trial.parameters[switch] != DENSE for switch in switches)
    ]
    best = max(trial.values["accuracy"] for _, trial in reusing)
    least = min(best, dense - POINT)
    within = [pair for pair in reusing if pair[1].values["accuracy"] >= least]
    return min(within, key=lambda pair: energy_delay_ratio(pair[1]))


def on_other_frames(study: StudyResult, trial: Trial, workload: Workload) -> dict[str, Any]:
    """Score, speed and energy at equal area of a trial's design on the workload's frames."""
    design, policy = study.design_of(trial)
    run = decide(
        workload.trace, policy, model=workload.model, calibration=workload.calibration,
        calibrate_under_reuse=True, layer_errors=False,
    )  # fmt: skip
    report = simulate(workload.trace, design, run)
    assert run.accuracy is not None
    return {
        "score": run.accuracy,
        "speed": report.speedup_equal_area,
        "energy": report.energy_ratio_equal_area,
    }


def told_designs(row: Mapping[str, Any]) -> list[dict[str, object]]:
    """Lines of a table of a row's designs."""
    words = {TRAINED: "policy of the training", "best": "best that reuses"}
    return [
        {
            "design": words[which],
            "score": f"{100 * each['score']:.1f}",
            "points lost": f"{100 * (each['original'] - each['score']):.1f}",
            "products left": f"{each['left']:.2f}",
            "speed": f"{each['speed']:.2f}x",
            "energy": f"{each['energy']:.2f}x",
            "techniques": ", ".join(each["techniques"]),
            "trial": each["trial"],
        }
        for which, each in row["designs"].items()
    ]


def row_of_the_paper(name: str, precision: str) -> dict[str, str] | None:
    """The paper's row of a network and precision, if it has one."""
    network, _, task = name.partition("_")
    model = network if precision == "float32" else f"{network}_8bit"
    rows = published("treasure_table_2.csv")
    return next((r for r in rows if (r["task"], r["model"]) == (_TASKS[task], model)), None)


def beside_the_paper(row: Mapping[str, Any]) -> dict[str, object]:
    """Our row of Table 2 and the paper's; speeds are those of the designs found, if any."""
    theirs = row_of_the_paper(*row["network"].split())
    lines = row["lines"]
    aware = lines["SA-trained"]
    best = row.get("designs", {}).get("best")
    ours = {
        "row": row["network"],
        "original": f"{100 * lines['dense']['score']:.1f}",
        "SA-trained": f"{100 * aware['score']:.1f}",
        "removed": f"{aware['removed']:.1%}",
        "speed": f"{aware['area'] if best is None else best['speed']:.2f}x",
    }
    if theirs is None:
        return ours | dict.fromkeys(_OF_THE_PAPER, "")
    values = (
        f"{float(theirs['original_score']):.1f}",
        f"{float(theirs['sa_trained_score']):.1f}",
        f"{float(theirs['compression_percent']):.1f}%",
        f"{float(theirs['inference_speedup']):.2f}x",
    )
    return ours | dict(zip(_OF_THE_PAPER, values, strict=True))


_OF_THE_PAPER = ("paper: original", "paper: SA-trained", "paper: removed", "paper: speed, Pi 3")
