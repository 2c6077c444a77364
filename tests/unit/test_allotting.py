"""How much each group shares at the start of a search."""

import math

import numpy as np

from accelerators import preset
from codesign.evaluation.allotting import Borne, allotted, with_allotted_starts
from codesign.space.technique_space import TechniqueSpace
from tests.small_search import small_workload


def borne(parameter, work, errors):
    return Borne(
        parameter=parameter, choices=(1, 2, 3), work=np.array(work), errors=np.array(errors)
    )


def test_a_group_that_bears_more_shares_more():
    """Of the pairs that keep to 0.02, one price takes (1, 3): 0.001 + 0.012."""
    first = borne("first", [0.5, 0.4, 0.3], [0.001, 0.03, 0.2])
    later = borne("later", [0.5, 0.3, 0.1], [0.0, 0.004, 0.012])
    assert allotted([first, later], 0.02) == {"first": 1, "later": 3}
    assert allotted([first, later], 0.05) == {"first": 2, "later": 3}
    assert allotted([first, later], 1) == {"first": 3, "later": 3}


def test_no_choice_keeps_to_a_bound_below_all():
    only = borne("only", [0.5, 0.4, 0.3], [0.1, 0.2, math.inf])
    assert allotted([only], 0.01) is None
    assert allotted([only], 0.15) == {"only": 1}


def test_starts_are_those_of_the_space_and_what_groups_bear():
    workload = small_workload()
    space = TechniqueSpace.for_techniques(
        workload.trace, preset("every_64x64"), ("dense", "leaders"), grouping="all"
    )
    told = []
    wider = with_allotted_starts(space, workload, lambda done, runs: told.append((done, runs)))
    assert list(wider.start)[: len(space.start)] == list(space.start)
    further = {name: wider.start[name] for name in wider.start if name not in space.start}
    assert further and all(name.startswith("error_") for name in further)
    assert told[-1] == (len(told), len(told))
    bold = [start["all.leaders.tolerance"] for start in further.values()]
    assert bold == sorted(bold)
    design, policy = wider.build(next(iter(further.values())))
    assert design.leader_table is not None and policy.policies
    blind = small_workload()
    blind = type(blind)(trace=blind.trace, name="recorded alone")
    assert with_allotted_starts(space, blind) is space
