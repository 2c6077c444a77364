"""Deep reuse of a module's product, in software on this device.

Where the simulator can be imported, its compiled kernels run (`simulator.boards.software`, numba);
elsewhere the same decisions are made in PyTorch's operations. Both cluster as
`LshReuse(hashes=H, length=L, thresholds=..., order="channels_last")` does.
"""

from __future__ import annotations

import importlib
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from accelerators import ConfigError

KERNELS = ("numba", "torch")
THRESHOLDS = ("zero", "spread")
# Bits of a signature that fit in a key beside its sub-matrix and image, and in a float64.
_MOST_HASHES = 40
# Of a whole number in a float32.
_EXACT_BITS = 24
# As LshReuse: rows that tell how widely projections vary, and evenly spread multiples.
_SAMPLE_ROWS = 128
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
# Characters of a setting; a cell of a baseline file holds 500.
_LONGEST = 300
# A table of all signatures is faster than sorting until it is this many times the sub-vectors.
_TABLE_SHARE = 4

Kernel = Callable[[Tensor], tuple[Tensor, float]]
"""`(images, channels, height, width)` to the product, channels last in memory, and r_c."""


def default_kernel() -> str:
    """Numba's, where it is installed with the rest of what the simulator needs."""
    try:
        importlib.import_module("simulator.boards.software")
    except ImportError:
        return "torch"
    return "numba"


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


@dataclass(frozen=True, kw_only=True)
class Patches:
    """A product over `(images, channels, height, width)`: a convolution without groups.

    Attributes:
        kernel, stride, padding, dilation: of the two dimensions.
    """

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the result."""
        sizes = zip(
            (height, width), self.kernel, self.stride, self.padding, self.dilation, strict=True
        )
        high, wide = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes)
        return high, wide

    def rows(self, images: Tensor) -> Tensor:
        """`(images, positions, k)` with k in the order (kh, kw, channels)."""
        high, wide = self.output_size(*images.shape[2:])
        top, left = self.padding
        grown = functional.pad(images, (left, left, top, top)) if top or left else images
        laid = grown.permute(0, 2, 3, 1).contiguous()
        count, _, _, channels = laid.shape
        image, down, across, one = laid.stride()
        shape = (count, high, wide, *self.kernel, channels)
        steps = (
            image,
            down * self.stride[0],
            across * self.stride[1],
            down * self.dilation[0],
            across * self.dilation[1],
            one,
        )
        return laid.as_strided(shape, steps).reshape(count, high * wide, -1)


class TorchKernel:
    """A reused convolution in PyTorch's operations.

    Args:
        name: of the module; it seeds the hyperplanes, as in `LshReuse`.
        weight: `(out, channels, kh, kw)`.
        patches: its geometry.
        images: `(images, channels, height, width)` that `spread` thresholds are taken from.
        hashes: H.
        length: L.
        thresholds: one of `THRESHOLDS`.
    """

    def __init__(
        self,
        name: str,
        weight: Tensor,
        patches: Patches,
        images: Tensor,
        *,
        hashes: int,
        length: int,
        thresholds: str,
    ) -> None:
        self._patches, self._hashes, self._length = patches, hashes, length
        columns = weight.permute(2, 3, 1, 0).reshape(-1, len(weight))
        self._sub_matrices = math.ceil(len(columns) / length)
        self._short = self._sub_matrices * length - len(columns)
        wide = functional.pad(columns, (0, 0, 0, self._short))
        self._weights = wide.reshape(self._sub_matrices, length, -1).contiguous()
        rng = np.random.default_rng([0, zlib.crc32(name.encode())])
        normal = torch.from_numpy(rng.standard_normal((hashes, length), dtype=np.float32))
        self._planes = torch.where(normal < 0, -1.0, 1.0).T.contiguous()
        exact = torch.float32 if hashes <= _EXACT_BITS else torch.float64
        self._powers = 2.0 ** torch.arange(hashes, dtype=exact)
        self._thresholds = torch.zeros(self._sub_matrices, hashes)
        if thresholds == "spread":
            self._thresholds = self._spread(self._sub_vectors(images))

    def __call__(self, images: Tensor) -> tuple[Tensor, float]:
        """The product, `(images, out, height, width)`, without bias, and r_c."""
        sub_vectors = self._sub_vectors(images)
        ids, sizes = self._cluster(sub_vectors)
        clusters = int(sizes.sum())
        # A bag holds what is added: the sub-vectors of a cluster, the results of a row.
        members = torch.from_numpy(_sorting(ids.ravel().numpy(), clusters))
        per_cluster = torch.bincount(ids.ravel(), minlength=clusters)
        centroids = functional.embedding_bag(
            members,
            sub_vectors.reshape(-1, self._length),
            per_cluster.cumsum(0) - per_cluster,
            mode="mean",
        )
        results = torch.empty(clusters, self._weights.shape[2])
        first = 0
        for weights, size in zip(self._weights, sizes.tolist(), strict=True):
            torch.mm(centroids[first : first + size], weights, out=results[first : first + size])
            first += size
        output = functional.embedding_bag(ids, results, mode="sum")
        high, wide = self._patches.output_size(*images.shape[2:])
        shaped = output.reshape(len(images), high, wide, -1).permute(0, 3, 1, 2)
        return shaped, clusters / ids.numel()

    def _sub_vectors(self, images: Tensor) -> Tensor:
        """`(images, positions, s, L)`."""
        rows = self._patches.rows(images)
        if self._short:
            rows = functional.pad(rows, (0, self._short))
        return rows.reshape(*rows.shape[:2], self._sub_matrices, self._length)

    def _cluster(self, sub_vectors: Tensor) -> tuple[Tensor, Tensor]:
        """`(rows, s)` ids, numbered through sub-matrix by sub-matrix, and the `(s,)` clusters."""
        projected = sub_vectors @ self._planes
        bits = torch.gt(projected, self._thresholds, out=projected)  # as 0. and 1.: half the copies
        images = len(bits)
        # Equal keys: equal signatures in the same image and sub-matrix.
        blocks = torch.arange(self._sub_matrices) * images + torch.arange(images)[:, None]
        keys = (bits.to(self._powers.dtype) @ self._powers).long() + (
            blocks[:, None] << self._hashes
        )
        keys = keys.reshape(-1, self._sub_matrices)
        table = images * self._sub_matrices << self._hashes
        if table <= _TABLE_SHARE * keys.numel():
            present = torch.bincount(keys.ravel(), minlength=table) > 0
            ids = (present.cumsum(0) - 1)[keys]
            return ids, present.reshape(self._sub_matrices, -1).sum(1)
        known, ids = torch.unique(keys, return_inverse=True)
        owners = torch.div(known >> self._hashes, images, rounding_mode="floor")
        return ids, torch.bincount(owners, minlength=self._sub_matrices)

    def _spread(self, sub_vectors: Tensor) -> Tensor:
        """`(s, H)` thresholds about the mean, as `LshReuse` places them."""
        rows = sub_vectors.flatten(0, 1)
        mean = rows.mean(0)
        kept = torch.from_numpy(np.linspace(0, len(rows) - 1, _SAMPLE_ROWS).astype(np.int64))
        distances = (rows[kept] - mean) @ self._planes
        deviation = distances.double().square().mean(0).sqrt()
        places = 2 * ((torch.arange(self._hashes, dtype=torch.float64) + 0.5) * _GOLDEN_RATIO % 1)
        return mean @ self._planes + (deviation * (places - 1)).float()


def _sorting(ids: np.ndarray, clusters: int) -> np.ndarray:
    """Indices that sort; of 16 bits numpy sorts by counting, many times faster."""
    if clusters <= 1 << 16:
        return np.argsort(ids.astype(np.uint16), kind="stable")
    return np.argsort(ids)


def numba_kernel(
    name: str,
    weight: Tensor,
    patches: Patches,
    images: Tensor,
    *,
    hashes: int,
    length: int,
    thresholds: str,
) -> Kernel:
    """The same as `TorchKernel` by the simulator's compiled loops."""
    from simulator import LshReuse
    from simulator.boards.software import ReusedConvolution
    from workloads.traces.layer import Convolution, Gemm, Layer
    from workloads.traces.unfold import rows_of

    count = len(images)
    high, wide = patches.output_size(*images.shape[2:])
    layer = Layer(
        name=name,
        kind="conv",
        gemm=Gemm(m=count * high * wide, n=len(weight), k=weight[0].numel()),
        images=count,
        row_images=count,
        convolution=Convolution(
            kernel=patches.kernel,
            stride=patches.stride,
            padding=patches.padding,
            dilation=patches.dilation,
        ),
        input_shape=tuple(images.shape),
        output_shape=(count, len(weight), high, wide),
        weights_are_parameters=True,
    )
    policy = LshReuse(hashes=hashes, length=length, thresholds=thresholds, order="channels_last")
    needed = policy.needs_calibration(layer)
    state = policy.calibrate(layer, rows_of(layer, images.numpy())) if needed else {}
    convolution = ReusedConvolution(layer, weight.numpy(), policy, state)

    def run(images: Tensor) -> tuple[Tensor, float]:
        done = convolution.run(images.numpy(), threads=torch.get_num_threads())
        return torch.from_numpy(done.output), done.remaining_ratio

    return run


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
        patches = _patches(module)
        build = TorchKernel if reuse.kernel == "torch" else numba_kernel
        self._kernel: Kernel = build(
            name,
            weight.reshape(*weight.shape, 1, 1) if self._linear else weight,
            patches,
            self._as_images(images),
            hashes=pair[0],
            length=pair[1],
            thresholds=reuse.thresholds,
        )

    def __call__(self, images: Tensor) -> Tensor:
        """The module's output, bias included."""
        output, self.remaining_ratio = self._kernel(self._as_images(images))
        if not self._linear:
            return output if self._bias is None else output + self._bias[:, None, None]
        output = output.permute(0, 2, 3, 1).reshape(*images.shape[:-1], -1)
        return output if self._bias is None else output + self._bias

    def _as_images(self, images: Tensor) -> Tensor:
        """A linear module is a convolution of one tap, over the vectors of an input in a line."""
        if not self._linear:
            return images
        return images.reshape(len(images), -1, images.shape[-1]).transpose(1, 2)[:, :, None]


def _patches(module: nn.Module) -> Patches:
    if not isinstance(module, nn.Conv2d):
        return Patches()
    pairs = {
        name: tuple(getattr(module, attribute))
        for name, attribute in (
            ("kernel", "kernel_size"),
            ("stride", "stride"),
            ("padding", "padding"),
            ("dilation", "dilation"),
        )
    }
    return Patches(**pairs)


def why_dense(name: str, module: nn.Module, images: Tensor, reuse: Reuse) -> str:
    """Why a module is not reused; empty if it is."""
    pair = reuse.of(name)
    if pair is None:
        return "asked for dense"
    form = _other_form(module, images)
    if form:
        return form
    assert isinstance(module, nn.Conv2d | nn.Linear)
    linear = isinstance(module, nn.Linear)
    sizes = images.shape[1:-1] if linear else _patches(module).output_size(*images.shape[2:])
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
