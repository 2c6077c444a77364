"""What an operation of PyTorch does with a value, in the words of `workloads.traces.after`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BATCH_NORMS = _names(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "cudnn_batch_norm miopen_batch_norm _batch_norm_no_update"
)
_SAME_NAME = _names(
    "elu silu gelu mish softplus tanh sigmoid hardsigmoid hardswish leaky_relu prelu"
)
_PLAIN = {
    **{name: name for name in _SAME_NAME},
    "_prelu_kernel": "prelu",
    "_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "rrelu_with_noise": "leaky_relu",
    "cat": "concatenation",
    "stack": "concatenation",
    "constant_pad_nd": "padding",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
}
_BY_PREFIX = {
    "upsample_": "interpolation",
    "_upsample_": "interpolation",
    "reflection_pad": "padding",
    "replication_pad": "padding",
    "fake_quantize_per_tensor_affine": "quantisation",
    "_fake_quantize_per_tensor_affine": "quantisation",
}
# At least 0, whatever the argument is.
_NEVER_NEGATIVE = _names(
    "relu relu6 sigmoid hardsigmoid softplus _softmax exp exp2 abs square sqrt rsqrt norm var std "
    "linalg_vector_norm bernoulli rand"
)
# At least 0 where the first argument is.
_KEEPS_SIGN = _names(
    "max_pool1d max_pool2d_with_indices max_pool3d_with_indices mkldnn_max_pool2d avg_pool1d "
    "avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d "
    "adaptive_max_pool3d adaptive_avg_pool2d adaptive_avg_pool3d mean sum cumsum amax amin max min "
    "cat stack upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d "
    "upsample_bilinear2d upsample_trilinear3d round floor ceil index index_select gather clone "
    "copy contiguous _to_copy roll flip repeat reflection_pad1d reflection_pad2d reflection_pad3d "
    "replication_pad1d replication_pad2d replication_pad3d leaky_relu elu silu gelu hardswish tanh "
    "prelu _prelu_kernel mish log1p im2col col2im pixel_shuffle pixel_unshuffle channel_shuffle "
    "native_channel_shuffle"
)
_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True, kw_only=True)
class Read:
    """An operation as it was called.

    Attributes:
        base: its name without namespace and the `_` of those in place.
        named: its arguments by name.
        active: of which tensors the model's inputs are known to change.
        never_negative: which tensors have no value below 0, whatever the inputs.
    """

    base: str
    named: Mapping[str, Any]
    active: Callable[[Tensor], bool]
    never_negative: Callable[[Tensor], bool]

    @property
    def first(self) -> Any:
        """The first argument."""
        return next(iter(self.named.values()), None)

    def is_active(self, value: Any) -> bool:
        """Whether this is a tensor that the inputs change."""
        return isinstance(value, Tensor) and self.active(value)


def kind_of(read: Read) -> tuple[str, dict[str, Any]]:
    """The kind of step that an operation is, and what else `Step` says of it."""
    relu = _relu(read)
    if relu is not None:
        return "relu", relu
    reader = _READERS.get(read.base)
    if reader is not None:
        return reader(read)
    plain = _PLAIN.get(read.base)
    if plain is None:
        plain = next((k for prefix, k in _BY_PREFIX.items() if read.base.startswith(prefix)), None)
    return plain or "other", {}


def is_never_negative(read: Read) -> bool:
    """Whether no value of the result is below 0, whatever the model's inputs are."""
    base, relu = read.base, _relu(read)
    if base in _NEVER_NEGATIVE or relu is not None:
        return True
    sign = _SIGNS.get(base.removesuffix("_cachemask").removesuffix("_cachemask_tensor_qparams"))
    if sign is not None:
        return sign(read)
    if base not in _KEEPS_SIGN:
        return False
    given = read.first
    tensors = given if isinstance(given, list | tuple) else [given]
    return all(isinstance(x, Tensor) and read.never_negative(x) for x in tensors)


def batch_norm_of(named: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch normalisation in inference mode, float64."""
    mean, variance = (named[name].detach().double().cpu() for name in _STATISTICS)
    weight, bias = named.get("weight"), named.get("bias")
    scale = (variance + named.get("eps", named.get("epsilon", 1e-5))).rsqrt()
    if weight is not None:
        scale = scale * weight.detach().double().cpu()
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias.detach().double().cpu()


def constant_of(read: Read) -> tuple[float | Tensor, float | Tensor] | None:
    """Of a `scale` or `shift`, what is multiplied by and then added; `None` if that isn't plain."""
    named, alpha = read.named, _alpha(read)
    left, right = named["self"], named["other"]
    if not read.is_active(left):
        if read.base not in ("add", "mul") or alpha != 1:
            return None
        left, right = right, left
    value = right.detach() if isinstance(right, Tensor) else right
    plain = named.get("rounding_mode") is None
    found: dict[str, Callable[[], tuple[Any, Any]]] = {
        "add": lambda: (1.0, value * alpha),
        "sub": lambda: (1.0, value * -alpha),
        "rsub": lambda: (-alpha, value),  # other - alpha * self
        "mul": lambda: (value, 0.0),
        "div": lambda: (1.0 / value, 0.0),
    }
    return found[read.base]() if plain else None


def _alpha(read: Read) -> float:
    return float(read.named.get("alpha", 1))


def _at_least_zero(read: Read, value: Any) -> bool:
    if isinstance(value, Tensor):
        return read.never_negative(value)
    return isinstance(value, int | float) and value >= 0


def _relu(read: Read) -> dict[str, Any] | None:
    """What a ReLU is bounded by from above; `None` of anything else."""
    reader = _RELUS.get(read.base)
    bounds = None if reader is None else reader(read)
    if bounds is None:
        return None
    lower, upper = bounds
    if isinstance(lower, Tensor):
        lower = None if read.active(lower) or bool(lower.any()) else 0.0
    if lower is None or lower != 0 or isinstance(upper, Tensor):
        return None
    return {} if upper is None else {"upper": float(upper)}


def _thresholded(read: Read) -> tuple[Any, Any] | None:
    return (read.named.get("value"), None) if read.named.get("threshold") == 0 else None


def _slope(read: Read) -> tuple[Any, Any] | None:
    return (0, None) if read.named.get("negative_slope") == 0 else None


def _maximum(read: Read) -> tuple[Any, Any]:
    return next((x for x in read.named.values() if not read.is_active(x)), None), None


# Reads what an operation cuts off below and above; `None` where it does something else.
_RELUS: dict[str, Callable[[Read], tuple[Any, Any] | None]] = {
    "relu": lambda read: (0, None),
    "relu6": lambda read: (0, 6),
    "clamp": lambda read: (read.named.get("min"), read.named.get("max")),
    "clamp_min": lambda read: (read.named.get("min"), None),
    "hardtanh": lambda read: (read.named.get("min_val"), read.named.get("max_val")),
    "threshold": _thresholded,
    "leaky_relu": _slope,
    "maximum": _maximum,
}


def _batch_norm(read: Read) -> tuple[str, dict[str, Any]]:
    """By statistics of its own, or by those of the batch: these depend on the inputs."""
    named = read.named
    statistics = [named.get(name) for name in _STATISTICS]
    known = all(isinstance(each, Tensor) and not read.active(each) for each in statistics)
    changed = any(read.is_active(named.get(name)) for name in ("weight", "bias"))
    plain = known and not named.get("training", False) and not changed
    return "batch_norm" if plain else "other", {}


def _arithmetic(read: Read) -> tuple[str, dict[str, Any]]:
    if all(read.is_active(read.named[name]) for name in ("self", "other")):
        both = {"add": "add", "sub": "subtract", "rsub": "subtract", "mul": "multiply"}
        return both.get(read.base, "other"), {}
    if constant_of(read) is None:
        return "other", {}
    return "scale" if read.base in ("mul", "div") else "shift", {}


def _cast(read: Read) -> tuple[str, dict[str, Any]]:
    """To other floating-point numbers; to integers it is something else."""
    dtypes = read.named["self"].dtype, read.named.get("dtype")
    floats = all(dtype is None or dtype.is_floating_point for dtype in dtypes)
    return "cast" if floats else "other", {}


def _windows(read: Read) -> dict[str, Any]:
    """Kernel, stride and padding of pooling, one number a dimension."""
    named = read.named
    dims = int(next(c for c in read.base if c.isdigit()))
    kernel = _each(named["kernel_size"], dims)
    stride = _each(named.get("stride") or kernel, dims)
    padding = _each(named.get("padding", 0), dims)
    if any(each != 1 for each in _each(named.get("dilation", 1), dims)):
        return {}
    return {"kernel": kernel, "stride": stride, "padding": padding}


def _each(value: Any, dims: int) -> tuple[int, ...]:
    numbers = tuple(value) if isinstance(value, list | tuple) else (value,)
    return numbers * dims if len(numbers) == 1 else numbers


def _adaptive(read: Read) -> dict[str, Any]:
    """As plain pooling, where all windows are of one size."""
    output = tuple(read.named["output_size"])
    size = tuple(read.first.shape[-len(output) :])
    if any(given % made for given, made in zip(size, output, strict=True)):
        return {}
    windows = tuple(given // made for given, made in zip(size, output, strict=True))
    return {"kernel": windows, "stride": windows, "padding": (0,) * len(windows)}


def _mean(read: Read) -> tuple[str, dict[str, Any]]:
    """Global pooling, if it is over all spatial dimensions."""
    given: Tensor = read.first
    over = read.named.get("dim")
    dims = sorted(d % given.ndim for d in over) if over else []
    if given.ndim < 3 or dims != list(range(2, given.ndim)):
        return "mean", {}
    size = tuple(given.shape[2:])
    return "avg_pool", {"kernel": size, "stride": size, "padding": (0,) * len(size)}


_READERS: dict[str, Callable[[Read], tuple[str, dict[str, Any]]]] = {
    **dict.fromkeys(_BATCH_NORMS, _batch_norm),
    **dict.fromkeys(("add", "sub", "rsub", "mul", "div"), _arithmetic),
    **dict.fromkeys(
        ("max_pool1d", "max_pool2d_with_indices", "max_pool3d_with_indices", "mkldnn_max_pool2d"),
        lambda read: ("max_pool", _windows(read)),
    ),
    **dict.fromkeys(
        ("avg_pool1d", "avg_pool2d", "avg_pool3d"), lambda read: ("avg_pool", _windows(read))
    ),
    **dict.fromkeys(
        ("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
        lambda read: ("avg_pool", _adaptive(read)),
    ),
    **dict.fromkeys(
        ("adaptive_max_pool2d", "adaptive_max_pool3d"),
        lambda read: ("max_pool", _adaptive(read)),
    ),
    "mean": _mean,
    "_to_copy": _cast,
}


def _bounded(read: Read) -> bool:
    """Of `clamp` and its like that are no ReLU: a bound from below, or what they are given."""
    named = read.named
    bounds = (named.get("min"), named.get("min_val"))
    if any(bound is not None and _at_least_zero(read, bound) for bound in bounds):
        return True
    top = named.get("value", named.get("max", named.get("max_val")))
    return (top is None or _at_least_zero(read, top)) and read.never_negative(read.first)


def _both(read: Read) -> bool:
    return _alpha(read) >= 0 and all(_at_least_zero(read, read.named[x]) for x in ("self", "other"))


def _quantised(read: Read) -> bool:
    """0 stays 0; with that as the least integer nothing is below."""
    point = read.named.get("zero_point")
    least = None if point is None else float(point)
    return least == read.named.get("quant_min") or read.never_negative(read.first)


# Whether a result is at least 0, of operations for which the first argument is not all.
_SIGNS: dict[str, Callable[[Read], bool]] = {
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max", "hardtanh", "threshold"), _bounded),
    **dict.fromkeys(("add", "mul", "div", "minimum"), _both),
    **dict.fromkeys(
        ("fake_quantize_per_tensor_affine", "_fake_quantize_per_tensor_affine"), _quantised
    ),
    "maximum": lambda read: any(_at_least_zero(read, read.named[x]) for x in ("self", "other")),
    "constant_pad_nd": lambda read: (
        read.named.get("value", 0) >= 0 and read.never_negative(read.first)
    ),
}


def is_copy(base: str, named: Mapping[str, Any]) -> bool:
    """Whether an operation gives the same values in memory of their own."""
    if base in ("clone", "contiguous", "lift_fresh", "lift", "alias_copy", "detach_copy"):
        return True
    if base == "_to_copy":
        return named.get("dtype") in (None, named["self"].dtype)
    if base in ("dropout", "native_dropout"):
        return not named.get("train", True)
    return False


def of_floats(tensor: Tensor) -> bool:
    """Whether values of a tensor may be below 0 by their type."""
    return tensor.dtype not in (torch.uint8, torch.bool, torch.uint16, torch.uint32, torch.uint64)
