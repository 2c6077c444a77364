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
    from codesign.boards.comparison import Comparison, compare
    from codesign.evaluation.objective import Objective
    from codesign.evaluation.objectives import OBJECTIVES, QUALITIES
    from codesign.evaluation.workload import Workload, load_workload
    from codesign.optimisers.registry import OPTIMISERS
    from codesign.space.constraints import Constraints
    from codesign.space.design_space import DesignSpace
    from codesign.space.parameters import Parameter
    from codesign.study.nested import NestedResult, load_nested, nested_search
    from codesign.study.plan import StudyPlan
    from codesign.study.result import StudyResult
    from codesign.study.search import load_study, search
    from codesign.study.trial import Trial

# File -> the public names in it.
_HOMES = {
    "boards.comparison": ("Comparison", "compare"),
    "evaluation.objective": ("Objective",),
    "evaluation.objectives": ("OBJECTIVES", "QUALITIES"),
    "evaluation.workload": ("Workload", "load_workload"),
    "optimisers.registry": ("OPTIMISERS",),
    "space.constraints": ("Constraints",),
    "space.design_space": ("DesignSpace",),
    "space.parameters": ("Parameter",),
    "study.nested": ("NestedResult", "load_nested", "nested_search"),
    "study.plan": ("StudyPlan",),
    "study.result": ("StudyResult",),
    "study.search": ("load_study", "search"),
    "study.trial": ("Trial",),
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
    for file, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"codesign.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
