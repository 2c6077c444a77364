"""A region of interest: outside of it, a position's result is that of the batch before."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from accelerators import ConfigError
from accelerators.rules import refuse, true_of, violations
from simulator.decisions.box import Decisions
from simulator.decisions.rows import KeptRows
from simulator.policies.activations import check_activations
from simulator.policies.policy import LayerMemory, LayerState, ReusePolicy
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer


def _is_box(value: object) -> bool:
    """Whether these are two corners within the unit square."""
    if not isinstance(value, tuple | list) or len(value) != 4:
        return False
    numbers = all(type(each) in (int, float) and 0 <= each <= 1 for each in value)
    return numbers and value[0] <= value[2] and value[1] <= value[3]


_BOX = true_of(
    _is_box,
    "be (top, left, bottom, right) from 0 to 1, the lower before the higher",
    "use (0, 0, 1, 1) for the whole image",
)


@dataclass(frozen=True, kw_only=True)
class RegionOfInterest(ReusePolicy):
    """A convolution computes the positions in a region; the others keep what they had.

    Image i of a batch keeps the results of image i of the batch before, as frames of a fixed camera
    do in batches of one. In the first batch all are computed. CaTDet (Mao et al., MLSys 2019) finds
    such regions by a tracker; here one is given for all frames. Convolutions only.

    Attributes:
        region: top, left, bottom and right of the region as fractions of an output's height and
            width; a position is in it if its centre is.

    Raises:
        ConfigError: at construction, where the region is none; at `decide`, where a layer is no
            two-dimensional convolution or activations are not finite, naming the layer.
    """

    region: Sequence[float] = field(metadata=_BOX)

    def __post_init__(self) -> None:
        """Check the region."""
        refuse(violations(self, "RegionOfInterest"))
        object.__setattr__(self, "region", tuple(self.region))

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """Only a convolution over pictures has such positions."""
        others = [
            layer.name for layer in layers if layer.kind != "conv" or len(layer.output_shape) != 4
        ]
        if others:
            raise ConfigError(
                "RegionOfInterest.region must be laid over two-dimensional convolutions, got "
                f"{', '.join(others)}; give these layers a policy of their own or NoReuse()"
            )

    def inside(self, layer: Layer) -> np.ndarray:
        """`(height, width)` bool, output positions in the region."""
        top, left, bottom, right = self.region
        height, width = layer.output_shape[2:]
        down, across = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
        rows, columns = (top <= down) & (down <= bottom), (left <= across) & (across <= right)
        return rows[:, None] & columns

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """All positions, as in a first batch."""
        return self.decide_next(layer, rows, state, None)[0]

    def decide_next(
        self, layer: Layer, rows: np.ndarray, state: LayerState, memory: LayerMemory | None
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """The same positions in every batch but the first; nothing but results is remembered."""
        self.check_layers([layer])
        check_activations(layer, rows)
        kept = np.zeros((layer.gemm.count, layer.gemm.m), bool)
        if memory is not None:
            outside = ~self.inside(layer).ravel()
            kept[:] = np.tile(outside, layer.gemm.m // outside.size)
        shown = KeptRows(gemm=layer.gemm, kept=kept)
        return Decisions(layer=layer.name, gemm=layer.gemm, rows=shown), None

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "region_of_interest", **asdict(self), "region": list(self.region)}


register(
    Technique(
        name="region_of_interest",
        title="a region that is given",
        axis="rows",
        word="keep",
        grain="position",
        rule="Positions in a given box are computed; the others keep what they had in the batch "
        "before. The plain form of regions that a tracker names.",
        evidence="nothing: static",
        source="after CaTDet, Mao et al., MLSys 2019",
        policy=RegionOfInterest,
        units=("address_list",),
        # The lower three quarters, where a road is.
        start={"region": (0.25, 0.0, 1.0, 1.0)},
        published=("CaTDet",),
    )
)
