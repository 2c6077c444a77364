"""Error analysis: what reuse can do to a model's outputs, beside what it did."""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from accelerators.rules import refuse
from simulator.analysis.operator_norms import layer_norm_of, matrix_norm
from simulator.running.reuse_run import ReuseRun
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    import torch

    from simulator.analysis.error_graph import ErrorGraph

# What float32 sums in another order may change, over the norm of the outputs: no bound knows it.
_ROUNDING = 1e-5


@dataclass(frozen=True, kw_only=True)
class LayerBound:
    """What one layer's reuse can do to the outputs. Errors are sums of squares over the batch.

    Attributes:
        layer: name.
        centroid_error: Err_c, sum of ||x - representative of x||^2 over the layer's rows.
        weight_norm: ||W||, largest singular value of the unfolded weights.
        gain: how much the layer stretches the norm of an error of its input before unfolding.
        equation_2: Err_c times the product of ||W_j||^2 over this layer and all that follow, as
            printed; 0 for a dense layer.
        rigorous: bound on the output's error if this layer alone had this Err_c.
    """

    layer: str
    centroid_error: float
    weight_norm: float
    gain: float
    equation_2: float
    rigorous: float


@dataclass(frozen=True, kw_only=True)
class ErrorBound:
    """Deep Reuse's error analysis (section IV) of one run, beside the error measured.

    All errors are delta(y) = sum ||y - y_dense||^2 over the outputs of the batch.

    Attributes:
        layers: each layer of the trace, in order.
        rigorous: bound that holds; see `error_bound`.
        measured: the error.
        output_power: sum of squares of the dense outputs, to compare errors with.
    """

    layers: tuple[LayerBound, ...]
    rigorous: float
    measured: float
    output_power: float

    @property
    def equation_3(self) -> float:
        """Sum of equation (2) over the layers, as printed."""
        return math.fsum(layer.equation_2 for layer in self.layers)

    @property
    def equation_3_holds(self) -> bool:
        """Whether the error measured is within equation (3), but for rounding."""
        return self._within(self.equation_3)

    @property
    def rigorous_holds(self) -> bool:
        """Whether the error measured is within the rigorous bound, but for rounding."""
        return self._within(self.rigorous)

    def _within(self, bound: float) -> bool:
        slack = _ROUNDING * math.sqrt(self.output_power)
        return math.sqrt(self.measured) <= math.sqrt(bound) * (1 + _ROUNDING) + slack

    def to_dict(self) -> dict:
        """Everything as plain values for JSON."""
        return {
            **asdict(self),
            "layers": [asdict(layer) for layer in self.layers],
            "equation_3": self.equation_3,
            "equation_3_holds": self.equation_3_holds,
            "rigorous_holds": self.rigorous_holds,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class ErrorAnalysis:
    """How errors travel through one model: made once, it bounds any number of runs.

    Attributes:
        trace: what was captured.
        graph: the model's operations.
        norms: layer name -> ||W||, largest singular value of the unfolded weights.
        gains: layer name -> norm of the layer as a map of its input before unfolding.
    """

    trace: WorkloadTrace
    graph: "ErrorGraph"
    norms: dict[str, float]
    gains: dict[str, float]

    @classmethod
    def of(cls, model: "torch.nn.Module", trace: WorkloadTrace) -> Self:
        """Analyse the captured model.

        Takes seconds for a large network, most for the singular values of wide convolutions.

        Raises:
            ConfigError: the model can't be exported, is not the captured one, or has an operation
                with no known Lipschitz constant.
            TraceError: the trace holds no inputs.
        """
        from simulator.analysis.error_graph import error_graph  # needs PyTorch

        graph = error_graph(model, trace)
        norms, gains = {}, {}
        for layer in trace.layers:
            weights = trace.weights(layer.name)
            norms[layer.name] = matrix_norm(weights)
            gains[layer.name] = layer_norm_of(layer, weights)
        return cls(trace=trace, graph=graph, norms=norms, gains=gains)

    def bound(self, run: ReuseRun) -> ErrorBound:
        """Bound the output's error of one run; see `error_bound`."""
        _check(self.trace, run)
        assert run.output_mse is not None
        assert self.trace.outputs is not None
        own, layers = {}, []
        product = 1.0
        for layer in reversed(self.trace.layers):
            name, error = layer.name, run.centroid_error.get(layer.name, 0.0)
            # The rows of a transposed convolution are its input itself, not unfolded.
            local = self.gains if layer.kind == "conv_transpose" else self.norms
            own[name] = local[name] * math.sqrt(error)
            product *= self.norms[name] ** 2
            layers.append(
                LayerBound(
                    layer=name,
                    centroid_error=error,
                    weight_norm=self.norms[name],
                    gain=self.gains[name],
                    equation_2=error * product,
                    rigorous=self.graph.output_error(self.gains, {name: own[name]}) ** 2,
                )
            )
        return ErrorBound(
            layers=tuple(reversed(layers)),
            rigorous=self.graph.output_error(self.gains, own) ** 2,
            measured=run.output_mse * self.trace.outputs.size,
            output_power=float((self.trace.outputs.astype("float64") ** 2).sum()),
        )


def error_bound(model: "torch.nn.Module", trace: WorkloadTrace, run: ReuseRun) -> ErrorBound:
    """Bound the error of a model's outputs under reuse, as printed and rigorously.

    As printed (Deep Reuse, equations 2 and 3), with the spectral norm for ||W||, the smallest one
    for which ||x W|| <= ||x|| ||W|| holds for every x:

        delta(y) <= sum over layers i of Err_c(i) * prod over j >= i of ||W_j||^2

    That is no bound in general: it takes the layers as a chain, in order, of unfolded matrices.
    Unfolding repeats an element for every window it lies in, as overlapping pooling does;
    normalisation scales; residuals add; and errors of several layers add up as norms, not as
    squares.

    The rigorous bound follows an error's norm through the model's operations:

        convolution, linear   gain * e + ||W|| sqrt(Err_c)
        sum                   e_1 + e_2
        concatenation         sqrt(e_1^2 + e_2^2)
        other operations      Lipschitz constant * e

    The gain is the norm of the layer as a map of its input before unfolding
    (`operator_norms.layer_norm_of`); a transposed convolution, whose rows are not unfolded, has it
    in place of ||W||. Inputs are exact, and Err_c is that of each layer's input under reuse.

    Not covered: rounding in float32, and anything but reuse that changes a product's result.
    `simulate` does not compute it, because it takes seconds and a search simulates thousands of
    times: give its result to a report with `dataclasses.replace(report, error_bound=...)`.

    Args:
        model: the captured model.
        trace: what was captured.
        run: decisions that `decide` made on this trace with this model.

    Raises:
        ConfigError: the run is of another trace or was made without the model, or the model has
            an operation with no known Lipschitz constant.
        TraceError: the trace holds no inputs.
    """
    return ErrorAnalysis.of(model, trace).bound(run)


def _check(trace: WorkloadTrace, run: ReuseRun) -> None:
    """The run must be of this trace, with the model."""
    broken = []
    if run.output_mse is None:
        broken.append(
            "error_bound.run must hold the error of the model's outputs, got none; make it with "
            "decide(trace, policy, model=model)"
        )
    if set(run.decisions) != {layer.name for layer in trace.layers} or run.images != trace.images:
        broken.append(
            f"error_bound.run must be of this trace of {len(trace.layers)} layers and "
            f"{trace.images} images, got {len(run.decisions)} and {run.images}; make it with "
            "decide() on this trace"
        )
    refuse(broken)
