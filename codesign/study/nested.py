"""The nested search: each layer's own front of error and compression, all layers in parallel.

Treasure (equation 3) tunes the hashes and the length of each layer by Bayesian optimisation, before
and apart from anything else: a layer's error is known without the rest of the network. The numbers
depend on the seed, the layer and the number of a trial, not on workers or interruptions.
"""

from __future__ import annotations

import itertools
import json
import math
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from accelerators import PROJECTIONS, ConfigError
from codesign.evaluation.evaluator import Evaluation, InMemory, hashing_states, workload_digest
from codesign.evaluation.front import non_dominated
from codesign.evaluation.threads import single_thread
from codesign.evaluation.workload import Workload
from codesign.optimisers.quiet import quiet_optuna
from codesign.space.checks import integer_problems
from codesign.space.parameters import Parameter, layer_parameters, reusable_layers
from codesign.study.nested_store import (
    ACQUISITIONS,
    FORMAT_VERSION,
    open_layers,
    read_layers,
    stored_parameter,
)
from codesign.study.runner import EXECUTORS, running
from codesign.study.shortfall import are_alike, failures
from codesign.study.store import storing
from codesign.study.stored import SPECIFICATION
from simulator import LshReuse, PerLayer, decide
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace

# Random settings of a layer before the Gaussian process takes over.
STARTUP_TRIALS = 8
# Hashes H and length L of the first setting tried, or the nearest: those of Deep Reuse's conv2.
START = {"hashes": 10, "length": 10, "thresholds": "spread", "order": "channels_first"}
# A smaller error is as good as none: squares of float32 rounding are of this size.
_LEAST_ERROR = 1e-12
# Of the sum in the augmented Chebyshev function (Knowles, IEEE Trans. Evol. Comput. 10(1), 2006).
_RHO = 0.05

# Called with how many trials of all layers are told, and how many there will be.
OnTold = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class LayerTrial:
    """One setting of one layer's reuse.

    Attributes:
        settings: parameters of `LshReuse`.
        relative_mse: squared error of the layer's result over the dense one's square, on the
            recorded activations; `None` where it failed.
        compression: |X| / |X_c| = 1 / r_c, sub-vectors over clusters, at least 1; `None` likewise.
        reason: why it failed, else `None`.
        seconds: time of the evaluation.
    """

    settings: Mapping[str, Any]
    relative_mse: float | None = None
    compression: float | None = None
    reason: str | None = None
    seconds: float = 0.0

    @property
    def objectives(self) -> tuple[float, float]:
        """Logarithms of error and inverse compression, both to be made small."""
        assert self.relative_mse is not None and self.compression is not None
        return math.log10(max(self.relative_mse, _LEAST_ERROR)), -math.log10(self.compression)


@dataclass(frozen=True, kw_only=True)
class LayerFront:
    """What was tried on one layer.

    Attributes:
        layer: its name.
        trials: in the order of asking.
    """

    layer: str
    trials: tuple[LayerTrial, ...]

    @cached_property
    def front(self) -> tuple[LayerTrial, ...]:
        """Trials that no other beats, from the most exact to the most compressed."""
        complete = [trial for trial in self.trials if trial.reason is None]
        points = np.array([trial.objectives for trial in complete]).reshape(-1, 2)
        kept = non_dominated(points, [False, False])
        best = [trial for trial, keep in zip(complete, kept, strict=True) if keep]
        return tuple(sorted(best, key=lambda trial: trial.objectives))

    @property
    def failures(self) -> str | None:
        """How many settings failed, and of what; `None` if none did."""
        reasons = [trial.reason for trial in self.trials if trial.reason is not None]
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
        return {each.layer: tuple(t.settings for t in each.front) for each in self.layers}

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
    chunk: int = 8,
    executor: str = "ray",
    on_progress: OnTold | None = None,
) -> NestedResult:
    """Find each layer's front of error and compression over H, L, thresholds and order.

    A worker asks and evaluates `chunk` trials of one layer after the other, each knowing all before
    it; the driver stores them. A layer's error is measured on its recorded activations, so it does
    not see reuse in the layers before.

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
        chunk: trials of a layer that a worker makes before they are stored; does not change the
            numbers. A worker that dies costs these.
        executor: `ray`, or `inline` to evaluate in this process.
        on_progress: see `OnTold`.

    Returns:
        What was tried. A layer of which a chunk fails, all alike, is given up, see
        `NestedResult.unanswered`.

    Raises:
        ConfigError: an argument breaks a rule, or the file is not fit for this search.
        RuntimeError: a worker could not finish, or Ray itself has ended (`RayDiedError`); what was
            stored is kept.
    """
    numbers = {"trials": trials, "workers": workers, "seed": seed, "chunk": chunk, "top": top}
    check_settings(numbers, acquisition=acquisition, executor=executor, projection=projection)
    evaluator = LayerEvaluator.of(
        workload, top=top, projection=projection, seed=seed, acquisition=acquisition
    )
    path = nested_file(storage)
    with (
        quiet_optuna(),
        open_layers(path, _specifications(workload, evaluator), resume=resume) as studies,
        running(executor, evaluator, workers, ray_address, _called) as run,
    ):
        told = {
            name: list(_read(study, evaluator.parameters[name])) for name, study in studies.items()
        }
        total = sum(evaluator.most_trials(name, trials) for name in told)
        going = dict(told)  # without the layers that nothing can be found for
        while jobs := evaluator.jobs(going, trials, chunk):
            for number, outcome in run(jobs.items()):
                name = jobs[number]["layer"]
                if outcome.state != "complete":
                    raise RuntimeError(f"search of layer {name!r} failed: {outcome.reason}")
                made = [LayerTrial(**each) for each in outcome.summary["trials"]]
                with storing(path):
                    for trial in made:
                        _store(studies[name], evaluator.parameters[name], trial)
                told[name] += made
                reasons = [trial.reason for trial in made]
                if all(t.reason is not None for t in told[name]) and are_alike(reasons):
                    del going[name]
                if on_progress is not None:
                    on_progress(sum(map(len, told.values())), total)
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
            parameters = [stored_parameter(each) for each in specification["parameters"]]
            layers.append(LayerFront(layer=name, trials=tuple(_read(study, parameters))))
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


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerEvaluator:
    """Asks for settings of a layer and evaluates them; travels to any machine.

    Attributes:
        trace: with the tensors of the layers.
        states: layer name -> what hashing learned of the activations.
        parameters: layer name -> what is chosen.
        projection, seed, acquisition: as in `nested_search`.
        model: none is run.
    """

    trace: WorkloadTrace
    states: Mapping[str, Any]
    parameters: Mapping[str, tuple[Parameter, ...]]
    projection: str
    seed: int
    acquisition: str
    model: None = None

    @classmethod
    def of(
        cls, workload: Workload, *, top: int, projection: str, seed: int, acquisition: str
    ) -> LayerEvaluator:
        """Calibrate, and take what the files hold of the layers to memory."""
        trace = workload.trace
        layers = reusable_layers(trace, top)
        return cls(
            trace=replace(trace, files=InMemory(trace.files)),
            states=hashing_states(workload, [layer.name for layer in layers]),
            parameters={layer.name: clustering_parameters(layer) for layer in layers},
            projection=projection,
            seed=seed,
            acquisition=acquisition,
        )

    def most_trials(self, name: str, trials: int) -> int:
        """So many as asked for, if a layer has as many settings."""
        return min(trials, math.prod(len(p.choices) for p in self.parameters[name]))

    def jobs(
        self, told: Mapping[str, Sequence[LayerTrial]], trials: int, chunk: int
    ) -> dict[int, dict[str, Any]]:
        """The next trials of each layer that is not done."""
        jobs = {}
        for number, (name, known) in enumerate(told.items()):
            count = min(chunk, self.most_trials(name, trials) - len(known))
            if count > 0:
                known_trials = [asdict(trial) for trial in known]
                jobs[number] = {"layer": name, "known": known_trials, "count": count}
        return jobs

    def __call__(self, job: Mapping[str, Any]) -> Evaluation:
        """Make `count` more trials of a layer of which some are known."""
        start = time.perf_counter()
        name, told = job["layer"], [LayerTrial(**each) for each in job["known"]]
        made: list[LayerTrial] = []
        with quiet_optuna(), single_thread():
            for _ in range(job["count"]):
                settings = self.ask(name, told + made)
                made.append(self.evaluate(name, settings))
        return Evaluation(
            state="complete",
            summary={"trials": [asdict(trial) for trial in made]},
            seconds=time.perf_counter() - start,
        )

    def evaluate(self, name: str, settings: Mapping[str, Any]) -> LayerTrial:
        """Error and compression of a layer on its recorded activations."""
        start = time.perf_counter()
        try:
            policy = PerLayer({name: LshReuse(projection=self.projection, **settings)})
            run = decide(self.trace, policy, calibration=self.states)
            decisions = run.decisions[name]
            assert decisions is not None, "hashing decides on every layer that it applies to"
        except Exception:
            trial = LayerTrial(settings=settings, reason=traceback.format_exc())
        else:
            error = run.relative_mse[name]
            trial = LayerTrial(
                settings=settings,
                relative_mse=error,
                compression=decisions.shared.sub_vectors / decisions.shared.total_clusters,
            )
            if error is None or not math.isfinite(error):
                reason = f"ValueError: the layer's error must be finite, got {error}"
                trial = LayerTrial(settings=settings, reason=reason)
        return replace(trial, seconds=time.perf_counter() - start)

    def ask(self, name: str, told: Sequence[LayerTrial]) -> dict[str, Any]:
        """The next setting of a layer, never one that was told."""
        parameters = self.parameters[name]
        if not told:
            return {p.name: p.nearest(START[p.name]) for p in parameters}
        tried = {_key(trial.settings) for trial in told}
        # Of a name, the checksum is the same on every machine.
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode()), len(told)])
        asked = self._suggest(parameters, told, rng)
        if _key(asked) not in tried:
            return asked
        # The Gaussian process likes to repeat itself on a discrete space: look elsewhere.
        every = itertools.product(*(p.choices for p in parameters))
        names = [p.name for p in parameters]
        settings = [dict(zip(names, values, strict=True)) for values in every]
        left = [each for each in settings if _key(each) not in tried]
        return left[rng.integers(len(left))]

    def _suggest(
        self, parameters: Sequence[Parameter], told: Sequence[LayerTrial], rng: np.random.Generator
    ) -> dict[str, Any]:
        complete = [trial for trial in told if trial.reason is None]
        values = np.array([trial.objectives for trial in complete]).reshape(-1, 2)
        if self.acquisition == "ei":
            values = _chebyshev(values, rng)
        sampler = optuna.samplers.GPSampler(
            seed=int(rng.integers(2**32)),
            n_startup_trials=STARTUP_TRIALS,
            warn_independent_sampling=False,
        )
        view = optuna.create_study(directions=["minimize"] * values.shape[1], sampler=sampler)
        distributions = {p.name: p.distribution for p in parameters}
        for trial, point in zip(complete, values, strict=True):
            stored = {p.name: p.encode(trial.settings[p.name]) for p in parameters}
            view.add_trial(
                create_trial(params=stored, distributions=distributions, values=list(point))
            )
        params = view.ask(distributions).params
        return {p.name: p.decode(params[p.name]) for p in parameters}


def _called(_number: int, job: Mapping[str, Any]) -> str:
    return f"layer {job['layer']!r}"


def clustering_parameters(layer: Layer) -> tuple[Parameter, ...]:
    """Hashes, length, thresholds, and the order of a convolution's rows where there are two."""
    own = f"{layer.name}."
    parameters = [
        replace(p, name=p.name.removeprefix(own))
        for p in layer_parameters(layer, may_run_dense=False)
        if p.name != f"{own}reuse"
    ]
    parameters.append(
        Parameter(name="thresholds", choices=("zero", "mean", "spread"), ordered=False)
    )
    if layer.convolution is not None and math.prod(layer.convolution.kernel) > 1:
        orders = ("channels_first", "channels_last")
        parameters.append(Parameter(name="order", choices=orders, ordered=False))
    return tuple(parameters)


def _chebyshev(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`(trials, 1)`: the worse of two weighted objectives, and a little of their sum (ParEGO)."""
    low, high = values.min(axis=0, initial=np.inf), values.max(axis=0, initial=-np.inf)
    weights = rng.dirichlet([1.0, 1.0])
    weighted = weights * (values - low) / np.where(high > low, high - low, 1.0)
    return (weighted.max(axis=1) + _RHO * weighted.sum(axis=1))[:, None]


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(dict(settings), sort_keys=True)


def _store(study: optuna.Study, parameters: Sequence[Parameter], trial: LayerTrial) -> None:
    """One line of the journal."""
    values = [trial.relative_mse, trial.compression]
    known = [value for value in values if value is not None]
    study.add_trial(
        create_trial(
            state=TrialState.COMPLETE if known else TrialState.FAIL,
            values=known or None,
            params={p.name: p.encode(trial.settings[p.name]) for p in parameters},
            distributions={p.name: p.distribution for p in parameters},
            user_attrs={"reason": trial.reason, "seconds": trial.seconds},
        )
    )


def _read(study: optuna.Study, parameters: Sequence[Parameter]) -> Iterator[LayerTrial]:
    for frozen in study.get_trials(deepcopy=False):
        error, compression = frozen.values or (None, None)
        yield LayerTrial(
            settings={p.name: p.decode(frozen.params[p.name]) for p in parameters},
            relative_mse=error,
            compression=compression,
            **frozen.user_attrs,
        )


def _specifications(workload: Workload, evaluator: LayerEvaluator) -> dict[str, dict[str, Any]]:
    """Layer -> what is searched and how, as the JSON that the file keeps."""
    common = {
        "format_version": FORMAT_VERSION,
        "name": workload.name,
        "seed": evaluator.seed,
        "projection": evaluator.projection,
        "acquisition": evaluator.acquisition,
        "digest": workload_digest(workload, evaluator.states),
        "images": workload.trace.images,
    }
    specifications = {
        name: common
        | {
            "parameters": [
                {"name": p.name, "choices": list(p.choices), "ordered": p.ordered}
                for p in parameters
            ]
        }
        for name, parameters in evaluator.parameters.items()
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
