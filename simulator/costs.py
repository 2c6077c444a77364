"""Energy of what was done: action counts times the cost of one action, and leakage over time."""

from collections.abc import Mapping

from accelerators import Accelerator, energy_per_action, leakage_by_part

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
    """
    prices = energy_per_action(accelerator)
    energy: dict[str, float] = {}
    for (part, action), count in actions.items():
        energy[part] = energy.get(part, 0.0) + count * prices[part, action]
    leakage_mw = sum(leakage_by_part(accelerator).values())
    energy[LEAKAGE] = leakage_mw * 1e-3 * cycles / accelerator.clock_hz * 1e12
    return energy
