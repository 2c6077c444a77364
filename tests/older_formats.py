"""What earlier versions of this program wrote, made of what it writes now."""

import copy

NAMES = {"dram": "memory", "reconstructor": "reconstruction"}


def report_of_format_2(report: dict) -> dict:
    """A report as it was before its blocks were called by the names of their units."""
    old = copy.deepcopy(report) | {"format_version": 2}
    for new, name in NAMES.items():
        old["verdict"] = old["verdict"].replace(f"bound by {new}.", f"bound by {name}.")
    for design in old["designs"].values():
        for each in (design, *design["layers"]):
            for table in ("busy_cycles", "critical_cycles"):
                each[table] = {NAMES.get(key, key): amount for key, amount in each[table].items()}
            each["bound_by"] = NAMES.get(each["bound_by"], each["bound_by"])
    return old
