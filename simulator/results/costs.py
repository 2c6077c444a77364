"""Energy of what was done: action counts times the cost of one action, and leakage over time."""

from collections.abc import Mapping

from accelerators import (
    Accelerator,
    ConfigError,
    cost_table,
    dram_energy_pj_per_byte,
    energy_per_action,
    leakage_by_part,
)
from accelerators.rules import refuse

# Energy of every part that leaks, whatever it does; kept apart so that it can be seen.
LEAKAGE = "leakage"


def energy_by_part(
    accelerator: Accelerator, actions: Mapping[tuple[str, str], int], cycles: int
) -> dict[str, float]:
    """Energy in pJ of each part's actions, and of all parts' leakage over `cycles`.

    Args:
        accelerator: prices the actions.
        actions: (part, action) -> how often.
        cycles: time for which every part leaks.

    Raises:
        ConfigError: a stage counts an action that the unit does not price.
    """
    prices = energy_per_action(accelerator)
    refuse(
        [
            f"actions of {part} must be among those that it prices, got {action!r}; give it in "
            "the unit's prices()"
            for part, action in actions
            if (part, action) not in prices
        ]
    )
    energy: dict[str, float] = {}
    for (part, action), count in actions.items():
        energy[part] = energy.get(part, 0.0) + count * prices[part, action]
    leakage_mw = sum(leakage_by_part(accelerator).values())
    energy[LEAKAGE] = leakage_mw * 1e-3 * cycles / accelerator.clock_hz * 1e12
    return energy


def cost_sources(accelerator: Accelerator) -> dict[str, str]:
    """What prices a design, by name: columns of every CSV, and keys of a timeline."""
    return {"cost_table": accelerator.technology, "dram_kind": accelerator.dram.kind}


def costs_line(*accelerators: Accelerator) -> str:
    """What prices the designs, in a line; what several share is said once."""
    tables = dict.fromkeys(f"{each.technology} ({_node(each)})" for each in accelerators)
    kinds = dict.fromkeys(dram_with_energy(each.dram.kind) for each in accelerators)
    return f"Costs: {', '.join(tables)}; DRAM {', '.join(kinds)}."


def dram_with_energy(kind: str) -> str:
    """A kind of DRAM with what it takes to move a byte."""
    return f"{kind} ({dram_energy_pj_per_byte(kind):g} pJ per byte)"


def table_with_source(accelerator: Accelerator) -> str:
    """The cost table with its technology node and citation."""
    try:
        source = cost_table(accelerator.technology).source
    except ConfigError:
        return f"{accelerator.technology} ({_node(accelerator)})"
    return f"{accelerator.technology}, {_node(accelerator)}: {source}"


def _node(accelerator: Accelerator) -> str:
    """The technology node of a table; a user's own may no longer be where it was."""
    try:
        return f"{cost_table(accelerator.technology).node_nm:g} nm"
    except ConfigError:
        return "no longer readable"
