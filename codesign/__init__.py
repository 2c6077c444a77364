"""Searches designs and reuse together: ask, evaluate on Ray, tell, until the Pareto front stands.

from accelerators import preset
from codesign import DesignSpace, load_workload, search

workload = load_workload(model="cifarnet", inputs="digits", images=100)
space = DesignSpace.for_workload(workload.trace, preset("reuse_16x16"))
result = search(workload, space, trials=40, workers=2, storage="out")
print(result.best())

The command line is quick because what needs PyTorch or Optuna is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codesign.comparison import Comparison, compare
    from codesign.constraints import Constraints
    from codesign.nested import NestedResult, load_nested, nested_search
    from codesign.optimisers import OPTIMISERS
    from codesign.parameters import Parameter
    from codesign.plan import StudyPlan
    from codesign.space import DesignSpace
    from codesign.study import load_study, search
    from codesign.trials import OBJECTIVES, QUALITIES, Objective, StudyResult, Trial
    from codesign.workload import Workload, load_workload

_ROOMS = {
    "OBJECTIVES": "codesign.trials",
    "OPTIMISERS": "codesign.optimisers",
    "QUALITIES": "codesign.trials",
    "Comparison": "codesign.comparison",
    "Constraints": "codesign.constraints",
    "DesignSpace": "codesign.space",
    "NestedResult": "codesign.nested",
    "Objective": "codesign.trials",
    "Parameter": "codesign.parameters",
    "StudyPlan": "codesign.plan",
    "StudyResult": "codesign.trials",
    "Trial": "codesign.trials",
    "Workload": "codesign.workload",
    "compare": "codesign.comparison",
    "load_nested": "codesign.nested",
    "load_study": "codesign.study",
    "load_workload": "codesign.workload",
    "nested_search": "codesign.nested",
    "search": "codesign.study",
}

__all__ = [
    "OBJECTIVES",
    "OPTIMISERS",
    "QUALITIES",
    "Comparison",
    "Constraints",
    "DesignSpace",
    "NestedResult",
    "Objective",
    "Parameter",
    "StudyPlan",
    "StudyResult",
    "Trial",
    "Workload",
    "compare",
    "load_nested",
    "load_study",
    "load_workload",
    "nested_search",
    "search",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
