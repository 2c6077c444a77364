"""Diffy: a window's result is that of the window to its left, with their difference multiplied."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from accelerators import ConfigError
from simulator.decisions.box import Decisions
from simulator.decisions.evidence import Differences
from simulator.decisions.incremental import incremental
from simulator.kernels.differences import packed_line_bits
from simulator.policies.activations import Activations, check_activations
from simulator.policies.policy import LayerMemory, LayerState, ReusePolicy
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer

# Differences that are stored with one width, as in the paper (16), and the bits that tell it.
_GROUP, _WIDTH_BITS = 16, 4
# Of the integers that inputs of a layer in floating point are stored as.
_LARGEST = 127


@dataclass(frozen=True, kw_only=True)
class SpatialDifferences(ReusePolicy):
    """Along a line of an image, each window's difference to the one before it is multiplied.

    Diffy (Mahmoud, Siu and Moshovos, MICRO 2018): exact, for any image. The first window of a line
    is computed whole; every later one adds its difference's product to the result before it. On an
    array whose units multiply whole operands only differences of exactly 0 save work. The paper's
    array multiplies bit by bit, and gains by the fewer bits that differences have; that is not
    modelled (`effectual_bits` counts them). Its other gain is: inputs lie in the DRAM as
    differences along a line, in groups of 16 that have the width of the widest and 4 bits that tell
    it, so that fewer bytes are loaded. A layer in floating point is stored in 8 bits, scaled to its
    largest value.

    Not modelled: that a layer's outputs are stored so too; that a difference of two operands may
    need one bit more than they have; compression of a layer whose differences are wider.
    Two-dimensional convolutions only.

    Raises:
        ConfigError: at `decide`, where a layer is no two-dimensional convolution or activations are
            not finite, naming the layer.
    """

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """Only a convolution over pictures has lines."""
        others = [
            layer.name for layer in layers if layer.kind != "conv" or len(layer.output_shape) != 4
        ]
        if others:
            raise ConfigError(
                "SpatialDifferences must decide on two-dimensional convolutions, got "
                f"{', '.join(others)}; give these layers a policy of their own or NoReuse()"
            )

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """Differences of windows along each line."""
        self.check_layers([layer])
        check_activations(layer, rows)
        gemm, width = layer.gemm, layer.output_shape[3]
        columns = np.ascontiguousarray(rows.transpose(0, 2, 1))
        lines = columns.reshape(gemm.count, gemm.k, -1, width)
        found = np.empty_like(lines)
        found[..., 0] = lines[..., 0]
        np.subtract(lines[..., 1:], lines[..., :-1], out=found[..., 1:])
        made = incremental(
            gemm,
            found.reshape(columns.shape).transpose(0, 2, 1),
            np.tile(np.arange(gemm.m) % width == 0, (gemm.count, 1)),
            lag=1,
            keeps=False,
            exact=layer.quantisation is not None,
        )
        looked = Differences(remembered_bits=0)
        return Decisions(layer=layer.name, gemm=gemm, rows=made, evidence=looked)

    def decide_given(
        self, layer: Layer, given: Activations, state: LayerState, memory: LayerMemory | None
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """The same, with what inputs take as they are stored."""
        made = self.decide(layer, given.rows, state)
        assert made is not None
        bits = packed_bits(_integers(layer, given.stored))
        looked = Differences(remembered_bits=0, stored_bits=-(-bits // layer.gemm.count))
        return replace(made, evidence=looked), None

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "spatial_differences"}


def line_differences(values: np.ndarray) -> np.ndarray:
    """`(..., width)` int64 differences of each value to the one before it on its line.

    Args:
        values: `(..., width)` integers; the first of a line stands for itself.
    """
    whole = np.asarray(values, np.int64)
    return np.diff(whole, axis=-1, prepend=np.zeros_like(whole[..., :1]))


def packed_bits(values: np.ndarray) -> int:
    """Bits of integers stored as differences along lines, 16 with the width of the widest.

    Args:
        values: `(..., width)` integers of at most 31 bits.
    """
    lines = np.ascontiguousarray(values, np.int32)
    return int(packed_line_bits(lines.reshape(-1, lines.shape[-1]), _GROUP, _WIDTH_BITS))


def _integers(layer: Layer, stored: np.ndarray) -> np.ndarray:
    """A layer's inputs as an array of 8 bits holds them."""
    if layer.quantisation is not None:
        return np.rint(stored).astype(np.int32)
    largest = float(np.abs(stored).max(initial=0.0)) or 1.0
    return np.rint(stored * np.float32(_LARGEST / largest)).astype(np.int32)


register(
    Technique(
        name="diffy",
        title="Diffy",
        axis="rows",
        word="share",
        grain="value",
        rule=(
            "A window's result is that of the window to its left with the product of their "
            "difference added; inputs are stored as differences, in as many bits as they need."
        ),
        evidence="differences along the lines of an image",
        source="Mahmoud, Siu and Moshovos, Diffy, MICRO 2018",
        policy=SpatialDifferences,
        units=("difference_unit", "result_adder"),
        published=("Diffy",),
    )
)
