"""The problem of one layer: settings of its reuse, judged alone by error and compression."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from codesign.evaluation.evaluator import Evaluation, InMemory, hashing_states
from codesign.evaluation.objective import Objective
from codesign.evaluation.threads import single_thread
from codesign.evaluation.workload import Workload
from codesign.space.parameters import Parameter, ParameterSpace, layer_parameters, reusable_layers
from simulator import LshReuse, PerLayer, decide
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace


@dataclass(frozen=True, kw_only=True)
class LayerAnswer:
    """What became of a layer under a setting.

    Attributes:
        relative_mse: squared error of its result over the dense one's square, on the recorded
            activations.
        sub_vectors: |X|, of all its rows.
        clusters: |X_c|, of these that are still multiplied.
    """

    relative_mse: float | None
    sub_vectors: int
    clusters: int


def _error(answer: LayerAnswer) -> float:
    if answer.relative_mse is None or not math.isfinite(answer.relative_mse):
        raise ValueError(f"the layer's error must be finite, got {answer.relative_mse}")
    return answer.relative_mse


def _compression(answer: LayerAnswer) -> float:
    return answer.sub_vectors / answer.clusters


LAYER_OBJECTIVES = (
    Objective(
        name="relative_mse",
        words="squared error",
        unit="of the dense result's square",
        maximise=False,
        low=0.0,
        read=_error,
    ),
    Objective(
        name="compression",
        words="compression",
        unit="|X| / |X_c|",
        maximise=True,
        low=1.0,
        read=_compression,
    ),
)


@dataclass(frozen=True, kw_only=True)
class LayerSpace(ParameterSpace):
    """Every setting of a layer's reuse that a search may try.

    Attributes:
        layer: its name.
        parameters: fields of `LshReuse`.
    """

    layer: str
    parameters: tuple[Parameter, ...]

    @classmethod
    def of(cls, layer: Layer) -> LayerSpace:
        """Hashes, length, thresholds, and the order of a convolution's rows if there are two."""
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
        return cls(layer=layer.name, parameters=tuple(parameters))

    @property
    def settings(self) -> int:
        """How many there are."""
        return math.prod(len(parameter.choices) for parameter in self.parameters)


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerEvaluator:
    """Judges settings of layers; travels to any machine.

    Attributes:
        trace: with the tensors of the layers.
        states: layer name -> what hashing learned of the activations.
        spaces: what is chosen, a layer each.
        projection: what the front-end multiplies by.
    """

    trace: WorkloadTrace
    states: Mapping[str, Any]
    spaces: tuple[LayerSpace, ...]
    projection: str

    @classmethod
    def of(cls, workload: Workload, *, top: int, projection: str) -> LayerEvaluator:
        """Calibrate, and take what the files hold of the layers to memory."""
        trace = workload.trace
        layers = reusable_layers(trace, top)
        return cls(
            trace=replace(trace, files=InMemory(trace.files)),
            states=hashing_states(workload, [layer.name for layer in layers]),
            spaces=tuple(map(LayerSpace.of, layers)),
            projection=projection,
        )

    def __call__(self, job: Mapping[str, Any]) -> Evaluation:
        """Error and compression of a layer on its recorded activations.

        Args:
            job: the layer's name, and its settings.
        """
        start, name = time.perf_counter(), job["layer"]
        try:
            policy = PerLayer({name: LshReuse(projection=self.projection, **job["settings"])})
            with single_thread():
                run = decide(self.trace, policy, calibration=self.states)
            decisions = run.decisions[name]
            assert decisions is not None, "hashing decides on every layer that it applies to"
            answer = LayerAnswer(
                relative_mse=run.relative_mse[name],
                sub_vectors=decisions.shared.sub_vectors,
                clusters=decisions.shared.total_clusters,
            )
            values = {each.name: each.read(answer) for each in LAYER_OBJECTIVES}
            outcome = Evaluation(state="complete", values=values)
        except Exception:
            outcome = Evaluation(state="failed", reason=traceback.format_exc())
        return replace(outcome, seconds=time.perf_counter() - start)
