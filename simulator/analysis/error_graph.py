"""How errors travel through a model: its operations as a graph of Lipschitz constants."""

import math
import operator
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from accelerators import ConfigError
from simulator.analysis.operator_norms import (
    LIPSCHITZ,
    adaptive_average_norm,
    average_norm,
    max_pool_norm,
    response_norm,
)
from workloads.capturing.replaying import recorded_inputs
from workloads.models.cifarnet import LocalResponseNorm
from workloads.models.modes import training_mode
from workloads.traces.judged import Judged
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace

# Each output element is an input element, or a function of one with slopes of at most 1.
_PASSING = {
    *("relu", "relu6", "hardtanh", "tanh", "abs", "neg", "clamp", "clamp_min", "clamp_max"),
    *("view", "_unsafe_view", "reshape", "flatten", "permute", "transpose", "t", "squeeze"),
    *("unsqueeze", "clone", "contiguous", "detach", "alias", "slice", "select", "narrow", "split"),
    *("split_with_sizes", "chunk", "unbind", "dropout", "_to_copy", "to", "flip", "roll"),
    *("pixel_shuffle", "channel_shuffle", "getitem"),
}
# Products, and at which arguments their matrices stand.
_PRODUCTS = {
    **{name: (0,) for name in ("linear", "convolution")},
    **{f"{name}{d}d": (0,) for name in ("conv", "conv_transpose") for d in (1, 2, 3)},
    **{name: (0, 1) for name in ("mm", "matmul")},
    "addmm": (1, 2),
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation: the error norm of its result from those of its operands.

    Attributes:
        name: of the result.
        operands: (name, Lipschitz constant) of every operand that depends on the inputs.
        combine: `sum` (triangle inequality), `root` (parts lie side by side: root of the sum of
            squares) or `max` (the same error, seen several times).
        layer: the product whose own error is added, if it is one. Its operand's constant is then
            the layer's own.
    """

    name: str
    operands: tuple[tuple[str, float], ...]
    combine: str = "sum"
    layer: str | None = None


@dataclass(frozen=True, kw_only=True)
class ErrorGraph:
    """A model's operations in order.

    Attributes:
        steps: each after those of its operands.
        output: name of the result that the trace's outputs hold.
    """

    steps: tuple[Step, ...]
    output: str

    def output_error(self, gains: Mapping[str, float], own: Mapping[str, float]) -> float:
        """Bound on the norm of the output's error.

        Args:
            gains: layer name -> how much it stretches an error of its input.
            own: layer name -> norm of the error that reuse adds to its result; none if absent.
        """
        errors: dict[str, float] = {}
        for step in self.steps:
            parts = [errors.get(name, 0.0) * constant for name, constant in step.operands]
            if step.layer is not None:
                parts = [parts[0] * gains[step.layer], own.get(step.layer, 0.0)]
            match step.combine:
                case "sum":
                    errors[step.name] = sum(parts)
                case "root":
                    errors[step.name] = math.hypot(*parts)
                case "max":
                    errors[step.name] = max(parts)
                case other:
                    raise ValueError(f"no such combination of errors: {other!r}")
        return errors.get(self.output, 0.0)


def error_graph(model: nn.Module, trace: WorkloadTrace) -> ErrorGraph:
    """Read a model's operations, as `torch.export` traces them on the trace's inputs.

    Args:
        model: the captured model.
        trace: what it was captured as; its layers and the model's products are paired in order.

    Raises:
        ConfigError: the model can't be exported, an operation has no known Lipschitz constant, or
            the products are not the trace's layers.
        TraceError: the trace holds no inputs.
    """
    inputs = recorded_inputs(trace)
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    with training_mode(model, False), torch.no_grad(), warnings.catch_warnings():
        # Of PyTorch's own use of what it deprecates.
        warnings.simplefilter("ignore", FutureWarning)
        try:
            # Without decompositions, but functional: no result is written to afterwards.
            exported = torch.export.export(model, args, kwargs, strict=False)
            module = exported.run_decompositions({}).module()
        except Exception as error:  # a model may fail to export in any way
            raise ConfigError(
                f"model must be one that torch.export can trace for an error bound, got "
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            ) from error
        assert isinstance(module, fx.GraphModule)
        return _Reader(model, module, trace).read()


class _Reader:
    """Turns a graph of operations into steps."""

    def __init__(self, model: nn.Module, module: fx.GraphModule, trace: WorkloadTrace) -> None:
        self._model = model
        self._module = module
        self._trace = trace
        self._layers: Iterator[Layer] = iter(trace.layers)
        self._constants: dict[fx.Node, Any] = {}
        self._steps: list[Step] = []
        self._rules: dict[str, Callable[[fx.Node], float | None]] = {
            "leaky_relu": lambda node: max(1.0, abs(_argument(node, 1, 0.01))),
            "elu": _elu,
            "mean": lambda node: 1 / math.sqrt(_elements(node.args[0]) / _elements(node)),
            "sum": lambda node: math.sqrt(_elements(node.args[0]) / _elements(node)),
            "expand": lambda node: math.sqrt(_elements(node) / _elements(node.args[0])),
            "_native_batch_norm_legit_no_training": self._batch_norm,
            "mul": self._scale,
            "div": self._scale,
            **{f"max_pool{d}d": _max_pool for d in (1, 2, 3)},
            **{f"avg_pool{d}d": _average_pool for d in (1, 2, 3)},
            **{f"adaptive_avg_pool{d}d": _adaptive_pool for d in (1, 2, 3)},
        }

    def read(self) -> ErrorGraph:
        """All steps; the output is the one that is judged."""
        returned: list[fx.Node] = []
        for node in self._module.graph.nodes:
            match node.op:
                case "placeholder":
                    pass  # inputs are exact
                case "get_attr":
                    self._constants[node] = operator.attrgetter(node.target)(self._module)
                case "output":
                    returned = node.all_input_nodes
                case "call_function":
                    self._operation(node)
                case "call_module" if not node.users:
                    pass  # a check of the inputs that export adds
                case _:
                    raise self._unknown(node)
        missing = next(self._layers, None)
        outputs = self._trace.outputs
        if missing is not None or outputs is None or not returned:
            raise self._foreign("no product" if missing else "no output", missing)
        judged = Judged.of(self._trace.provenance) or Judged()
        several = judged.output in judged.names and len(judged.names) == len(returned)
        output = returned[judged.names.index(judged.output) if several else 0]
        if _shape(output) != outputs.shape:
            raise self._foreign(f"an output of shape {_shape(output)}", None)
        return ErrorGraph(steps=tuple(self._steps), output=output.name)

    def _operation(self, node: fx.Node) -> None:
        """Append the step of one operation, or compute what depends on parameters alone."""
        active = [each for each in node.all_input_nodes if each not in self._constants]
        name = _name(node)
        if not active:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), self._constants.__getitem__)
            self._constants[node] = cast(Callable[..., Any], node.target)(*args, **kwargs)
        elif normalise := self._response_norm(node):
            path, constant = normalise
            self._append(
                node, ((each, 1.0 if self._path(each) == path else constant) for each in active),
                combine="max",
            )  # fmt: skip
        elif name in _PRODUCTS:
            self._product(node, active)
        elif name in ("add", "sub", "rsub"):
            self._append(node, self._terms(node))
        elif name in ("cat", "stack"):
            parts = [
                each for each in _arguments(node)[0] if each in active
            ]  # the same one may come twice
            self._append(node, ((each, 1.0) for each in parts), combine="root")
        else:
            self._append(node, [(active[0], self._constant(node, name, active))])

    def _append(
        self, node: fx.Node, operands: Iterable[tuple[fx.Node, float]], **more: Any
    ) -> None:
        named = tuple((each.name, constant) for each, constant in operands)
        self._steps.append(Step(name=node.name, operands=named, **more))

    def _product(self, node: fx.Node, active: list[fx.Node]) -> None:
        """Pair a product with the trace's next layer; one operand must be a constant."""
        layer = next(self._layers, None)
        found = f"{_name(node)} of {_shape(node)}"
        if layer is None or math.prod(layer.output_shape) != _elements(node):
            raise self._foreign(found, layer)
        place = _arguments(node).index(active[0])
        is_matrix = place in _PRODUCTS[_name(node)]
        if len(active) != 1 or not layer.weights_are_parameters or not is_matrix:
            raise self._unknown(node)
        self._append(node, [(active[0], 1.0)], layer=layer.name)

    def _terms(self, node: fx.Node) -> Iterator[tuple[fx.Node, float]]:
        """Operands of a sum; alpha scales the second (the first in `rsub`)."""
        alpha = abs(cast(float, node.kwargs.get("alpha", 1)))
        scaled = 0 if _name(node) == "rsub" else 1
        for index, each in enumerate(_arguments(node)[:2]):
            if isinstance(each, fx.Node) and each not in self._constants:
                repeats = math.sqrt(_elements(node) / _elements(each))
                yield each, repeats * (alpha if index == scaled else 1.0)

    def _constant(self, node: fx.Node, name: str, active: list[fx.Node]) -> float:
        """Lipschitz constant of an operation on one tensor that depends on the inputs."""
        if len(active) == 1 and node.args and active[0] is node.args[0]:
            if name in _PASSING:
                return 1.0
            if name in ("pad", "constant_pad_nd") and _argument(node, 2, "constant") == "constant":
                return 1.0
            if name in LIPSCHITZ:
                return LIPSCHITZ[name]
        if len(active) == 1 and name in self._rules:
            constant = self._rules[name](node)
            if constant is not None:
                return constant
        raise self._unknown(node)

    def _batch_norm(self, node: fx.Node) -> float:
        """Largest |gamma| / sqrt(variance + eps): in evaluation mode it only scales channels."""
        _, gamma, _, _, variance, _, eps = _arguments(node)
        deviation = torch.sqrt(self._constants[variance].double() + eps)
        scale = 1.0 if gamma is None else self._constants[gamma].double()
        return float((scale / deviation).abs().max())

    def _scale(self, node: fx.Node) -> float:
        """Largest factor of a product with, or quotient by, a constant; operands may repeat."""
        left, right = _arguments(node)[:2]
        divides = _name(node) == "div"
        is_left = isinstance(left, fx.Node) and left not in self._constants
        is_right = isinstance(right, fx.Node) and right not in self._constants
        if is_left == is_right or (divides and is_right) or "rounding_mode" in node.kwargs:
            raise self._unknown(node)
        active, other = (left, right) if is_left else (right, left)
        value = self._constants[other] if isinstance(other, fx.Node) else torch.tensor(other)
        largest = float((1 / value.double() if divides else value.double()).abs().max())
        return largest * math.sqrt(_elements(node) / _elements(active))

    def _response_norm(self, node: fx.Node) -> tuple[str, float] | None:
        """The local response normalisation that an operation is part of, and its constant.

        Operations inside share the constant of the whole: only the result leaves the module.
        """
        path = self._path(node)
        if path is None:
            return None
        match self._model.get_submodule(path.partition("@")[0]):
            case LocalResponseNorm():
                return path, response_norm(channels=9, k=1.0, beta=0.75)
            case nn.LocalResponseNorm(size=size, k=k, beta=beta):
                return path, response_norm(channels=size, k=k, beta=beta)
        return None

    @staticmethod
    def _path(node: fx.Node) -> str | None:
        """Path of the module that an operation is part of; `@` counts calls of the same one."""
        stack = node.meta.get("nn_module_stack")
        return list(stack.values())[-1][0] if stack else None

    def _unknown(self, node: fx.Node) -> ConfigError:
        place = self._path(node)
        known = sorted({*_PASSING, *_PRODUCTS, *LIPSCHITZ, *self._rules, "add", "sub", "cat"})
        return ConfigError(
            f"model operation {_name(node)!r} of "
            + (f"module {place!r}" if place else "the model itself")
            + " must have a known Lipschitz constant to bound its error, got none for these "
            f"operands; use the measured error alone (known: {', '.join(known)})"
        )

    @staticmethod
    def _foreign(found: str, layer: Layer | None) -> ConfigError:
        wanted = f"layer {layer.name!r} of {layer.output_shape}" if layer else "no more layers"
        return ConfigError(
            f"model must run the layers of the trace in its order, got {found} for {wanted}; "
            "pass the model that was captured"
        )


def _name(node: fx.Node) -> str:
    """An operation's name without namespace and overload."""
    schema = getattr(node.target, "_schema", None)
    name = schema.name if schema is not None else getattr(node.target, "__name__", node.target)
    return str(name).rpartition("::")[2]


def _arguments(node: fx.Node) -> tuple[Any, ...]:
    return node.args


def _argument(node: fx.Node, index: int, default: Any) -> Any:
    return node.args[index] if len(node.args) > index else default


def _shape(node: fx.Node) -> tuple[int, ...]:
    value = node.meta["val"]
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _elements(node: Any) -> int:
    return math.prod(_shape(node))


def _sizes(node: fx.Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Spatial sizes of a pooling's operand and result."""
    dims = int(_name(node)[-2])
    return _shape(node.args[0])[-dims:], _shape(node)[-dims:]  # type: ignore[arg-type]


def _spread(values: Any, dims: int) -> tuple[int, ...]:
    """One value for each dimension."""
    given = tuple(values) if isinstance(values, list | tuple) else (values,)
    return given if len(given) == dims else given * dims


def _elu(node: fx.Node) -> float:
    """Slopes of scale * x and of scale * alpha * (exp(input_scale * x) - 1)."""
    alpha, scale, input_scale = (_argument(node, i, 1) for i in (1, 2, 3))
    return abs(scale) * max(1.0, abs(alpha * input_scale))


def _max_pool(node: fx.Node) -> float:
    size, outputs = _sizes(node)
    kernel = _spread(node.args[1], len(size))
    stride = _spread(_argument(node, 2, ()) or kernel, len(size))
    padding, dilation = (_spread(_argument(node, i, v), len(size)) for i, v in ((3, 0), (4, 1)))
    return max_pool_norm(size, kernel, stride, padding, dilation, outputs)


def _average_pool(node: fx.Node) -> float | None:
    size, outputs = _sizes(node)
    kernel = _spread(node.args[1], len(size))
    stride = _spread(_argument(node, 2, ()) or kernel, len(size))
    padding = _spread(_argument(node, 3, 0), len(size))
    if _argument(node, 6, None) is not None:  # a divisor of its own
        return None
    return math.prod(
        average_norm(*dimension, count_padding=_argument(node, 5, True))
        for dimension in zip(size, kernel, stride, padding, outputs, strict=True)
    )


def _adaptive_pool(node: fx.Node) -> float:
    size, outputs = _sizes(node)
    return math.prod(adaptive_average_norm(*each) for each in zip(size, outputs, strict=True))
