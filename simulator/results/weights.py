"""What is known of a model's weights, in words: random ones have other similarity than trained."""

from collections.abc import Mapping
from typing import Any

# What `workloads.models.load` notes: of a network by name, and of a user's class.
_RANDOM, _OF_CLASS = "random weights", "as "
AS_CLASS_SETS = "no weights given: random unless its class loads some"
# Of a model that was captured in Python: nobody said where its weights come from.
AS_GIVEN = "weights as given"


def untrained(source: str | None) -> str | None:
    """What a headline must say of weights that are random, or may be; `None` of others.

    Args:
        source: as `workloads.models.weights_source` tells it.
    """
    if source is None:
        return None
    if source.startswith(_RANDOM):
        return source
    return AS_CLASS_SETS if source.startswith(_OF_CLASS) else None


def weights_clause(source: str | None) -> str:
    """The same for the middle of a sentence; empty where there is nothing to say."""
    told = untrained(source)
    if told is None:
        return ""
    return ", with " + (
        "weights that are random unless the class loads some" if told == AS_CLASS_SETS else told
    )


def weights_line(workload: Mapping[str, Any]) -> str | None:
    """The same for a line below the headline: it also tells where nothing is known."""
    if "weights" not in workload:  # shapes alone
        return None
    source = workload["weights"]
    return AS_GIVEN if source is None else untrained(source)


def model_name(workload: Mapping[str, Any]) -> str:
    """The model's class without its module."""
    return str(workload.get("model", "workload")).rpartition(".")[2]


def headline_name(workload: Mapping[str, Any]) -> str:
    """The model for a headline: its class, and that its weights are random, or may be."""
    told = untrained(workload.get("weights"))
    return model_name(workload) + (f" ({told})" if told else "")
