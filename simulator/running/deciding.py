"""One run in the making: decisions and results, layer after layer."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators import ConfigError
from simulator.decisions.box import Decisions
from simulator.decisions.error import centroid_error
from simulator.decisions.rows import SharedRows
from simulator.kernels.gathering import squared_sums
from simulator.policies.activations import Activations
from simulator.policies.policy import LayerMemory, LayerState, ReusePolicy
from simulator.policies.surroundings import Surroundings
from simulator.running import executor
from simulator.running.above import Above
from simulator.running.captured import check_model, run_model
from simulator.running.quality import finite, quality_of
from simulator.running.remembered import DecidedLayer, DecisionCache, RunKeys
from simulator.running.reuse_run import ReuseRun
from simulator.running.stream_memory import StreamMemory
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    import torch

    from workloads.capturing.hook import GemmCall


class Run:
    """Decisions in the making, layer after layer.

    Args:
        policy: decides.
        above: what it decided above the layers.
        memory: of the batch before, if any.
        layer_errors: whether to measure what reuse does to each layer's result.

    Attributes:
        states: layer name -> what was learned of it; to be set unless the run is known.
    """

    def __init__(
        self,
        policy: ReusePolicy,
        above: Above,
        memory: StreamMemory | None,
        *,
        layer_errors: bool,
    ) -> None:
        self.states: Mapping[str, LayerState] = {}
        self._policy = policy
        self._above = above
        self._memory = memory
        self._layer_errors = layer_errors
        self._layers: dict[str, DecidedLayer] = {}
        self._tables: dict[str, LayerMemory] = {}
        self._cache: DecisionCache | None = None
        self._keys: RunKeys | None = None
        self._decided: dict[str, Decisions | None] = {}
        self._network: Surroundings | None = None

    def keep_in(
        self,
        cache: DecisionCache,
        workload: str,
        *,
        sees_reuse: bool,
        calibrates_under_reuse: bool,
    ) -> None:
        """Look results up in a cache, and keep new ones there.

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
                "above": self._above.key,
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
            made = self._cache.get(key) if self._decides(layer) else _DENSE
            if made is None:
                self._layers.clear()
                return None
            self._layers[layer.name] = made
        return self.finish(trace, quality)

    def recorded(self, trace: WorkloadTrace) -> dict[str, Any]:
        """Decide on recorded activations; nothing is known of the quality."""
        self._network = self._seen(trace, runs_model=False)

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
            weights = partial(trace.weights, layer.name)
            given = partial(self._given, layer, partial(trace.given, layer.name))
            self._run(layer, given, weights, partial(error_of, layer), keep_result=False)
        return {}

    def replayed(self, trace: WorkloadTrace, model: "torch.nn.Module") -> dict[str, Any]:
        """Decide while the model runs under the decisions; how good its answers are."""
        self._network = self._seen(trace, runs_model=True)

        known = {layer.name: layer for layer in trace.layers}

        def result_of(call: "GemmCall") -> "torch.Tensor | None":
            def error_of(result: np.ndarray) -> float | None:
                outputs = call.from_result(result), call.dense()
                bias = call.from_result(np.zeros_like(result))
                return _relative_mse(*(_comparable(x) for x in (*outputs, bias)))

            layer = known[call.layer.name]  # which also knows what follows it
            given = partial(self._given, layer, call.given)
            result = self._run(layer, given, call.weights, error_of, keep_result=True)
            if result is None:
                return _on_moved(call, given()) if self._above.moves_input(layer) else None
            return call.from_result(self._above.masked(layer, result))

        check_model(trace, model)
        return quality_of(trace, self._above.answers(run_model(trace, model, result_of)))

    def _seen(self, trace: WorkloadTrace, *, runs_model: bool) -> Surroundings:
        """The network, before any layer is decided on."""
        answers = None if self._memory is None else self._memory.answers
        self._decided.clear()
        return Surroundings(
            trace=trace, decisions=self._decided, answers=answers, runs_model=runs_model
        )

    def _given(self, layer: Layer, read: Callable[[], np.ndarray]) -> np.ndarray:
        """A layer's input, moved where frames before it were."""
        return self._above.given(layer, read())

    def _decides(self, layer: Layer) -> bool:
        """Whether anything is decided on a layer."""
        return self._policy.applies_to(layer) or self._above.touches(layer)

    def _run(
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
        if not self._decides(layer):
            self._layers[layer.name] = _DENSE
            return None
        made = None if self._cache is None else self._cache.get(key)
        if made is None:
            made = self._decide(layer, read_input, read_weights, error_of, wants_result=keep_result)
            if self._cache is not None and layer.name not in self._tables:
                kept = made if keep_result else replace(made, result=None)
                self._cache.put(key, kept, kept.held_bytes)
        self._layers[layer.name] = replace(made, result=None)
        self._decided[layer.name] = made.decisions
        return made.result

    def _decide(
        self,
        layer: Layer,
        read_input: Callable[[], np.ndarray],
        read_weights: Callable[[], np.ndarray],
        error_of: Callable[[np.ndarray], float | None],
        *,
        wants_result: bool,
    ) -> DecidedLayer:
        """Decide for a layer and compute its result, if it is wanted or its error."""
        memory = self._memory
        given = Activations(layer, read_input())
        known = None if memory is None else memory.tables.get(layer.name)
        executed = executor.execute(
            self._policy,
            layer,
            given,
            self.states.get(layer.name, {}),
            known,
            read_weights,
            wants_result=wants_result or self._layer_errors,
            centroids=self._layer_errors,
            above=self._above,
            around=self._network,
        )
        made, result = executed.decisions, executed.result
        if executed.memory is not None:
            if memory is not None and known is None:
                raise ConfigError(
                    f"memory must hold layer {layer.name!r}, got only {', '.join(memory.tables)}; "
                    "go on with the model that it was made with, or start without memory"
                )
            self._tables[layer.name] = executed.memory
        if made is None:
            return _DENSE
        if result is not None:
            result = given.rescaled(result)
        error = None if result is None or not self._layer_errors else error_of(result)
        return DecidedLayer(
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
        layers = self._layers.items()
        return ReuseRun(
            policy=self._policy.describe(),
            images=trace.images,
            decisions={name: made.decisions for name, made in layers},
            relative_mse=_known({name: made.relative_mse for name, made in layers}),
            centroid_error=_known({name: made.centroid_error for name, made in layers}),
            memory=_memory(self._policy, self.states, self._tables, quality.get("answers")),
            frames=self._above.frames,
            tokens=self._above.tokens,
            **quality,
        )


_DENSE = DecidedLayer(decisions=None)


def _on_moved(call: "GemmCall", given: np.ndarray) -> "torch.Tensor":
    """What the operation itself makes of an input that was moved."""
    import torch

    return call.on_input(torch.from_numpy(given).to(call.input))


def _centroid_error(decisions: Decisions, rows: np.ndarray) -> float | None:
    """Err_c of shared rows; `None` of others, which nothing stands for."""
    shared = isinstance(decisions.rows, SharedRows)
    return centroid_error(decisions, rows) if shared else None


def _known(values: dict[str, float | None]) -> dict[str, float]:
    """Those that were measured."""
    return {name: value for name, value in values.items() if value is not None}


def _memory(
    policy: ReusePolicy,
    states: Mapping[str, LayerState],
    tables: dict[str, LayerMemory],
    answers: np.ndarray | None,
) -> StreamMemory | None:
    """What the policy keeps of a run; of answers the last frame's, where it may look at them."""
    if not tables:
        return None
    last = None if answers is None or not policy.looks_around else np.array(answers[-1])
    return StreamMemory(policy=policy.describe(), states=states, tables=tables, answers=last)


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
