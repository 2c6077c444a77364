"""Layers that keep a given part of their vectors, designs that fit them, and dense ones as large.

What study 017 draws its map from: decisions are counted out, not found in data, so that the ratio
that remains is whatever is asked for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np

from accelerators import Accelerator, area_by_part, preset
from codesign.space.techniques import SHARING
from simulator import Decisions, DesignReport, LshReuse, PerLayer, SharedRows, fitted_design
from simulator.policies.tiled import TiledPolicy
from simulator.timing.dense_baseline import equal_area_dense
from simulator.timing.pipeline import layer_timing
from workloads import Layer
from workloads.traces.layer import Convolution, Gemm

# Dense designs may be so much larger than the design that they are compared with, at most.
AS_LARGE = 1.03
# Ratios that designs are built for.
KEPT = (0.2, 0.5, 0.8)
# Of LSH: as many as a leader table has leaders.
HASHES = 16
# Spreads signatures over the cache's sets, as hashes of different clusters are spread (Knuth).
_SPREAD = 0x9E3779B1


def convolution(
    size: tuple[int, int], channels: int, n: int, kernel: int = 3, *, name: str = "conv"
) -> Layer:
    """One of an image, with a stride of 1 and outputs as large as its input."""
    height, width = size
    return Layer(
        name=name,
        kind="conv",
        gemm=Gemm(m=height * width, n=n, k=kernel * kernel * channels),
        images=1,
        row_images=1,
        convolution=Convolution(
            kernel=(kernel, kernel), stride=(1, 1), padding=(kernel // 2,) * 2, dilation=(1, 1)
        ),
        input_shape=(1, channels, height, width),
        output_shape=(1, n, height, width),
        weights_are_parameters=True,
    )


def linear(tokens: int, k: int, n: int) -> Layer:
    """A linear layer on the tokens of an image."""
    return Layer(
        name="linear",
        kind="linear",
        gemm=Gemm(m=tokens, n=n, k=k),
        images=1,
        row_images=1,
        input_shape=(tokens, k),
        output_shape=(tokens, n),
        weights_are_parameters=True,
    )


# Stages of a ResNet-18 at 240x320: output size, channels, and 3x3 layers of this shape.
STAGES = (((120, 160), 64, 4), ((60, 80), 128, 3), ((30, 40), 256, 3), ((15, 20), 512, 3))


def _trunk() -> tuple[Layer, ...]:
    return tuple(
        convolution(size, channels, channels, name=f"stage{stage}.{number}")
        for stage, (size, channels, layers) in enumerate(STAGES, start=1)
        for number in range(layers)
    )


# Name -> layers that run one after the other.
SHAPES: Mapping[str, tuple[Layer, ...]] = {
    **{
        f"3x3 {channels}->{channels}, {size[0]}x{size[1]}": (convolution(size, channels, channels),)
        for size, channels, _ in STAGES
    },
    "all of these, as in a ResNet-18": _trunk(),
    "3x3 16->16, 120x160": (convolution((120, 160), 16, 16),),
    "3x3 64->256, 60x80": (convolution((60, 80), 64, 256),),
    "1x1 128->128, 60x80": (convolution((60, 80), 128, 128, 1),),
    "1x1 128->512, 60x80": (convolution((60, 80), 128, 512, 1),),
    "VGG 3x3 64->64, 32x32": (convolution((32, 32), 64, 64),),
    "VGG 3x3 256->256, 8x8": (convolution((8, 8), 256, 256),),
    "VGG 3x3 512->512, 4x4": (convolution((4, 4), 512, 512),),
    "linear 768->768, 196 tokens": (linear(196, 768, 768),),
    "linear 768->3072, 196 tokens": (linear(196, 768, 3072),),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is decided, and the design that it runs on.

    Attributes:
        technique: a name of `codesign.space.techniques.SHARING`.
        tile_rows: rows of a tile at most; `None` for whole images.
        tile_shape: strips or blocks.
        length: L, at most the channels that a tap meets.
        look_once: whether a pixel is looked at once, not once a tap.
        columns: of n in a pass, which memories are sized for.
        kept: part of the vectors that memories and units are sized for.
        array: rows and columns of the array.
        fold_timing: how its folds follow each other.
        accumulator_bits: of a sum.
        dram: kind of DRAM, which sets its energy a byte.
    """

    technique: str
    tile_rows: int | None = 256
    tile_shape: str = "block"
    length: int = 64
    look_once: bool = True
    columns: int = 64
    kept: float = 0.5
    array: int = 64
    fold_timing: str = "overlapped"
    accumulator_bits: int = 24
    dram: str = "focus_2026"

    def policy(self, layer: Layer) -> TiledPolicy:
        """The technique on a layer."""
        technique = SHARING[self.technique]
        convolved = layer.convolution
        taps = 1 if convolved is None or not self.look_once else np.prod(convolved.kernel)
        given = {
            **technique.start,
            "scope": "image" if self.tile_rows is None else "tile",
            "tile_rows": self.tile_rows,
            "tile_shape": self.tile_shape,
            "length": min(self.length, layer.gemm.k // int(taps)),
            "look_once": self.look_once,
            "order": "channels_last",
        }
        if technique.policy is LshReuse:
            given["hashes"] = HASHES
        return technique.policy(**given)  # type: ignore[return-value]

    def base(self) -> Accelerator:
        """The design before its memories and units are fitted, with the technique's units alone."""
        every = preset("every_64x64")
        own = {name: getattr(every, name) for name in SHARING[self.technique].units}
        array = replace(
            every.array, rows=self.array, columns=self.array, fold_timing=self.fold_timing
        )
        bytes_read = self.array * every.operand_bits
        return replace(
            every.without_reuse(every.name),
            array=array,
            activation_buffer=replace(every.activation_buffer, width_bits=bytes_read),
            weight_buffer=replace(every.weight_buffer, width_bits=bytes_read),
            accumulator_bits=self.accumulator_bits,
            dram=replace(every.dram, kind=self.dram),
            **own,
        )

    def design(self, layers: Iterable[Layer]) -> Accelerator:
        """Fitted to the layers."""
        layers = tuple(layers)
        policies = PerLayer({layer.name: self.policy(layer) for layer in layers})
        return fitted_design(
            self.base(), layers, policies, columns=self.columns, remaining=self.kept
        )


def settings(
    shape: str, technique: str, tile_rows: int | None, ratios: Sequence[float] = KEPT
) -> list[Setting]:
    """Designs worth trying.

    Args:
        shape: of `SHAPES`.
        technique: of `SHARING`.
        tile_rows: see `Setting`.
        ratios: that designs are built for.
    """
    layers = SHAPES[shape]
    channels = min(layer.input_shape[1] for layer in layers)
    taps = max(1 if each.convolution is None else each.convolution.kernel[0] for each in layers)
    array = min(64, channels)
    # A vector is looked at once for the taps times these: a layer of one tap has wider passes.
    wide = (array // 2, array) if taps > 1 else (array, 4 * array)
    return [
        Setting(
            technique=technique, tile_rows=tile_rows, columns=columns, kept=kept, array=array,
            length=min(64, channels),
        )
        for columns, kept in product(wide, ratios)
    ]  # fmt: skip


def decisions(layer: Layer, policy: TiledPolicy, ratio: float) -> Decisions:
    """A layer that keeps a given part of the vectors of each view in each tile, at least one.

    Members follow one another: vector j of V is in cluster j |C| // V, as those of neighbours are.

    Args:
        layer: the layer.
        policy: how it is looked at, and with what evidence.
        ratio: |C| over the vectors, rounded to whole clusters; above 0 and at most 1.
    """
    looks = policy.looks(layer)
    vectors = looks.vectors
    clusters = np.where(vectors > 0, np.maximum(1, np.rint(ratio * vectors)), 0).astype(np.int32)
    ids = np.full((looks.gemm.count, looks.views, looks.positions), -1, np.int32)
    for view in range(looks.views):
        order, bounds = looks.orders[view // looks.segments]
        sizes = np.diff(bounds)
        ranks = np.arange(order.size) - np.repeat(bounds[:-1], sizes)
        ids[:, view, order] = ranks * np.repeat(clusters[view] / np.maximum(1, sizes), sizes)
    of_all = np.broadcast_to(clusters, (looks.gemm.count, *clusters.shape))
    numbers = np.concatenate([np.arange(each, dtype=np.uint64) for each in of_all.ravel()])
    signatures = numbers * np.uint64(_SPREAD) % np.uint64(2**HASHES)
    rows = SharedRows(
        gemm=layer.gemm,
        looks=looks,
        ids=ids,
        clusters=of_all,
        centroids=None,
        representative=policy.representative,
        column_order=policy.column_order(layer),
    )
    evidence = policy.evidence(layer, signatures)
    return Decisions(layer=layer.name, gemm=layer.gemm, rows=rows, evidence=evidence)


@lru_cache(maxsize=4096)
def _decided(layer: Layer, policy: TiledPolicy, ratio: float) -> Decisions:
    return decisions(layer, policy, ratio)


def run(
    layers: tuple[Layer, ...], setting: Setting, ratio: float, design: Accelerator
) -> DesignReport:
    """Layers that keep a given part of their vectors, on a design."""
    known: dict[Gemm, object] = {}
    timings = []
    for layer in layers:
        if layer.gemm not in known:
            left = _decided(layer, setting.policy(layer), ratio)
            known[layer.gemm] = layer_timing(layer, left, design)
        timings.append((layer, known[layer.gemm]))
    return DesignReport.of(design, timings, 1)  # type: ignore[arg-type]


def dense(layers: tuple[Layer, ...], design: Accelerator) -> DesignReport:
    """The layers on the best dense design of equal area."""
    found, timings = equal_area_dense(layers, design)
    return DesignReport.of(found, timings, 1)


def as_large(
    layers: tuple[Layer, ...], designs: Iterable[Accelerator]
) -> dict[Accelerator, DesignReport]:
    """Of each design the best dense one that is as large, or up to 3 % larger.

    Designs about as large as each other share it: it is that of the largest of them.
    """
    found: dict[Accelerator, DesignReport] = {}
    area_mm2, best = 0.0, None
    sizes = {each: sum(area_by_part(each).values()) for each in designs}
    for each in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if best is None or sizes[each] * AS_LARGE < area_mm2:
            area_mm2, best = sizes[each], dense(layers, each)
        found[each] = best
    return found
