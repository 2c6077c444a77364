"""Regions of interest from the last answer: where it saw nothing of interest, it is kept."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from accelerators import ConfigError
from accelerators.rules import integer, one_of, refuse, true_of, violations
from simulator.decisions.box import Decisions
from simulator.decisions.evidence import LastAnswer
from simulator.policies.activations import Activations, check_activations
from simulator.policies.patches import has_positions, kept_since
from simulator.policies.policy import LayerMemory, LayerState, ReusePolicy
from simulator.policies.reaching import dilated, is_picture, positions_for
from simulator.policies.surroundings import Surroundings
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer

OUTSIDE = ("keep", "zero")
_FRAMES = "frames"

_CLASSES = true_of(
    lambda value: (
        isinstance(value, tuple | list) and all(type(each) is int and each >= 0 for each in value)
    ),
    "be numbers of classes",
    "use (0, 3) for the first and the fourth, or () to look everywhere",
)


@dataclass(frozen=True, kw_only=True)
class AnsweredRegions(ReusePolicy):
    """Layers compute what the regions of interest of the last frame's answer are made of.

    A stand-in for CaTDet (Mao et al., MLSys 2019), whose proposal network and tracker name regions:
    here the class of each pixel in the last frame's answer does. What is not background, grown by
    some pixels on every side, is the region; from it the positions that are needed of each layer
    follow, from the answer back to the first layer (its halo). The others keep their result, or are
    0. In the first batch, and every `refresh` batches, all is computed, so that what is new outside
    of all regions is seen at all.

    An answer is known once a batch is through: its last frame names the regions of all frames of
    the next. Batches of one frame make regions follow the scene. It takes a model that runs and
    answers with a class for each pixel. Layers that are no convolutions of pictures compute all.

    Attributes:
        background: classes that name no region; none of them, and all is computed.
        dilation: pixels of the answer that regions are grown by, 0 to 4096.
        outside: what positions outside have: `keep`, their result in the frame before, or `zero`.
        refresh: every so-manieth batch is computed whole, 0 (only the first is) to 1048576.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide`, where no model runs,
            its answers are not a class for each pixel, or activations are not finite.
    """

    background: Sequence[int] = field(metadata=_CLASSES)
    dilation: int = field(default=8, metadata=integer(0, 4096))
    outside: str = field(default="keep", metadata=one_of(lambda: OUTSIDE))
    refresh: int = field(default=0, metadata=integer(0, 2**20))

    def __post_init__(self) -> None:
        """Check every rule."""
        refuse(violations(self, "AnsweredRegions"))
        object.__setattr__(self, "background", tuple(self.background))

    def applies_to(self, layer: Layer) -> bool:
        """To convolutions of pictures."""
        return is_picture(layer) and has_positions(layer)

    def region(self, answers: np.ndarray) -> np.ndarray:
        """`(height, width)` bool, of a frame's answers."""
        return dilated(~np.isin(answers, self.background), self.dilation)

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """All positions, as in a first batch."""
        return self.decide_next(layer, rows, state, None)[0]

    def decide_next(
        self, layer: Layer, rows: np.ndarray, state: LayerState, memory: LayerMemory | None
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """As where no answer is known."""
        return self._decided(layer, rows, memory, None)

    def decide_in(
        self,
        layer: Layer,
        given: Activations,
        state: LayerState,
        memory: LayerMemory | None,
        around: Surroundings | None,
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """The positions that the last answer's regions are made of."""
        return self._decided(layer, given.rows, memory, around)

    def _decided(
        self,
        layer: Layer,
        rows: np.ndarray,
        memory: LayerMemory | None,
        around: Surroundings | None,
    ) -> tuple[Decisions, LayerMemory]:
        """What is decided, and kept for the next batch."""
        check_activations(layer, rows)
        images, size = layer.row_images, layer.output_shape[2:]
        batches = 0 if memory is None else int(memory[_FRAMES][0])
        computed = np.ones((images, *size), bool)
        whole = memory is None or (self.refresh and batches % self.refresh == 0)
        if not whole and around is not None:
            computed[:] = self._positions(layer, around)
        found = kept_since(layer, computed.reshape(images, -1), zero=self.outside == "zero")
        results = layer.gemm.count * layer.gemm.n * int(np.prod(size))
        made = Decisions(
            layer=layer.name,
            gemm=layer.gemm,
            rows=found,
            evidence=LastAnswer(
                compared=0,
                updated=0,
                line_bits=0,
                kept_elements=0 if self.outside == "zero" else results,
            ),
        )
        return made, {_FRAMES: np.array([batches + 1])}

    def _positions(self, layer: Layer, around: Surroundings) -> np.ndarray:
        """`(height, width)` bool, wanted of a layer.

        Raises:
            ConfigError: no answer names a region.
        """
        answers = around.answers
        if answers is None or answers.ndim != 2:
            found = "none" if answers is None else f"answers of shape {answers.shape}"
            raise ConfigError(
                "AnsweredRegions must know the class of each pixel in the last frame's answer, got "
                f"{found}; give the model (model=..., --model), one that answers every pixel"
            )
        wanted = positions_for(self.region(answers), around).get(layer.name)
        return np.ones(layer.output_shape[2:], bool) if wanted is None else wanted

    def describe(self) -> dict:
        """The policy as plain values."""
        return {
            "policy": "answered_regions",
            **asdict(self),
            "background": list(self.background),
        }


register(
    Technique(
        name="regions",
        title="CaTDet's regions, from the last answer",
        axis="rows",
        word="keep",
        grain="position",
        rule="Positions that the last answer's regions of interest are made of are computed, from "
        "the answer back to the first layer; the others keep their result.",
        evidence="the classes of the last frame's answer",
        source="Mao et al., CaTDet, MLSys 2019, without its proposal network and tracker",
        policy=AnsweredRegions,
        units=("change_detector",),
        published=("CaTDet",),
        choices={"dilation": (0, 4, 8, 16)},
        start={"background": (0, 3), "dilation": 8},
    )
)
