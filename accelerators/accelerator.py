"""The description of one accelerator: its units, its clock and the technology that prices it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from accelerators.cost_table import BUILT_IN_TABLES, cost_table
from accelerators.description import (
    CLASS,
    as_dict,
    as_python,
    class_name,
    described_class,
    read_description,
)
from accelerators.rules import (
    ConfigError,
    FieldRule,
    Relation,
    choose,
    integer_of,
    part,
    quoted,
    real,
    refuse,
    show,
    text,
    violations,
)
from accelerators.units import (
    AddressList,
    CentroidCache,
    ChangeDetector,
    ChannelGate,
    DifferenceUnit,
    Dram,
    FeatureCache,
    FrameDifferencer,
    IndependentLanes,
    LeaderTable,
    LshFrontEnd,
    MotionEstimator,
    NeighbourMatcher,
    Part,
    RangeTable,
    Reconstructor,
    ResultAdder,
    ResultCache,
    SramBuffer,
    SumPredictor,
    SystolicArray,
    Unit,
    Warper,
    WeightTables,
)
from accelerators.units.unit import parts_of

MAX_NAME_CHARACTERS = 200


def _priced_technology() -> dict[str, FieldRule]:
    """The name of a built-in cost table, or the path of the user's own that keeps every rule."""

    def rule(value: object, path: str) -> list[str]:
        if type(value) is not str or not (value in BUILT_IN_TABLES or value.endswith(".csv")):
            return [
                f"{path} must be {quoted(BUILT_IN_TABLES)} or the path of a .csv file, "
                f"got {show(value, str)}; {choose(value, BUILT_IN_TABLES)}"
            ]
        try:
            cost_table(value)
        except ConfigError as error:
            return [f"{path} names a broken table: {problem}" for problem in error.violations]
        return []

    return {"rule": rule}


def _accumulator_holds_a_product(accelerator: Accelerator) -> list[str]:
    product_bits = 2 * accelerator.operand_bits
    if accelerator.accumulator_bits >= product_bits:
        return []
    return [
        f"accumulator_bits must hold one product of operand_bits={accelerator.operand_bits}, "
        f"got {accelerator.accumulator_bits}; use {product_bits}"
    ]


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """A systolic array with its memories, and the units that exploit redundancy, where it has any.

    The whole tree is checked when it is built, also by ``dataclasses.replace``. A design with units
    of your own is a frozen subclass with a field each, see :mod:`accelerators.units.unit`.

    Attributes:
        name: 1 to 200 characters.
        array: the multiply-accumulate units.
        activation_buffer: inputs, as stored (not unfolded).
        weight_buffer: weights.
        output_buffer: partial and finished results.
        dram: memory outside the chip.
        clock_hz: 1 to 1e12; everything on the chip runs at it.
        operand_bits: of weights and activations, 8 or 16.
        accumulator_bits: of partial sums, 16, 24, 32 or 48; at least one product.
        technology: a built-in cost table, or the path of the user's own ``.csv``.
        front_end: hashes sub-vectors.
        cache: finds and accumulates clusters; needs the front-end.
        centroid_buffer: centroids waiting for the array, and their results, which the
            reconstructor reads.
        reconstructor: gathers and adds results.
        address_list: rows computed, and those that fill skipped ones, for positions chosen
            beforehand.
        channel_gate: chooses the columns that are computed for an image.
        neighbour_matcher: finds vectors that are like one of their neighbours.
        leader_table: finds vectors that are like one of a few leaders before them.
        difference_unit: inputs less earlier ones, of which only those that differ are multiplied.
        result_adder: adds what comes of differences to earlier results.
        state_buffer: what layers remember of a frame for the next one, where it has room: inputs
            and results of each layer, in their order, for techniques that compare with them or add
            to them; the others' lie in the DRAM.
        change_detector: finds positions whose input changed since an earlier frame.
        frame_differencer: compares whole frames with earlier ones.
        feature_cache: sums up maps, and compares these sums with earlier images'.
        lanes: lets every unit of the array sum an output of its own, at its own pace.
        weight_tables: lets them sum activations by the value of their weight before they
            multiply.
        motion_estimator: finds the motion of a frame's pixels since the key frame.
        warper: moves the key frame's maps by it.
        result_cache: finds results by signatures that the array makes.
        range_table: finds results by the ranges that all elements of a sub-vector lie in.
        sum_predictor: tells from sums so far which will not be above 0.

    Raises:
        ConfigError: with every broken rule of the tree, one per line.
    """

    name: str = field(metadata=text(MAX_NAME_CHARACTERS, "reuse_16x16"))
    array: SystolicArray = field(metadata=part(SystolicArray))
    activation_buffer: SramBuffer = field(
        metadata=part(SramBuffer, words="activation buffer", colour="#86b0e0")
    )
    weight_buffer: SramBuffer = field(
        metadata=part(SramBuffer, words="weight buffer", colour="#93b45f")
    )
    output_buffer: SramBuffer = field(
        metadata=part(SramBuffer, words="output buffer", colour="#d8b546")
    )
    dram: Dram = field(metadata=part(Dram))
    clock_hz: float = field(metadata=real(1, 1e12))
    operand_bits: int = field(default=8, metadata=integer_of(8, 16))
    accumulator_bits: int = field(default=32, metadata=integer_of(16, 24, 32, 48))
    technology: str = field(default="hwcomponents_45nm", metadata=_priced_technology())
    front_end: LshFrontEnd | None = field(default=None, metadata=part(LshFrontEnd, optional=True))
    cache: CentroidCache | None = field(default=None, metadata=part(CentroidCache, optional=True))
    centroid_buffer: SramBuffer | None = field(
        default=None,
        metadata=part(
            SramBuffer, optional=True, words="centroid buffer", colour="#83cfbd", exploits=True
        ),
    )
    reconstructor: Reconstructor | None = field(
        default=None, metadata=part(Reconstructor, optional=True)
    )
    address_list: AddressList | None = field(
        default=None, metadata=part(AddressList, optional=True)
    )
    channel_gate: ChannelGate | None = field(
        default=None, metadata=part(ChannelGate, optional=True)
    )
    neighbour_matcher: NeighbourMatcher | None = field(
        default=None, metadata=part(NeighbourMatcher, optional=True)
    )
    leader_table: LeaderTable | None = field(
        default=None, metadata=part(LeaderTable, optional=True)
    )
    difference_unit: DifferenceUnit | None = field(
        default=None, metadata=part(DifferenceUnit, optional=True)
    )
    result_adder: ResultAdder | None = field(
        default=None, metadata=part(ResultAdder, optional=True)
    )
    state_buffer: SramBuffer | None = field(
        default=None,
        metadata=part(
            SramBuffer, optional=True, words="state buffer", colour="#6f7f9f", exploits=True
        ),
    )
    change_detector: ChangeDetector | None = field(
        default=None, metadata=part(ChangeDetector, optional=True)
    )
    frame_differencer: FrameDifferencer | None = field(
        default=None, metadata=part(FrameDifferencer, optional=True)
    )
    feature_cache: FeatureCache | None = field(
        default=None, metadata=part(FeatureCache, optional=True)
    )
    lanes: IndependentLanes | None = field(
        default=None, metadata=part(IndependentLanes, optional=True)
    )
    weight_tables: WeightTables | None = field(
        default=None, metadata=part(WeightTables, optional=True)
    )
    motion_estimator: MotionEstimator | None = field(
        default=None, metadata=part(MotionEstimator, optional=True)
    )
    warper: Warper | None = field(default=None, metadata=part(Warper, optional=True))
    result_cache: ResultCache | None = field(
        default=None, metadata=part(ResultCache, optional=True)
    )
    range_table: RangeTable | None = field(default=None, metadata=part(RangeTable, optional=True))
    sum_predictor: SumPredictor | None = field(
        default=None, metadata=part(SumPredictor, optional=True)
    )

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("operand_bits", "accumulator_bits"), _accumulator_holds_a_product),
    )

    def __post_init__(self) -> None:
        refuse(violations(self, type(self).__name__))

    @classmethod
    def parts(cls) -> dict[str, Part]:
        """Field -> part of every unit that such a design may have, those on the chip first."""
        return parts_of(cls)

    @property
    def units(self) -> dict[str, Unit]:
        """Field -> unit of those that the design has, in the order of :meth:`parts`."""
        return {
            name: unit for name in parts_of(type(self)) if (unit := getattr(self, name)) is not None
        }

    @property
    def has_reuse(self) -> bool:
        """Whether there is any unit that exploits redundancy."""
        parts = parts_of(type(self))
        return any(parts[name].exploits for name in self.units)

    def without_reuse(self, name: str | None = None) -> Self:
        """The dense design with the same array, buffers, DRAM and clock.

        Args:
            name: of the dense design; by default this name with ``_dense``. A design that is dense
                already keeps its name.

        Raises:
            ConfigError: the name breaks its rule.
        """
        if name is None:
            suffix = "_dense" if self.has_reuse else ""
            name = self.name[: MAX_NAME_CHARACTERS - len(suffix)] + suffix
        exploiting = [each for each, part in parts_of(type(self)).items() if part.exploits]
        return dataclasses.replace(self, name=name, **dict.fromkeys(exploiting))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON knows it: numbers, strings, ``None`` and nested dictionaries.

        A subclass names itself under ``"class"``.
        """
        named = {} if type(self) is Accelerator else {CLASS: class_name(type(self))}
        return as_dict(self) | named

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Self:
        """The accelerator that :meth:`to_dict` described; fields with a default may be left out.

        Raises:
            ConfigError: unknown or missing keys and every broken rule, together; or the design is
                of a subclass whose module was not imported. Nothing is imported here.
        """
        return read_description(described_class(cls, description), description)

    def to_python(self) -> str:
        """Source text that builds an equal accelerator and calls it ``accelerator``."""
        return as_python(self)


def described_parts(description: Mapping[str, Any]) -> dict[str, Part]:
    """Field -> part of every unit that a design has, as :meth:`Accelerator.to_dict` described it.

    Of a class that was not imported, the units that :class:`Accelerator` knows.
    """
    try:
        kind = described_class(Accelerator, description)
    except ConfigError:
        kind = Accelerator
    return {
        name: part for name, part in parts_of(kind).items() if description.get(name) is not None
    }
