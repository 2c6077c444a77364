"""Deep reuse of a module's product, in software on this device.

The simulator's policy decides and its compiled kernels run where numba is installed; elsewhere a
plain fallback makes the same decisions. Both cluster as
`LshReuse(hashes=H, length=L, thresholds=..., order="channels_last")` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from accelerators import ConfigError
from codesign.boards.measure.plain import PlainConvolution
from workloads.traces.layer import Convolution, Gemm, Layer
from workloads.traces.unfold import rows_of

COMPILED, PLAIN = KERNELS = ("numba", "plain")
THRESHOLDS = ("zero", "spread")
# Bits of a signature that the plain fallback keys together with an image.
_MOST_HASHES = 40
# Characters of a setting; a cell of a baseline file holds 500.
_LONGEST = 300

Kernel = Callable[[np.ndarray], tuple[np.ndarray, float]]
"""`(images, channels, height, width)` to the product, channels last in memory, and r_c."""


@cache
def why_plain() -> str:
    """Why the compiled kernels cannot run here; empty if they can."""
    try:
        import simulator.boards.software  # noqa: F401
    except (ImportError, OSError) as error:  # a library of LLVM's that is not there is the latter
        return str(error)
    return ""


def default_kernel() -> str:
    """The compiled one, where numba is installed with the rest of what the simulator needs."""
    return PLAIN if why_plain() else COMPILED


@dataclass(frozen=True, kw_only=True)
class Reuse:
    """How modules are reused.

    Attributes:
        hashes: H of every module, 1 to 40.
        length: L of every module, at least 1.
        layers: name or pattern of modules -> (H, L) of their own, or `None` for dense; the first
            that fits counts.
        thresholds: one of `THRESHOLDS`, see `LshReuse`; `spread` ones are taken from the inputs
            measured.
        kernel: one of `KERNELS`.
    """

    hashes: int
    length: int
    layers: Mapping[str, tuple[int, int] | None] = field(default_factory=dict)
    thresholds: str = "spread"
    kernel: str = field(default_factory=default_kernel)

    def __post_init__(self) -> None:
        pairs = {"": (self.hashes, self.length), **self.layers}
        broken = [
            f"Reuse{f'.layers[{name!r}]' if name else ''} must have 1 to {_MOST_HASHES} hashes and "
            f"a length of at least 1, got {pair}; try (10, 8)"
            for name, pair in pairs.items()
            if pair is not None and not (1 <= pair[0] <= _MOST_HASHES and pair[1] >= 1)
        ]
        for name, allowed in (("thresholds", THRESHOLDS), ("kernel", KERNELS)):
            if getattr(self, name) not in allowed:
                broken.append(
                    f"Reuse.{name} must be {' or '.join(map(repr, allowed))}, got "
                    f"{getattr(self, name)!r}; use one"
                )
        if self.kernel == COMPILED and why_plain():
            broken.append(
                f"Reuse.kernel must be {PLAIN!r} where the compiled kernels cannot run, got "
                f"{COMPILED!r}: {why_plain()}; install numba, or use {PLAIN!r}"
            )
        if broken:
            raise ConfigError(broken)

    def of(self, name: str) -> tuple[int, int] | None:
        """H and L of a module; `None` is dense."""
        for pattern, pair in self.layers.items():
            if fnmatchcase(name, pattern):
                return pair
        return self.hashes, self.length

    def text(self, name: str | None = None) -> str:
        """The setting of a module, or of the whole network, as baseline files name it."""
        hashes, length = (name is not None and self.of(name)) or (self.hashes, self.length)
        shared = f"thresholds={self.thresholds} order=channels_last"
        own = ""
        if name is None and self.layers:
            listed = (
                f"{each}={'dense' if pair is None else ','.join(map(str, pair))}"
                for each, pair in self.layers.items()
            )
            own = f", {' '.join(listed)}"
            if len(own) > _LONGEST:
                own = f", {len(self.layers)} layers with their own"
        return f"lsh hashes={hashes} length={length} {shared}{own}"


def compiled(
    layer: Layer,
    weights: np.ndarray,
    images: np.ndarray,
    *,
    hashes: int,
    length: int,
    thresholds: str,
) -> Kernel:
    """As `PlainConvolution`, by the simulator's policy and kernels."""
    from simulator.boards.software import reused_convolution
    from simulator.policies.lsh import LshReuse

    policy = LshReuse(hashes=hashes, length=length, thresholds=thresholds, order="channels_last")
    needed = policy.needs_calibration(layer)
    state = policy.calibrate(layer, rows_of(layer, images)) if needed else {}
    convolution = reused_convolution(layer, weights, policy, state)

    def run(images: np.ndarray) -> tuple[np.ndarray, float]:
        done = convolution(images, threads=torch.get_num_threads())
        return done.output, done.remaining_ratio

    return run


def layer_of(name: str, module: nn.Conv2d | nn.Linear, images: Tensor) -> Layer:
    """A module as a layer of these `(images, channels, height, width)`."""
    geometry = _geometry(module)
    count, out = len(images), len(module.weight)
    high, wide = geometry.output_size(tuple(images.shape[2:]))
    return Layer(
        name=name,
        kind="conv",
        gemm=Gemm(m=count * high * wide, n=out, k=module.weight[0].numel()),
        images=count,
        row_images=count,
        convolution=geometry,
        input_shape=tuple(images.shape),
        output_shape=(count, out, high, wide),
        weights_are_parameters=True,
    )


class ReusedLayer:
    """What a convolution or linear module computes when its product is reused.

    A linear module takes the vectors of one input, such as the tokens of an image, as rows that
    share results.

    Args:
        name: of the module.
        module: an `nn.Conv2d` or `nn.Linear`; its weights are laid out again.
        images: an input of it, as those to come.
        reuse: the setting.

    Attributes:
        remaining_ratio: r_c of the latest run.

    Raises:
        ConfigError: the module cannot be reused, see `why_dense`.
    """

    remaining_ratio: float

    def __init__(self, name: str, module: nn.Module, images: Tensor, reuse: Reuse) -> None:
        reason = why_dense(name, module, images, reuse)
        pair = reuse.of(name)
        if reason or pair is None:
            raise ConfigError(f"module {name!r} must be one to reuse, got: {reason}; run it dense")
        assert isinstance(module, nn.Conv2d | nn.Linear)
        weight = module.weight.detach()
        self._bias = None if module.bias is None else module.bias.detach()
        self._linear = isinstance(module, nn.Linear)
        given = self._as_images(images)
        build = PlainConvolution if reuse.kernel == PLAIN else compiled
        self._kernel: Kernel = build(
            layer_of(name, module, given),
            (weight[:, :, None, None] if self._linear else weight).numpy(),
            given.numpy(),
            hashes=pair[0],
            length=pair[1],
            thresholds=reuse.thresholds,
        )

    def __call__(self, images: Tensor) -> Tensor:
        """The module's output, bias included."""
        product, self.remaining_ratio = self._kernel(self._as_images(images).numpy())
        output = torch.from_numpy(product)
        if not self._linear:
            return output if self._bias is None else output + self._bias[:, None, None]
        output = output.permute(0, 2, 3, 1).reshape(*images.shape[:-1], -1)
        return output if self._bias is None else output + self._bias

    def _as_images(self, images: Tensor) -> Tensor:
        """A linear module is a convolution of one tap, over the vectors of an input in a line."""
        if not self._linear:
            return images
        return images.reshape(len(images), -1, images.shape[-1]).transpose(1, 2)[:, :, None]


def _geometry(module: nn.Conv2d | nn.Linear) -> Convolution:
    """A linear module's has one tap."""
    if isinstance(module, nn.Linear):
        return Convolution(kernel=(1, 1), stride=(1, 1), padding=(0, 0), dilation=(1, 1))
    assert not isinstance(module.padding, str)  # `why_dense` tells of it
    return Convolution(
        kernel=module.kernel_size,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
    )


def why_dense(name: str, module: nn.Module, images: Tensor, reuse: Reuse) -> str:
    """Why a module is not reused; empty if it is."""
    pair = reuse.of(name)
    if pair is None:
        return "asked for dense"
    form = _other_form(module, images)
    if form:
        return form
    assert isinstance(module, nn.Conv2d | nn.Linear)
    linear, shape = isinstance(module, nn.Linear), tuple(images.shape)
    sizes = shape[1:-1] if linear else _geometry(module).output_size(shape[2:])
    if math.prod(sizes) < 2:
        return "one row an image has nothing to share with"
    k = module.weight[0].numel()
    return f"its rows of {k} are shorter than L" if k < pair[1] else ""


def _other_form(module: nn.Module, images: Tensor) -> str:
    """What of a module the kernels do not compute; empty if nothing."""
    if images.dtype != torch.float32:
        return f"its input is {images.dtype}"
    if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
        return ""
    if not isinstance(module, nn.Conv2d) or type(module).forward is not nn.Conv2d.forward:
        return "neither a plain 2-D convolution nor a plain linear module"
    if module.groups > 1:
        return "grouped"
    plain = module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return "" if plain and images.ndim == 4 else "its padding or input has another form"
