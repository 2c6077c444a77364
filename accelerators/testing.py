"""What every unit must keep, as a base class for the tests of a unit of your own.

In a file of tests::

    class TestSorter(UnitSuite):
        design = Sorting(..., sorter=Sorter(lanes=2))
        part = "sorter"
        larger = (Sorter(lanes=4),)

pytest finds the class and runs every test of it; nothing here needs pytest itself.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import Any, ClassVar

from accelerators.accelerator import Accelerator
from accelerators.cost_table import BUILT_IN_TABLES
from accelerators.rules import ConfigError
from accelerators.silicon import area_by_part, energy_per_action, leakage_by_part
from accelerators.units.unit import Unit


class UnitSuite:
    """A unit keeps its promises in a design that has it.

    Attributes:
        design: one with the unit, in which no other unit needs it.
        part: the field that has it.
        larger: units that are larger than that of ``design``; at least one, unless the unit has no
            area. One for each field that sizes it serves best.
    """

    design: ClassVar[Accelerator]
    part: ClassVar[str]
    larger: ClassVar[tuple[Unit, ...]]

    @property
    def unit(self) -> Unit:
        """The unit under test."""
        return self.design.units[self.part]

    @property
    def without(self) -> Accelerator | None:
        """The design without the unit; ``None`` where no design is."""
        try:
            return dataclasses.replace(self.design, **{self.part: None})  # type: ignore[arg-type]
        except ConfigError:
            return None

    def having(self, unit: Unit) -> Accelerator:
        """The design with another such unit."""
        return dataclasses.replace(self.design, **{self.part: unit})  # type: ignore[arg-type]

    def priced(self) -> list[Accelerator]:
        """The design in every built-in technology."""
        return [dataclasses.replace(self.design, technology=name) for name in BUILT_IN_TABLES]

    def test_it_is_a_part_with_words_and_a_colour_of_its_own(self) -> None:
        """Pages tell it from every other part."""
        parts = type(self.design).parts()
        mine = parts[self.part]
        assert type(self.unit) is mine.unit, f"{self.part} must hold a {mine.unit.__name__}"
        assert mine.words.strip(), "words must say what pages call the unit"
        assert re.fullmatch("#[0-9a-f]{6}", mine.colour), f"colour must be #rrggbb: {mine.colour}"
        for name, other in parts.items():
            if name != self.part:
                assert other.words != mine.words, f"{name} has the same words: {mine.words}"
                assert other.colour != mine.colour, f"{name} has the same colour: {mine.colour}"

    def test_area_and_leakage_are_finite_and_not_negative(self) -> None:
        """A unit on the chip takes area; one outside has no part in it."""
        for design in self.priced():
            for costs in (area_by_part(design), leakage_by_part(design)):
                assert (self.part in costs) == self.unit.on_chip
                assert 0 <= costs.get(self.part, 0.0) < math.inf
            assert (area_by_part(design).get(self.part, 0.0) > 0) == self.unit.on_chip

    def test_area_and_leakage_grow_with_its_size(self) -> None:
        """More of it is never smaller, and takes more area."""
        assert self.larger or not self.unit.on_chip, "larger must list a unit"
        for unit in self.larger:
            grown = self.having(unit)
            assert area_by_part(grown)[self.part] > area_by_part(self.design)[self.part], unit
            assert leakage_by_part(grown)[self.part] >= leakage_by_part(self.design)[self.part]

    def test_prices_are_positive_and_finite(self) -> None:
        """Every action costs something, in every technology."""
        for design in self.priced():
            prices = [
                pj for (part, _), pj in energy_per_action(design).items() if part == self.part
            ]
            assert prices, "prices must name at least one action"
            assert all(0 < price < math.inf for price in prices), prices

    def test_unused_it_costs_area_and_leakage_only(self) -> None:
        """The other parts cost the same without it, and as one that exploits it can be left out."""
        without = self.without
        if without is None:
            assert not type(self.design).parts()[self.part].exploits, "must be optional"
            return
        for costs in (area_by_part, leakage_by_part):
            with_it, plain = costs(self.design), costs(without)
            assert plain[self.part] == 0
            assert {**with_it, self.part: 0.0} == plain
        prices = energy_per_action(self.design)
        others = {key: pj for key, pj in prices.items() if key[0] != self.part}
        assert energy_per_action(without) == others

    def test_without_reuse_leaves_it_out_if_it_exploits(self) -> None:
        """A dense design has it if and only if it serves no redundancy."""
        exploits = type(self.design).parts()[self.part].exploits
        assert self.design.has_reuse or not exploits
        dense = self.design.without_reuse()
        assert (self.part in dense.units) != exploits
        assert not dense.has_reuse

    def test_it_is_varied_described_and_read(self) -> None:
        """A changed copy differs, and every copy comes back from its description."""
        for design in (self.design, *map(self.having, self.larger)):
            described = json.loads(json.dumps(design.to_dict()))
            for kind in (type(design), Accelerator):
                again = kind.from_dict(described)
                assert again == design
                assert type(again) is type(design)
            assert (design == self.design) == (design is self.design)

    def test_every_field_has_a_rule(self) -> None:
        """A value that no rule knows is refused, with its path and the fix."""
        for field in dataclasses.fields(self.unit):
            broken = dataclasses.replace(self.unit, **{field.name: object()})
            message = self._refusal(lambda broken=broken: self.having(broken))
            assert message.startswith(f"{type(self.design).__name__}.{self.part}.{field.name} must")
            assert "; " in message, f"the fix is missing: {message}"

    def test_an_unknown_field_is_refused(self) -> None:
        """A misspelled field does not go by unseen."""
        described = self.design.to_dict()
        described[self.part]["no_such_field"] = 1
        message = self._refusal(lambda: type(self.design).from_dict(described))
        assert f"{self.part}.no_such_field must be a known field" in message

    @staticmethod
    def _refusal(build: Any) -> str:
        """The first violation."""
        try:
            build()
        except ConfigError as error:
            return error.violations[0]
        raise AssertionError("a ConfigError must be raised, got none")
