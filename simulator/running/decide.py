"""The functional path: what a model computes when the policy's decisions are applied.

Decisions are made here, once; `simulate` replays the same ones on the hardware. A quantised layer's
are made on its integers (less the zero point), and its centroids are integers again, as those of an
8-bit array are: the accuracy is that of the hardware.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators import ConfigError
from accelerators.rules import show
from simulator.decisions.box import Decisions
from simulator.decisions.error import centroid_error
from simulator.decisions.rows import SharedRows
from simulator.kernels.gathering import squared_sums
from simulator.policies.activations import Activations
from simulator.policies.policy import LayerMemory, LayerState, ReusePolicy
from simulator.results.intervals import Interval
from simulator.running import executor
from simulator.running.calibration import calibrate, check_learns_under_reuse, states_of
from simulator.running.captured import check_model, run_model
from simulator.running.quality import finite, quality_of
from simulator.running.remembered import DecisionCache, LayerAnswer, RunKeys
from simulator.running.stream_memory import StreamMemory
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    import torch

    from workloads.capturing.hook import GemmCall


@dataclass(frozen=True, kw_only=True)
class ReuseRun:
    """Every layer's decisions on one stream of inputs, and what they did to the outputs.

    Attributes:
        policy: the policy, as `ReusePolicy.describe` gives it.
        images: inputs in the batch.
        decisions: layer name -> its decisions, `None` where the layer runs dense.
        relative_mse: layer name -> mean squared error of the layer's GEMM result against the dense
            result *on the same input*, divided by the mean square of the dense result. Only
            layers with decisions; empty if it was not asked for.
        centroid_error: layer name -> Err_c, the sum of squared distances of the layer's
            sub-vectors to what stands for them (Deep Reuse, section IV), on the layer's input
            under reuse. Likewise.
        calibrated_on: what the policy learned from beforehand: the judged inputs themselves, which
            flatters it, or inputs given for it, and whether under reuse; `None` if it learned
            nothing.
        accuracy: the trace's `score`: by default the fraction of answers whose class is the label;
            `None` without labels, if the model was not run, or if its judged output has no classes,
            see `workloads.traces.judged.classes_in`.
        dense_accuracy: the same of the dense model.
        agreement: fraction of images (of answers, where an image has several, one a pixel or
            position) whose class is the dense model's; `None` if the model was not run, or its
            judged output has no classes that could be compared.
        answers: `(images,)`, `(images, height, width)` or so, the class of each answer under reuse;
            `None` likewise.
        output_mse: mean squared difference to the dense model's outputs; `None` if the model was
            not run, or they are not finite under reuse.
        output_error: the same over the mean square of the dense model's; `None` likewise.
        unjudged: why the agreement or the accuracy is not known though the model was run; empty
            where they are.
        intervals: 95 % confidence intervals by name, see `simulator.results.intervals`; empty
            likewise.
        memory: what the policy keeps for the stream's next batch; `None` if it keeps nothing.
    """

    policy: dict
    images: int
    decisions: dict[str, Decisions | None]
    relative_mse: dict[str, float]
    centroid_error: dict[str, float] = field(default_factory=dict)
    calibrated_on: str | None = None
    accuracy: float | None = None
    dense_accuracy: float | None = None
    agreement: float | None = None
    answers: np.ndarray | None = field(default=None, repr=False, compare=False)
    output_mse: float | None = None
    intervals: dict[str, Interval] = field(default_factory=dict)
    output_error: float | None = None
    unjudged: str = ""
    memory: StreamMemory | None = None


def decide(
    trace: WorkloadTrace,
    policy: ReusePolicy,
    *,
    model: "torch.nn.Module | None" = None,
    calibration: WorkloadTrace | Mapping[str, LayerState] | None = None,
    calibrate_under_reuse: bool = False,
    memory: StreamMemory | None = None,
    layer_errors: bool = True,
    cache: DecisionCache | None = None,
    workload: str = "",
) -> ReuseRun:
    """Make a policy's decisions on every layer of a trace.

    With `model`, the model runs again on the trace's inputs and each layer sees activations that
    the reuse in earlier layers has already changed: accuracy and hardware see the same decisions.
    It is run dense first, once, to see that it answers as it did (`simulator.running.captured`).
    Without it, each layer sees its recorded, dense activations and no accuracy is known.

    Args:
        trace: the captured workload.
        policy: the reuse policy.
        model: the captured model, with the weights it was captured with. It must answer the same
            each time; one that draws random numbers does if the trace was captured with a seed.
        calibration: a trace of the same model on other inputs, from which the policy learns what
            it needs beforehand (LSH: the mean, learned projections), or what `calibrate` made of
            one; the trace itself by default.
        calibrate_under_reuse: learn from the model's run under the policy, see `calibrate`; right
            for a model that was trained under reuse.
        memory: of the run on the stream's batch before, for a policy that keeps clusters; it is not
            changed. It brings its calibration.
        layer_errors: measure `relative_mse`, for which every reused layer runs dense as well, and
            `centroid_error`.
        cache: answers of earlier calls, used and added to: a layer is not decided again if it and
            all layers before it have the policies they had, nor is a whole run. The model must
            compute the same each time.
        workload: with `cache`, what names this trace, model and calibration apart from others in
            the cache.

    Raises:
        ConfigError: the policy does not fit the layers, or the calibration or the memory lacks one,
            comes from elsewhere or holds it in other integers; nothing can be learned under reuse;
            a cache without a workload's name, or with a memory.
        TraceError: the trace holds no activations, or the model asks for layers it does not have.
    """
    _check_given(trace, policy, model, calibration, memory)
    policy.check_layers(trace.layers)
    if cache is not None and (not workload or memory is not None):
        raise ConfigError(
            "cache must be given with workload and without memory, got "
            f"workload={workload!r} and {'a' if memory is not None else 'no'} memory; name the "
            "workload, and decide streams without a cache"
        )
    if calibrate_under_reuse:
        check_learns_under_reuse(model, calibration, memory)
    run = _Run(policy, memory, layer_errors=layer_errors)
    if cache is not None:
        run.keep_in(
            cache,
            workload,
            sees_reuse=model is not None,
            calibrates_under_reuse=calibrate_under_reuse,
        )
        made = run.known(trace)
        if made is not None:
            return made
    learner = model if calibrate_under_reuse else None
    run.states = states_of(trace, policy, calibration, memory, learner)
    quality = run.recorded(trace) if model is None else run.replayed(trace, model)
    if run.states:
        judged = calibration is None and memory is None
        learned = "the judged inputs" if judged else "inputs given for it"
        quality["calibrated_on"] = f"{learned}, under reuse" if calibrate_under_reuse else learned
    return run.finish(trace, quality)


def _check_given(
    trace: object, policy: object, model: object, calibration: object, memory: object
) -> None:
    """The arguments of `decide` must be what they are called; all that are not are named."""
    learned = isinstance(calibration, Mapping) and all(
        isinstance(state, Mapping) for state in calibration.values()
    )
    rules = {
        "trace": (isinstance(trace, WorkloadTrace), trace, "a WorkloadTrace"),
        "policy": (isinstance(policy, ReusePolicy), policy, "a policy, such as NoReuse()"),
        "model": (model is None or callable(model), model, "the captured model"),
        "calibration": (
            calibration is None or learned or isinstance(calibration, WorkloadTrace),
            calibration,
            "a WorkloadTrace, or what calibrate() made of one",
        ),
        "memory": (
            memory is None or isinstance(memory, StreamMemory),
            memory,
            "the memory of a ReuseRun",
        ),
    }
    broken = [
        f"decide.{name} must be {wanted}, got {show(given)}; give that or leave it out"
        for name, (right, given, wanted) in rules.items()
        if not right
    ]
    if broken:
        raise ConfigError(broken)


class _Run:
    """Decisions in the making, layer after layer.

    Args:
        policy: decides.
        memory: of the batch before, if any.
        layer_errors: whether to measure what reuse does to each layer's result.

    Attributes:
        states: layer name -> what was learned of it; to be set unless the run is known.
    """

    def __init__(
        self, policy: ReusePolicy, memory: StreamMemory | None, *, layer_errors: bool
    ) -> None:
        self.states: Mapping[str, LayerState] = {}
        self._policy = policy
        self._memory = memory
        self._layer_errors = layer_errors
        self._answers: dict[str, LayerAnswer] = {}
        self._tables: dict[str, LayerMemory] = {}
        self._cache: DecisionCache | None = None
        self._keys: RunKeys | None = None

    def keep_in(
        self,
        cache: DecisionCache,
        workload: str,
        *,
        sees_reuse: bool,
        calibrates_under_reuse: bool,
    ) -> None:
        """Look answers up in a cache, and keep new ones there.

        What a layer learns under reuse depends on no more than what it sees: on the policies of
        the layers before it and on its own, which its key covers.
        """
        self._cache = cache
        self._keys = RunKeys(
            workload,
            self._policy,
            sees_reuse=sees_reuse,
            settings={
                "layer_errors": self._layer_errors,
                "calibrates_under_reuse": calibrates_under_reuse,
            },
        )

    def known(self, trace: WorkloadTrace) -> ReuseRun | None:
        """The run, if all of it is in the cache."""
        assert self._cache is not None and self._keys is not None
        keys = self._keys.all_layers(trace.layers)
        quality = self._cache.get(("quality", *keys))
        if quality is None:
            return None
        for layer, key in zip(trace.layers, keys, strict=True):
            answer = self._cache.get(key) if self._policy.applies_to(layer) else _DENSE
            if answer is None:
                self._answers.clear()
                return None
            self._answers[layer.name] = answer
        return self.finish(trace, quality)

    def recorded(self, trace: WorkloadTrace) -> dict[str, Any]:
        """Decide on recorded activations; nothing is known of the quality."""

        def error_of(layer: Layer, result: np.ndarray) -> float:
            dense = np.matmul(trace.rows(layer.name), trace.weights(layer.name))
            error = _relative_mse(result, dense, np.zeros_like(dense))
            if error is None:
                raise ConfigError(
                    f"layer {layer.name!r} must have a finite product in float32, got NaN or "
                    "infinity; check the model's weights and inputs"
                )
            return error

        for layer in trace.layers:
            given, weights = partial(trace.given, layer.name), partial(trace.weights, layer.name)
            self._answer(layer, given, weights, partial(error_of, layer), keep_result=False)
        return {}

    def replayed(self, trace: WorkloadTrace, model: "torch.nn.Module") -> dict[str, Any]:
        """Decide while the model runs under the decisions; how good its answers are."""

        def answer(call: "GemmCall") -> "torch.Tensor | None":
            def error_of(result: np.ndarray) -> float | None:
                outputs = call.from_result(result), call.dense()
                bias = call.from_result(np.zeros_like(result))
                return _relative_mse(*(_comparable(x) for x in (*outputs, bias)))

            result = self._answer(call.layer, call.given, call.weights, error_of, keep_result=True)
            return None if result is None else call.from_result(result)

        check_model(trace, model)
        return quality_of(trace, run_model(trace, model, answer))

    def _answer(
        self,
        layer: Layer,
        read_input: Callable[[], np.ndarray],
        read_weights: Callable[[], np.ndarray],
        error_of: Callable[[np.ndarray], float | None],
        *,
        keep_result: bool,
    ) -> np.ndarray | None:
        """The layer's result under reuse; `None` where it runs dense."""
        key = None if self._keys is None else self._keys.next_layer(layer)
        if not self._policy.applies_to(layer):
            self._answers[layer.name] = _DENSE
            return None
        made = None if self._cache is None else self._cache.get(key)
        if made is None:
            made = self._decide(layer, read_input, read_weights, error_of, wants_result=keep_result)
            if self._cache is not None and layer.name not in self._tables:
                kept = made if keep_result else replace(made, result=None)
                self._cache.put(key, kept, kept.held_bytes)
        self._answers[layer.name] = replace(made, result=None)
        return made.result

    def _decide(
        self,
        layer: Layer,
        read_input: Callable[[], np.ndarray],
        read_weights: Callable[[], np.ndarray],
        error_of: Callable[[np.ndarray], float | None],
        *,
        wants_result: bool,
    ) -> LayerAnswer:
        """Decide for a layer and compute its result, if it is wanted or its error."""
        memory = self._memory
        given = Activations(layer, read_input())
        known = None if memory is None else memory.tables.get(layer.name)
        answer = executor.execute(
            self._policy,
            layer,
            given,
            self.states.get(layer.name, {}),
            known,
            read_weights() if wants_result or self._layer_errors else None,
            centroids=self._layer_errors,
        )
        made, result = answer.decisions, answer.result
        if answer.memory is not None:
            if memory is not None and known is None:
                raise ConfigError(
                    f"memory must hold layer {layer.name!r}, got only {', '.join(memory.tables)}; "
                    "go on with the model that it was made with, or start without memory"
                )
            self._tables[layer.name] = answer.memory
        if made is None:
            return _DENSE
        if result is not None:
            result = given.rescaled(result)
        error = None if result is None or not self._layer_errors else error_of(result)
        return LayerAnswer(
            decisions=made.without_operands(),
            result=result,
            relative_mse=error,
            centroid_error=_centroid_error(made, given.rows) if self._layer_errors else None,
        )

    def finish(self, trace: WorkloadTrace, quality: dict[str, Any]) -> ReuseRun:
        """The run; its quality is kept for the next one like it."""
        if self._cache is not None and not self._tables:
            assert self._keys is not None
            held_bytes = getattr(quality.get("answers"), "nbytes", 0)
            self._cache.put(("quality", *self._keys.all_layers(trace.layers)), quality, held_bytes)
        answers = self._answers.items()
        return ReuseRun(
            policy=self._policy.describe(),
            images=trace.images,
            decisions={name: answer.decisions for name, answer in answers},
            relative_mse=_known({name: answer.relative_mse for name, answer in answers}),
            centroid_error=_known({name: answer.centroid_error for name, answer in answers}),
            memory=_memory(self._policy, self.states, self._tables),
            **quality,
        )


_DENSE = LayerAnswer(decisions=None)


def _centroid_error(decisions: Decisions, rows: np.ndarray) -> float | None:
    """Err_c of shared rows; `None` of others, which nothing stands for."""
    shared = isinstance(decisions.rows, SharedRows)
    return centroid_error(decisions, rows) if shared else None


def _known(values: dict[str, float | None]) -> dict[str, float]:
    """Those that were measured."""
    return {name: value for name, value in values.items() if value is not None}


def decide_stream(
    traces: Iterable[WorkloadTrace],
    policy: ReusePolicy,
    *,
    model: "torch.nn.Module | None" = None,
    calibration: WorkloadTrace | Mapping[str, LayerState] | None = None,
    memory: StreamMemory | None = None,
) -> Iterator[ReuseRun]:
    """Make a policy's decisions on one batch (or frame) of a stream after the other.

    What is held is one batch and what the policy keeps, if the traces are captured as they are
    asked for: `decide_stream((capture(model, x) for x in batches), policy, model=model)`. To go on
    later, save the last run's `memory` and start with it.

    Args:
        traces: the same model on each batch, in the stream's order.
        policy: the reuse policy.
        model: see `decide`.
        calibration: see `decide`; the first batch by default, for all of them.
        memory: to go on from, see `decide`.

    Yields:
        The run on each batch.

    Raises:
        ConfigError: as `decide`.
        TraceError: as `decide`.
    """
    for trace in traces:
        if memory is None and (calibration is None or isinstance(calibration, WorkloadTrace)):
            calibration = calibrate(calibration or trace, policy)
        run = decide(trace, policy, model=model, calibration=calibration, memory=memory)
        if run.memory is not None:
            memory, calibration = run.memory, None
        yield run


def _memory(
    policy: ReusePolicy, states: Mapping[str, LayerState], tables: dict[str, LayerMemory]
) -> StreamMemory | None:
    """What the policy keeps of a run."""
    if not tables:
        return None
    return StreamMemory(policy=policy.describe(), states=states, tables=tables)


def _comparable(tensor: "torch.Tensor") -> np.ndarray:
    """A layer's result as numbers that are compared; those of 16 bits in 32."""
    from workloads.capturing.calls import array_of

    array = array_of(tensor)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _relative_mse(result: np.ndarray, dense: np.ndarray, bias: np.ndarray) -> float | None:
    """Mean squared error of an output over the mean square of the dense one without bias.

    `None` where a result is not finite, as 16-bit floats that overflow.
    """
    error, power = squared_sums(*(np.ravel(array) for array in (result, dense, bias)))
    return finite(error / power if power else 0.0)
