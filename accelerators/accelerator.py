"""The description of one accelerator: its parts, its clock and the technology that prices it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from accelerators.cost_table import BUILT_IN_TABLES, cost_table
from accelerators.description import as_dict, as_python, read_description
from accelerators.parts import (
    CentroidCache,
    Dram,
    LshFrontEnd,
    Reconstructor,
    SramBuffer,
    SystolicArray,
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
    show,
    text,
    violations,
)

REUSE_UNITS = ("front_end", "cache", "centroid_buffer", "reconstructor")
"""The fields that make a design one with reuse: all four or none."""

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


def _all_reuse_units_or_none(accelerator: Accelerator) -> list[str]:
    given = [name for name in REUSE_UNITS if getattr(accelerator, name) is not None]
    if not given:
        return []
    return [
        f"{name} must be given with {', '.join(given)}, got None; give all four reuse units or none"
        for name in REUSE_UNITS
        if name not in given
    ]


def _accumulator_holds_a_product(accelerator: Accelerator) -> list[str]:
    product_bits = 2 * accelerator.operand_bits
    if accelerator.accumulator_bits >= product_bits:
        return []
    return [
        f"accumulator_bits must hold one product of operand_bits={accelerator.operand_bits}, "
        f"got {accelerator.accumulator_bits}; use {product_bits}"
    ]


class ReuseUnits(NamedTuple):
    """The four parts that make a design one with reuse."""

    front_end: LshFrontEnd
    cache: CentroidCache
    centroid_buffer: SramBuffer
    reconstructor: Reconstructor


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """A systolic array with its memories, with or without similarity reuse.

    The whole tree is checked when it is built, also by ``dataclasses.replace``.

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
        cache: finds and accumulates clusters.
        centroid_buffer: centroids waiting for the array, and their results, which the
            reconstructor reads.
        reconstructor: gathers and adds results. These four reuse units: all or none.

    Raises:
        ConfigError: with every broken rule of the tree, one per line.
    """

    name: str = field(metadata=text(MAX_NAME_CHARACTERS, "reuse_16x16"))
    array: SystolicArray = field(metadata=part(SystolicArray))
    activation_buffer: SramBuffer = field(metadata=part(SramBuffer))
    weight_buffer: SramBuffer = field(metadata=part(SramBuffer))
    output_buffer: SramBuffer = field(metadata=part(SramBuffer))
    dram: Dram = field(metadata=part(Dram))
    clock_hz: float = field(metadata=real(1, 1e12))
    operand_bits: int = field(default=8, metadata=integer_of(8, 16))
    accumulator_bits: int = field(default=32, metadata=integer_of(16, 24, 32, 48))
    technology: str = field(default="hwcomponents_45nm", metadata=_priced_technology())
    front_end: LshFrontEnd | None = field(default=None, metadata=part(LshFrontEnd, optional=True))
    cache: CentroidCache | None = field(default=None, metadata=part(CentroidCache, optional=True))
    centroid_buffer: SramBuffer | None = field(
        default=None, metadata=part(SramBuffer, optional=True)
    )
    reconstructor: Reconstructor | None = field(
        default=None, metadata=part(Reconstructor, optional=True)
    )

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation((), _all_reuse_units_or_none),
        Relation(("operand_bits", "accumulator_bits"), _accumulator_holds_a_product),
    )

    def __post_init__(self) -> None:
        broken = violations(self, "Accelerator")
        if broken:
            raise ConfigError(broken)

    @property
    def has_reuse(self) -> bool:
        """Whether the four reuse units are there."""
        return self.front_end is not None

    @property
    def reuse_units(self) -> ReuseUnits:
        """The four reuse units.

        Raises:
            ConfigError: the design has none.
        """
        units = (self.front_end, self.cache, self.centroid_buffer, self.reconstructor)
        if any(unit is None for unit in units):
            raise ConfigError(
                f"Accelerator {self.name!r} must have reuse units to share results, got none; add "
                "front_end, cache, centroid_buffer and reconstructor, or use NoReuse()"
            )
        return ReuseUnits(*units)  # type: ignore[arg-type]

    def without_reuse(self, name: str | None = None) -> Accelerator:
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
        return dataclasses.replace(self, name=name, **dict.fromkeys(REUSE_UNITS))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON knows it: numbers, strings, ``None`` and nested dictionaries."""
        return as_dict(self)

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Accelerator:
        """The accelerator that :meth:`to_dict` described; fields with a default may be left out.

        Raises:
            ConfigError: unknown or missing keys and every broken rule, together.
        """
        return read_description(cls, description)

    def to_python(self) -> str:
        """Source text that builds an equal accelerator and calls it ``accelerator``."""
        return as_python(self)
