"""Finding out which tensor of a weights file is which of a model's, whatever wraps their names.

Programs wrap models, and the wrappers are in the names: `torch.compile` puts `_orig_mod.` before
them, data-parallel training `module.`, Lightning and many scripts the attribute that holds the
network, such as `model.`. Wrappers of PyTorch are taken out wherever they stand, on both sides.
Besides, one prefix is taken off all names of the file, or put before them, where that makes them
the model's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from workloads.errors import plain, show
from workloads.models.weights_file import Entry

# Modules that PyTorch puts around others.
WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
WHOLE_FILE = "the whole file"
# Counts the batches of a training; older checkpoints lack it, and inference does not read it.
COUNTER = ".num_batches_tracked"
# Counts the models in an average of `torch.optim.swa_utils`.
_AVERAGED = "n_averaged"
_DEEPEST_PREFIX = 4
_MOST_PREFIXES = 60
_AVERAGE = re.compile(r"(?<![a-z])(?:ema|swa|avg|averaged?)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Named:
    """A tensor of a weights file.

    Attributes:
        name: in the model.
        given: in the file.
        tensor: the values.
    """

    name: str
    given: str
    tensor: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Match:
    """An entry of a file by the names of a model.

    Attributes:
        entry: the entry.
        prefix: what was taken off its names, besides PyTorch's wrappers.
        named: the tensors by the names of the model, or their own where it has none such.
        missing: names of the model that the entry lacks.
        outside: names of the entry that do not begin with the prefix.
        unknown: names of the entry that the model lacks, those outside first.
        odd: what is wrong with tensors that are no plain ones, in words that name them.
        left: entries and prefixes that fit too and were left aside, being averages.
    """

    entry: Entry
    prefix: str
    named: Mapping[str, Named]
    missing: Sequence[str]
    outside: Sequence[str]
    unknown: Sequence[str]
    odd: Sequence[str]
    left: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the names are the model's."""
        return not self.missing and not self.unknown

    @property
    def place(self) -> str:
        """Where the tensors lie, in words."""
        parts = (
            f"entry {show(self.entry.key)}" if self.entry.key else "",
            f"names after {show(self.prefix)}" if self.prefix else "",
        )
        return ", ".join(part for part in parts if part) or WHOLE_FILE


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Names without PyTorch's wrappers; as they are where two would be the same."""
    short = {
        name: ".".join(part for part in name.split(".") if part not in WRAPPERS) or name
        for name in names
    }
    return short if len(set(short.values())) == len(short) else {name: name for name in short}


def is_average(place: str) -> bool:
    """Whether an entry or prefix is called an average of weights, as `state_dict_ema` is."""
    return _AVERAGE.search(place) is not None


def matches(model: nn.Module, expected: Iterable[str], entries: Sequence[Entry]) -> list[Match]:
    """The ways in which a file's names are the model's; of none, the closest one.

    Args:
        model: its method `named_as_here`, if any, translates names of other layouts.
        expected: the names of its tensors.
        entries: of the file.
    """
    wanted = list(expected)
    largest_first = sorted(entries, key=lambda entry: -len(entry.tensors))
    found = [match for entry in largest_first for match in _of_entry(model, wanted, entry)]
    if fitting := [match for match in found if match.fits]:
        return fitting
    return [max(found, key=lambda match: (-len(match.missing), -len(match.unknown)))]


def _of_entry(model: nn.Module, expected: Sequence[str], entry: Entry) -> list[Match]:
    """An entry as it is; if its names do not fit so, without each prefix that they share.

    Returns:
        Those that fit, or all that were tried.
    """
    tried: list[Match] = []
    for own in _distinct(unwrapped(expected)):
        for given in _distinct(unwrapped(entry.tensors)):
            direct = _match(model, own, given, entry, "", "")
            if direct.fits:
                return [direct]
            puts = [""] if hasattr(model, "named_as_here") else ["", *_shared(own.values())]
            found = {
                _key(match): match
                for prefix in _prefixes(given.values())
                for put in puts
                if prefix or put
                if (match := _match(model, own, given, entry, prefix, put))
            }
            if fitting := _fitting(list(found.values())):
                return fitting
            tried += [direct, *found.values()]
    return tried


def _key(match: Match) -> frozenset[tuple[str, str]]:
    return frozenset((each.given, each.name) for each in match.named.values())


def _fitting(found: Sequence[Match]) -> list[Match]:
    """Matches whose names are the model's, and outside of which lie only others such."""
    whole = [match for match in found if not match.missing and match.unknown == match.outside]
    taken = {each.given for match in whole for each in match.named.values()}
    return [
        replace(match, unknown=(), outside=()) for match in whole if taken.issuperset(match.outside)
    ]


def _distinct(short: dict[str, str]) -> list[dict[str, str]]:
    """Names as they are, and without wrappers where that changes any."""
    as_given = {name: name for name in short}
    return [as_given] if short == as_given else [short, as_given]


def _match(
    model: nn.Module,
    own: Mapping[str, str],
    given: Mapping[str, str],
    entry: Entry,
    prefix: str,
    put: str,
) -> Match:
    """The entry's names without `prefix` as those of the model that begin with `put`."""
    name_of = {short: name for name, short in own.items()}
    stripped = {
        name: put + short[len(prefix) :]
        for name, short in given.items()
        if short.startswith(prefix) and name != _AVERAGED
    }
    odd = {name: why for name in stripped if (why := _oddity(entry.tensors[name]))}
    dense = {name: short for name, short in stripped.items() if name not in odd}
    named = [
        Named(name=name_of.get(each.name, each.name), given=each.given, tensor=each.tensor)
        for each in _translated(model, dense, entry)
    ]
    by_name = {each.name: each for each in named}
    seen = {name_of.get(stripped[name], stripped[name]) for name in odd} | by_name.keys()
    unnamed = [f"the name {name} must be a text" for name in entry.unnamed]
    outside = [name for name in given if name not in stripped and name != _AVERAGED]
    return Match(
        entry=entry,
        prefix=prefix,
        named=by_name,
        missing=[name for name in own if name not in seen and not name.endswith(COUNTER)],
        outside=outside,
        unknown=[
            *outside,
            *(each.given for each in named if each.name not in own),
            *(name for name in odd if name_of.get(stripped[name], stripped[name]) not in own),
        ],
        odd=[*(f"{plain(name, 100)} is {why}" for name, why in odd.items()), *unnamed],
    )


def _translated(model: nn.Module, names: Mapping[str, str], entry: Entry) -> Iterator[Named]:
    """Tensors by the model's names, where it knows other layouts than its own."""
    if hasattr(model, "named_as_here"):
        given = {short: name for name, short in names.items()}
        try:
            found = list(
                model.named_as_here({short: entry.tensors[given[short]] for short in given})  # type: ignore[operator]
            )
        except (RuntimeError, IndexError, ValueError):  # a tensor that can't be taken apart
            pass
        else:
            for each in found:
                yield Named(name=each.name, given=given[each.given], tensor=each.tensor)
            return
    for name, short in names.items():
        yield Named(name=short, given=name, tensor=entry.tensors[name])


def _oddity(tensor: torch.Tensor) -> str | None:
    """What keeps a tensor from being a plain array of numbers, in words; None for nothing."""
    if tensor.is_nested:
        return "nested"
    if tensor.is_quantized:
        return f"quantised ({tensor.dtype})"
    if tensor.layout != torch.strided:
        return f"not dense ({tensor.layout})"
    if tensor.is_meta:
        return "meta: a shape without values"
    if type(tensor) not in (torch.Tensor, nn.Parameter):
        return f"a {type(tensor).__name__}, not a plain tensor"
    return None


def _shared(names: Iterable[str]) -> list[str]:
    """The prefixes that all of the names begin with, shortest first."""
    every = list(names)
    return [prefix for prefix, count in _counted(every).items() if count == len(every)]


def _prefixes(names: Iterable[str]) -> list[str]:
    """The prefixes that most names begin with, and none."""
    return ["", *(prefix for prefix, _ in _counted(names).most_common(_MOST_PREFIXES))]


def _counted(names: Iterable[str]) -> Counter[str]:
    """How many names begin with each prefix of whole parts."""
    counted: Counter[str] = Counter()
    for name in names:
        parts = name.split(".", _DEEPEST_PREFIX)[:-1]
        for length in range(1, min(len(parts), _DEEPEST_PREFIX) + 1):
            counted[".".join(parts[:length]) + "."] += 1
    return counted
