"""The nested search: each layer's own front of error and compression, all layers in parallel.

Treasure (equation 3) tunes the hashes and the length of each layer by Bayesian optimisation, before
and apart from anything else: a layer's error is known without the rest of the network. It is the
search of `codesign.study.search` on the problems of `codesign.evaluation.layers`, a trial of each
layer at a time; the numbers depend on the seed, the layer and the number of a trial alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from accelerators import PROJECTIONS, ConfigError
from codesign.evaluation.evaluator import hashing_states, workload_digest
from codesign.evaluation.front import non_dominated
from codesign.evaluation.layers import LAYER_OBJECTIVES, LayerEvaluator, LayerSpace
from codesign.evaluation.workload import Workload
from codesign.optimisers.quiet import quiet_optuna
from codesign.space.checks import integer_problems
from codesign.study.layer_asking import LayerAsker, logarithms
from codesign.study.nested_store import (
    ACQUISITIONS,
    FORMAT_VERSION,
    open_layers,
    read_layers,
)
from codesign.study.records import Records
from codesign.study.runner import EXECUTORS, running
from codesign.study.search import SearchLoop, rounds
from codesign.study.shortfall import failures
from codesign.study.stored import SPECIFICATION, stored_parameters
from codesign.study.trial import Trial

# Called with how many trials of all layers are told, and how many there will be.
OnTold = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class LayerFront:
    """What was tried on one layer.

    Attributes:
        layer: its name.
        trials: those told, in the order of asking: parameters are settings of `LshReuse`, values
            those of `LAYER_OBJECTIVES`.
    """

    layer: str
    trials: tuple[Trial, ...]

    @cached_property
    def front(self) -> tuple[Trial, ...]:
        """Trials that no other beats, from the most exact to the most compressed."""
        complete = [(logarithms(each.values), each) for each in self.trials if each.values]
        points = np.array([point for point, _ in complete]).reshape(-1, 2)
        kept = non_dominated(points, [False, False])
        best = [pair for pair, keep in zip(complete, kept, strict=True) if keep]
        return tuple(trial for _, trial in sorted(best, key=lambda pair: pair[0]))

    @property
    def failures(self) -> str | None:
        """How many settings failed, and of what; `None` if none did."""
        reasons = [trial.reason for trial in self.trials if trial.values is None]
        return failures(reasons, len(self.trials), "settings")


@dataclass(frozen=True, kw_only=True)
class NestedResult:
    """A nested search, finished or not, as its file has it.

    Attributes:
        layers: in the order in which they are called.
        specification: what was searched and how.
    """

    layers: tuple[LayerFront, ...]
    specification: Mapping[str, Any]

    @property
    def fronts(self) -> dict[str, tuple[Mapping[str, Any], ...]]:
        """Layer -> settings along its front, as `DesignSpace.from_fronts` takes them."""
        return {each.layer: tuple(t.parameters for t in each.front) for each in self.layers}

    @property
    def unanswered(self) -> str | None:
        """Which layers have nothing on their front, and why; `None` where each has something."""
        empty = [layer for layer in self.layers if not layer.front]
        return "; ".join(f"{x.layer}: {x.failures or 'nothing tried'}" for x in empty) or None


def nested_search(
    workload: Workload,
    *,
    projection: str = "sign",
    top: int = 4,
    trials: int = 40,
    workers: int = 2,
    seed: int = 0,
    storage: str | Path,
    resume: bool = False,
    ray_address: str | None = None,
    acquisition: str = "logehvi",
    executor: str = "ray",
    on_progress: OnTold | None = None,
) -> NestedResult:
    """Find each layer's front of error and compression over H, L, thresholds and order.

    A layer's error is measured on its recorded activations, so it does not see reuse in the layers
    before. A layer whose first settings all fail alike is given up, see `NestedResult.unanswered`.

    Args:
        workload: its trace holds the activations.
        projection: what the front-end multiplies by, one of `PROJECTIONS`.
        top: how many layers, those with the most multiply-accumulates.
        trials: how many for each layer, those of a resumed search included.
        workers: layers at a time; does not change the numbers.
        seed: of the search, at least 0.
        storage: the file, `*.journal`, or a directory for `nested.journal`.
        resume: go on with what is there.
        ray_address: a Ray cluster to run on instead of this machine.
        acquisition: `logehvi`, the logarithm of the expected hypervolume improvement, is what
            Optuna's GPSampler maximises for two objectives. `ei` is the expected improvement (its
            logarithm) of one: an augmented Chebyshev function of both, with weights drawn anew for
            each trial (ParEGO). Either sees logarithms of error and compression.
        executor: `ray`, or `inline` to evaluate in this process.
        on_progress: see `OnTold`.

    Raises:
        ConfigError: an argument breaks a rule, or the file is not fit for this search.
        RayDiedError: Ray itself has ended; what was stored is kept.
    """
    numbers = {"trials": trials, "workers": workers, "seed": seed, "top": top}
    check_settings(numbers, acquisition=acquisition, executor=executor, projection=projection)
    evaluator = LayerEvaluator.of(workload, top=top, projection=projection)
    specifications = _specifications(workload, evaluator, seed, acquisition)
    path = nested_file(storage)
    with (
        quiet_optuna(),
        open_layers(path, specifications, resume=resume) as studies,
        running(executor, evaluator, workers, ray_address, _called) as run,
    ):
        loops = [
            SearchLoop(
                records=_records(studies[space.layer], path, space),
                asker=LayerAsker(space=space, seed=seed, acquisition=acquisition),
                trials=min(trials, space.settings),
            )
            for space in evaluator.spaces
        ]
        for _ in rounds(loops, run):
            if on_progress is not None:
                on_progress(sum(loop.finished for loop in loops), sum(x.trials for x in loops))
    return load_nested(path)


def load_nested(path: str | Path) -> NestedResult:
    """Read a nested search, finished or not.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    with quiet_optuna():
        studies = read_layers(nested_file(path))
        layers, specification = [], {}
        for name, study in studies.items():
            specification = study.user_attrs[SPECIFICATION]
            parameters = tuple(stored_parameters(specification["parameters"]))
            space = LayerSpace(layer=name, parameters=parameters)
            trials = _records(study, nested_file(path), space).trials()
            told = tuple(trial for trial in trials if trial.state != "running")
            layers.append(LayerFront(layer=name, trials=told))
    return NestedResult(layers=tuple(layers), specification=specification)


def fronts_of(path: str | Path, workload: Workload) -> dict[str, tuple[Mapping[str, Any], ...]]:
    """The fronts of a nested search of this workload, as `DesignSpace.from_fronts` takes them.

    Raises:
        ConfigError: there is no such search, it is of another workload, or not far enough.
    """
    found = load_nested(path)
    file = nested_file(path)
    layers = [each.layer for each in found.layers]
    is_same = {layer.name for layer in workload.trace.layers}.issuperset(layers) and (
        found.specification["digest"] == workload_digest(workload, hashing_states(workload, layers))
    )
    if not is_same:
        raise ConfigError(
            f"{file} must be a nested search of {workload.name} with the same weights, inputs and "
            f"calibration, got one of {found.specification['name']} with layers "
            f"{', '.join(layers)}; give the fronts of "
            "`codesign nested` with the same --model, --inputs, --images, --weights, --precision "
            "and --seed"
        )
    short = [each.layer for each in found.layers if not each.front]
    if short:
        raise ConfigError(
            f"{file} must hold a setting of every layer, got none of {', '.join(short)}; finish "
            "the search by --resume"
        )
    return found.fronts


def nested_file(path: str | Path) -> Path:
    """The journal that `path` means: itself, or `nested.journal` in a directory."""
    path = Path(path)
    return path if path.suffix == ".journal" else path / "nested.journal"


def _records(study: optuna.Study, path: Path, space: LayerSpace) -> Records:
    return Records(study=study, place=path, space=space, objectives=LAYER_OBJECTIVES)


def _called(_number: int, job: Mapping[str, Any]) -> str:
    return f"layer {job['layer']!r}"


def _specifications(
    workload: Workload, evaluator: LayerEvaluator, seed: int, acquisition: str
) -> dict[str, dict[str, Any]]:
    """Layer -> what is searched and how, as the JSON that the file keeps."""
    common = {
        "format_version": FORMAT_VERSION,
        "name": workload.name,
        "seed": seed,
        "projection": evaluator.projection,
        "acquisition": acquisition,
        "digest": workload_digest(workload, evaluator.states),
        "images": workload.trace.images,
    }
    specifications = {
        space.layer: common
        | {"parameters": [parameter.to_dict() for parameter in space.parameters]}
        for space in evaluator.spaces
    }
    return json.loads(json.dumps(specifications))


def check_settings(numbers: Mapping[str, Any], **names: str) -> None:
    """Refuse settings of `nested_search` that break a rule.

    Raises:
        ConfigError: naming each.
    """
    problems = integer_problems("nested_search ", numbers, {"seed": 0})
    known = {"acquisition": ACQUISITIONS, "executor": EXECUTORS, "projection": PROJECTIONS}
    problems += [
        f"nested_search {name} must be one of {', '.join(known[name])}, got {value!r}"
        for name, value in names.items()
        if value not in known[name]
    ]
    if problems:
        raise ConfigError(problems)
