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

_ROOMS = {
    "OBJECTIVES": "codesign.evaluation.objectives",
    "OPTIMISERS": "codesign.optimisers.registry",
    "QUALITIES": "codesign.evaluation.objectives",
    "Comparison": "codesign.boards.comparison",
    "Constraints": "codesign.space.constraints",
    "DesignSpace": "codesign.space.design_space",
    "NestedResult": "codesign.study.nested",
    "Objective": "codesign.evaluation.objective",
    "Parameter": "codesign.space.parameters",
    "StudyPlan": "codesign.study.plan",
    "StudyResult": "codesign.study.result",
    "Trial": "codesign.study.trial",
    "Workload": "codesign.evaluation.workload",
    "compare": "codesign.boards.comparison",
    "load_nested": "codesign.study.nested",
    "load_study": "codesign.study.search",
    "load_workload": "codesign.evaluation.workload",
    "nested_search": "codesign.study.nested",
    "search": "codesign.study.search",
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
