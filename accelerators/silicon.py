"""Area, leakage and energy per action of an accelerator: the sums over its units.

Each unit gives a bill of components, priced by the accelerator's cost table. Wires, clock tree,
control, input and output pads and pipeline registers are not modelled. Nothing here enters timing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from accelerators.accelerator import Accelerator
from accelerators.cost_table import CostTable, cost_table


def _on_chip(kind: type[Accelerator]) -> tuple[str, ...]:
    return tuple(name for name, part in kind.parts().items() if part.unit.on_chip)


PARTS = _on_chip(Accelerator)
"""Every part that has area, in the order that data takes through the dense design, then what
exploits redundancy. A design of a class of your own has its own units beside them."""


def area_by_part(accelerator: Accelerator) -> dict[str, float]:
    """Area of every part in mm2; 0 for a part that the design lacks.

    Returns:
        The keys are :data:`PARTS` and the parts that the design's own class adds; their sum is the
        area of the accelerator. A new dictionary.
    """
    return dict(_areas(accelerator, cost_table(accelerator.technology)))


def leakage_by_part(accelerator: Accelerator) -> dict[str, float]:
    """Leakage of every part in mW, with the keys of :func:`area_by_part`.

    The built-in tables give no leakage for registers (0), and SRAM and logic cells of different
    kinds: see ``data/SOURCES.md``.
    """
    return dict(_leakages(accelerator, cost_table(accelerator.technology)))


def energy_per_action(accelerator: Accelerator) -> dict[tuple[str, str], float]:
    """Energy in pJ of ONE action of each part that the design has.

    The actions of a part are those of its unit, such as ``(array, mac)`` and
    ``(<buffer>, read_byte)``: see ``prices`` of each unit.

    Returns:
        ``{(part, action): pJ}``, a new dictionary. Parts that the design lacks have no key.
    """
    return dict(_energies(accelerator, cost_table(accelerator.technology)))


@lru_cache(maxsize=8192)
def _areas(accelerator: Accelerator, table: CostTable) -> dict[str, float]:
    return _totals(accelerator, table.area_mm2)


@lru_cache(maxsize=8192)
def _leakages(accelerator: Accelerator, table: CostTable) -> dict[str, float]:
    return _totals(accelerator, table.leakage_mw)


def _totals(accelerator: Accelerator, price: Callable[..., float]) -> dict[str, float]:
    """What the components of each part take together."""
    units = accelerator.units
    return {
        name: sum(
            (
                item.count * price(item.component, **item.size)
                for item in (units[name].bill(accelerator) if name in units else ())
            ),
            0.0,
        )
        for name in _on_chip(type(accelerator))
    }


@lru_cache(maxsize=8192)
def _energies(accelerator: Accelerator, table: CostTable) -> dict[tuple[str, str], float]:
    return {
        (name, action): price_pj
        for name, unit in accelerator.units.items()
        for action, price_pj in unit.prices(accelerator, table).items()
    }
