"""Finding what a command line names: an accelerator, each layer's reuse, the captured model."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from accelerators import Accelerator, ConfigError, preset, presets
from simulator import ClusterCache, LshReuse, NoReuse, PerLayer, ReusePolicy
from simulator.running.captured import check_model
from workloads.errors import show
from workloads.traces.scores import SCORES, NamedScore
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    import torch


def find_accelerator(name: str) -> Accelerator:
    """A preset, or `path/to/file.py:NAME` or `package.module:NAME`, a design or a function of none.

    A file or module that is named is imported, that is, executed.

    Raises:
        ConfigError: there is none, or it is no accelerator.
    """
    location, separator, attribute = name.rpartition(":")
    if not separator:
        if name.endswith(".py"):
            raise ConfigError(
                f"accelerator must name what is in the file, got {name!r}; use {name}:NAME"
            )
        return preset(name)
    module = _module(location)
    found = getattr(module, attribute, None)
    if found is None:
        known = [key for key, value in vars(module).items() if isinstance(value, Accelerator)]
        raise ConfigError(
            f"accelerator {name!r} must exist, got no {attribute!r} in {location}; "
            f"it has {', '.join(known) or 'no accelerators'}"
        )
    if callable(found):
        found = found()
    if not isinstance(found, Accelerator):
        raise ConfigError(
            f"accelerator {name!r} must be an Accelerator, got {type(found).__name__}; use one of "
            f"the presets {', '.join(presets())}, or build one with accelerators.Accelerator"
        )
    return found


def find_score(name: str) -> str | NamedScore:
    """A key of `workloads.traces.scores.SCORES`, or `file.py:NAME` or `package.module:NAME`.

    A file or module that is named is imported, that is, executed.

    Raises:
        ConfigError: there is no such score, or it is no function.
    """
    if name in SCORES:
        return name
    location, separator, attribute = name.rpartition(":")
    if not separator or not location:
        raise ConfigError(
            f"score must be one of {', '.join(SCORES)}, file.py:FUNCTION or "
            f"package.module:FUNCTION, got {name!r}"
        )
    found = getattr(_module(location, "score"), attribute, None)
    if not callable(found):
        given = "none of that name" if found is None else type(found).__name__
        raise ConfigError(
            f"score {name!r} must be a function of the judged output and the labels, got {given}; "
            "check the name"
        )
    return NamedScore(name=name, function=found)


def _module(location: str, wanted: str = "accelerator") -> Any:
    """A Python file, or an importable module."""
    try:
        if not location.endswith(".py"):
            return importlib.import_module(location)
        path = Path(location).expanduser()
        if not path.is_file():
            raise ConfigError(f"{wanted} file must exist, got {location!r}; check the path")
        return _run(path, f"_{wanted}_file_{path.stem}" if path.stem in sys.modules else path.stem)
    except ConfigError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise ConfigError(
            f"{location!r} must be importable to find the {wanted} in it, got "
            f"{type(error).__name__}: {error}; check the name and the code"
        ) from error


def _run(path: Path, name: str) -> ModuleType:
    """The module of a file. It is known by its name while it runs, as dataclasses need it, and not
    afterwards, so that its classes travel to workers whole."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        sys.modules.pop(name, None)
    return module


def policy_from_options(
    *,
    hashes: int | None,
    length: int | None,
    layers: Sequence[str],
    scope: str,
    thresholds: str,
    learning: str,
    order: str,
    representative: str,
    accelerator: Accelerator,
) -> ReusePolicy:
    """The reuse policy that command line options describe.

    Args:
        hashes: of all layers that `layers` does not name; together with `length`.
        length: likewise.
        layers: `NAME=H,L` or `NAME=dense` each; NAME may hold `*` as in shell patterns.
        scope: `image`, `batch` or `stream`, whose clusters the design's own cache keeps.
        thresholds: of the hashes, as in `LshReuse`.
        learning: where hyperplanes come from, as in `LshReuse`.
        order: of a convolution's rows, likewise.
        representative: of a cluster, likewise.
        accelerator: projections are those of its front-end.

    Raises:
        ConfigError: an option is malformed, or the options do not go together.
    """
    if (hashes is None) != (length is None):
        raise ConfigError("--hashes and --length must be given together, got one; add the other")
    named = [_layer_option(layer) for layer in layers]
    if hashes is None and all(numbers is None for _, numbers in named):
        refuse_idle(
            {
                "--scope": scope != "image",
                "--thresholds": thresholds != "spread",
                "--learning": learning != "none",
                "--order": order != "channels_first",
                "--representative": representative != "centroid",
            },
            "with reuse, as --hashes and --length or --layer NAME=H,L ask for it",
        )
    if hashes is None and not layers:
        if accelerator.front_end is not None:
            raise ConfigError(
                f"accelerator {accelerator.name!r} has reuse units and must be told how to use "
                "them, got neither --hashes and --length nor --layer; try --hashes 10 --length 10, "
                "or an accelerator without reuse units"
            )
        return NoReuse()
    front_end = accelerator.front_end
    common: dict[str, Any] = {
        "scope": scope,
        "thresholds": thresholds,
        "learning": learning,
        "order": order,
        "representative": representative,
        "projection": "sign" if front_end is None else front_end.projection,
        "cache": (
            ClusterCache.of(accelerator.cache)
            if scope == "stream" and accelerator.cache is not None
            else None
        ),
    }
    policies: dict[str, ReusePolicy] = {}
    for name, numbers in named:
        if name in policies:
            raise ConfigError(
                f"--layer must name a layer once, got {show(name)} again; leave one out"
            )
        if numbers is None:
            policies[name] = NoReuse()
        else:
            policies[name] = LshReuse(hashes=numbers[0], length=numbers[1], **common)
    default: ReusePolicy = NoReuse()
    if hashes is not None and length is not None:
        default = LshReuse(hashes=hashes, length=length, **common)
    return PerLayer(policies, default) if policies else default


def refuse_idle(given: Mapping[str, bool], rule: str) -> None:
    """Refuse options that would have no effect.

    Args:
        given: option -> whether it was given.
        rule: with what they must come.

    Raises:
        ConfigError: with each of them.
    """
    idle = [option for option, is_given in given.items() if is_given]
    if idle:
        raise ConfigError(
            f"{', '.join(idle)} must come {rule}, got {'them' if len(idle) > 1 else 'it'} without, "
            f"which would change nothing; leave out {', '.join(idle)}"
        )


def _layer_option(text: str) -> tuple[str, tuple[int, int] | None]:
    """`conv1=15,5` as name, hashes and length; `conv1=dense` as name and `None`."""
    name, separator, setting = text.partition("=")
    if separator and name and setting == "dense":
        return name, None
    numbers = setting.split(",")
    if not separator or not name or len(numbers) != 2 or not all(n.isdecimal() for n in numbers):
        raise ConfigError(
            f"--layer must be NAME=HASHES,LENGTH or NAME=dense, got {text!r}; "
            "write for example --layer conv1=15,5"
        )
    return name, (int(numbers[0]), int(numbers[1]))


def captured_model(name: str, weights: Path | None, trace: WorkloadTrace) -> torch.nn.Module:
    """The model that a trace was captured of, checked on the trace's own inputs.

    Args:
        name: as in `load_workload`; CifarNet without weights is the one trained on the digits. It
            is quantised as the trace is.
        weights: a file that `workloads.models.load` reads, or None.
        trace: the trace.

    Raises:
        ConfigError: the model answers otherwise than it did when it was captured.
        ModelError, TraceError: it cannot be loaded or run.
    """
    from workloads import TraceError, models, quantise_as, trained_cifarnet
    from workloads.models.integer_grid import is_quantised

    seed = trace.provenance.get("seed")
    seed = seed if isinstance(seed, int) else 0
    model: torch.nn.Module
    if name == "cifarnet" and weights is None:
        model, _ = trained_cifarnet("digits", seed=seed)
    else:
        model = models.load(name, weights, seed=seed)
    if any(layer.quantisation for layer in trace.layers) and not is_quantised(model):
        model = quantise_as(model, trace)
    try:
        check_model(trace, model)
    except models.ModelError:
        raise
    except (ConfigError, TraceError) as error:
        raise ConfigError(
            f"--model must be the model that was captured, with its weights, but {name!r} is not: "
            f"{error}. Give the same --model and --weights as to capture"
        ) from error
    return model
