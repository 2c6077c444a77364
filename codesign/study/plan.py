"""A study as an object and as a TOML file: all that is needed to run it, and to run it again."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerators import ConfigError, presets
from accelerators.rules import nearest
from codesign.evaluation.objectives import OBJECTIVES, find_objectives, name_problems
from codesign.evaluation.workload import PRECISIONS, Workload
from codesign.optimisers.registry import optimiser_problems
from codesign.space.checks import LARGEST_SEED, among, of_kind, whole
from codesign.space.constraints import CONSTRAINT_NAMES, Constraints, constraint_problems
from codesign.space.lookup import find_accelerator, find_policy
from codesign.study.store import check_regular, plan_text
from workloads.errors import show, told
from workloads.writing import write_atomically

if TYPE_CHECKING:
    from codesign.space.design_space import DesignSpace
    from codesign.study.result import StudyResult

FORMAT_VERSION = 1
_OBJECTIVE_NAMES = tuple(objective.name for objective in OBJECTIVES)
# Section of the file -> fields in it; constraints have their own section.
_SECTIONS = {
    "workload": (
        "model",
        "inputs",
        "images",
        "every",
        "weights",
        "calibration_images",
        "calibrate_under_reuse",
        "precision",
        "output",
        "classes_dimension",
        "score",
        "held_out",
        "held_out_inputs",
    ),
    "space": (
        "accelerator",
        "policy",
        "techniques",
        "grouping",
        "groups",
        "layers",
        "fronts",
        "parameters",
    ),
    "search": ("objectives", "optimiser", "trials", "workers", "batch", "seed", "first_images"),
}
_TEXT = of_kind(str, "text in quotes")


def _accelerator(value: Any, path: str) -> list[str]:
    known = presets()
    if not isinstance(value, str) or (":" not in value and value not in known):
        return [
            f"{path} must be a preset, file.py:NAME or package.module:NAME, got {show(value)}; the "
            f"presets are {', '.join(known)}"
        ]
    return []


def _optimiser(value: Any, path: str) -> list[str]:
    found = optimiser_problems(value if isinstance(value, str) else show(value))
    return [text.replace("search optimiser", path) for text in found]


def _techniques(value: Any, path: str) -> list[str]:
    from codesign.space.techniques import found_techniques

    try:
        found_techniques(value)
    except ConfigError as error:
        return [text.replace("techniques", path, 1) for text in error.violations]
    return []


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """What is searched, on what, and how.

    Attributes:
        model: as in `load_workload`, as are the next seven; paths are relative to where it is run.
        inputs: what the model sees.
        images: how many to judge on.
        every: the distance from one frame or picture to the next, of all that are taken.
        weights: path of a file, or `None`.
        calibration_images: how many more to calibrate on.
        calibrate_under_reuse: whether hashing learns under the reuse of each setting.
        precision: "float32" or "int8".
        output: which of several outputs is judged, as in `load_workload`, as are the next two.
        classes_dimension: where its classes lie, as text.
        score: how it is judged.
        held_out: how many inputs that the search does not see judge the front at its end.
        held_out_inputs: where these are taken from; `None` for those that follow the judged ones.
        accelerator: the base design: a preset, "file.py:NAME" or "package.module:NAME" (executed).
        policy: a policy of your own that decides in every layer, see `DesignSpace.for_policy`:
            "file.py:NAME" or "package.module:NAME" (executed); `None` hashes in `layers`.
        techniques: among which each group of layers chooses, see `TechniqueSpace`; `None` searches
            hashing alone, each of `layers` with settings of its own.
        grouping: of layers, see `codesign.space.grouping.groups_of`; with `techniques` only, as is
            the next; `None` for `stage`.
        groups: how many groups choose, at most; `None` for 8.
        layers: how many layers' reuse is searched.
        fronts: a nested search of this workload, see `load_nested`: positions on its fronts are
            searched in place of `layers`; `None` searches hashes and lengths.
        parameters: parameter -> its choices, in place of the space's own, or field of the design or
            the policy -> choices; see `DesignSpace.narrowed`.
        objectives: names of what to make large or small: keys of `OBJECTIVES` with `accuracy`
            among them, and "file.py:NAME" or "package.module:NAME" of an own `Objective`.
        optimiser: a key of `codesign.optimisers.registry.OPTIMISERS`, or one of your own,
            "file.py:NAME" or "package.module:NAME" (executed).
        trials: the budget, in all.
        workers: evaluations at a time; does not change the numbers.
        batch: trials asked for together.
        seed: of the search, and of the workload as in `load_workload`.
        first_images: how many to judge a trial on first, see `search`; `None` judges on all.
        constraints: limits that designs must keep.
    """

    model: str = field(default="cifarnet", metadata=_TEXT)
    inputs: str = field(default="digits", metadata=_TEXT)
    images: int = field(default=100, metadata=whole())
    every: int = field(default=1, metadata=whole())
    weights: str | None = field(default=None, metadata=_TEXT)
    calibration_images: int = field(default=50, metadata=whole(0))
    calibrate_under_reuse: bool = field(default=False, metadata=of_kind(bool, "true or false"))
    precision: str = field(default="float32", metadata=among(PRECISIONS))
    output: str | None = field(default=None, metadata=_TEXT)
    classes_dimension: str | None = field(default=None, metadata=_TEXT)
    score: str | None = field(default=None, metadata=_TEXT)
    held_out: int | None = field(default=None, metadata=whole())
    held_out_inputs: str | None = field(default=None, metadata=_TEXT)
    accelerator: str = field(default="reuse_16x16", metadata={"rule": _accelerator})
    policy: str | None = field(default=None, metadata=_TEXT)
    techniques: tuple[str, ...] | None = field(default=None, metadata={"rule": _techniques})
    grouping: str | None = field(default=None, metadata=_TEXT)
    groups: int | None = field(default=None, metadata=whole())
    layers: int = field(default=4, metadata=whole())
    fronts: str | None = field(default=None, metadata=_TEXT)
    parameters: Mapping[str, tuple[Any, ...]] = field(
        default_factory=dict, metadata=of_kind(Mapping, "a table of choices, [space.parameters]")
    )
    objectives: tuple[str, ...] = field(default=_OBJECTIVE_NAMES, metadata={"rule": name_problems})
    optimiser: str = field(default="gp", metadata={"rule": _optimiser})
    trials: int = field(default=40, metadata=whole())
    workers: int = field(default=2, metadata=whole())
    batch: int = field(default=4, metadata=whole())
    seed: int = field(default=0, metadata=whole(0, LARGEST_SEED))
    first_images: int | None = field(default=None, metadata=whole())
    constraints: Constraints = field(default_factory=Constraints)

    def __post_init__(self) -> None:
        given = {key: value for key, value in vars(self).items() if key != "constraints"}
        problems = _problems(given)
        if not isinstance(self.constraints, Constraints):
            problems.append(
                f"constraints must be Constraints, got {show(self.constraints)}; use "
                "Constraints(area_mm2=2.0)"
            )
        if problems:
            raise ConfigError(problems)

    @classmethod
    def load(cls, path: str | Path) -> StudyPlan:
        """Read a study file.

        Raises:
            ConfigError: it is no TOML, or breaks rules: all of them, each named with its place.
            OSError: it cannot be read.
        """
        path = Path(path)
        check_regular(path)
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:  # numbers of too many digits, deep nesting
            raise ConfigError(f"{path} must be TOML, got {told(error)}; mend that place") from error
        return cls.from_dict(content, place=f"{path}: ")

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], *, place: str = "") -> StudyPlan:
        """The plan that `to_dict` describes, or a file.

        Args:
            content: section -> key -> value.
            place: begins each message.

        Raises:
            ConfigError: it breaks rules.
        """
        if not isinstance(content, Mapping):
            raise ConfigError(
                f"{place}a study must be a mapping of its sections, got {show(content)}; use the "
                "result of to_dict()"
            )
        version = content.get("format_version")
        if type(version) is not int or version != FORMAT_VERSION:
            raise ConfigError(
                f"{place}format_version must be {FORMAT_VERSION}, got {show(version)}; begin the "
                f"file with format_version = {FORMAT_VERSION}, or use the version of this program "
                "that wrote it"
            )
        known = {**_SECTIONS, "constraints": CONSTRAINT_NAMES}
        problems = _unknown(content, ("format_version", *known), "")
        given: dict[str, Any] = {}
        sections = {name: content.get(name, {}) for name in known}
        for name, section in sections.items():
            if not isinstance(section, Mapping):
                problems.append(f"{name} must be a table, got {show(section)}; write [{name}]")
                sections[name] = {}
                continue
            problems += _unknown(section, known[name], f"{name}.")
            if name != "constraints":
                given |= {key: section[key] for key in known[name] if key in section}
        limits = {k: v for k, v in sections["constraints"].items() if k in CONSTRAINT_NAMES}
        problems += _problems(given) + constraint_problems(limits, "constraints")
        if problems:
            raise ConfigError([f"{place}{problem}" for problem in problems])
        for key in ("parameters", "objectives", "techniques"):
            if key in given:
                given[key] = _tuples(given[key])
        return cls(**given, constraints=Constraints(**limits))

    def to_dict(self) -> dict[str, Any]:
        """Section -> key -> value, as in the file; what is `None` is left out."""
        everything = asdict(self)
        content: dict[str, Any] = {"format_version": FORMAT_VERSION}
        for section, keys in _SECTIONS.items():
            content[section] = {
                key: _lists(everything[key]) for key in keys if everything[key] is not None
            }
        return content | {"constraints": self.constraints.to_dict()}

    def to_toml(self) -> str:
        """The text of the study file."""
        return plan_text(self.to_dict())

    def write(self, path: str | Path) -> Path:
        """Write the study file."""
        return write_atomically(path, self.to_toml())

    def load_workload(self) -> Workload:
        """Build the model, read its inputs and capture both; see `load_workload`."""
        from codesign.evaluation.workload import load_workload

        given = {name: getattr(self, name) for name in (*_SECTIONS["workload"], "seed")}
        return load_workload(**{**given, "held_out": self.held_out or 0})

    def space_for(self, workload: Workload) -> DesignSpace:
        """The design space on a workload.

        Raises:
            ConfigError: see `DesignSpace.for_workload` and `DesignSpace.narrowed`; or `fronts` are
                not of this workload.
        """
        from codesign.space.design_space import POLICY, DesignSpace
        from codesign.space.technique_space import TechniqueSpace
        from codesign.study.nested import fronts_of

        base = find_accelerator(self.accelerator)
        if self.techniques is not None:
            ways = {"policy": self.policy, "fronts": self.fronts}
            other = [f"space.{name}" for name, given in ways.items() if given is not None]
            if other:
                raise ConfigError(
                    f"space.techniques must be given without {' and '.join(other)}, got both; "
                    "leave one out: each says in another way what layers reuse"
                )
            return TechniqueSpace.for_techniques(
                workload.trace,
                base,
                self.techniques,
                grouping=self.grouping or "stage",
                groups=self.groups or 8,
            ).narrowed(self.parameters)
        if self.policy is not None and self.fronts is not None:
            raise ConfigError(
                f"space.fronts must be given without space.policy, got {self.fronts!r}; leave one "
                "out: a policy of your own decides in every layer"
            )
        if self.policy is not None:
            fields = {
                name.removeprefix(POLICY): choices[0]
                for name, choices in self.parameters.items()
                if name.startswith(POLICY)
            }
            own = find_policy(self.policy, searched=fields)
            space = DesignSpace.for_policy(own, base)
        elif self.fronts is None:
            space = DesignSpace.for_workload(workload.trace, base, top=self.layers)
        else:
            space = DesignSpace.from_fronts(workload.trace, base, fronts_of(self.fronts, workload))
        return space.narrowed(self.parameters)

    def search(self, workload: Workload, *, storage: str | Path, **settings: Any) -> StudyResult:
        """Search on a workload that was loaded, and keep the plan with the study.

        Args:
            workload: as `load_workload` gives it.
            storage: see `search`; a directory also gets the plan as `study.toml`.
            settings: further ones of `search`: `resume`, `ray_address`, `executor`, `on_measured`,
                `on_progress`.
        """
        from codesign.study.search import search

        given = {name: getattr(self, name) for name in (*_SECTIONS["search"], "constraints")}
        return search(
            workload,
            self.space_for(workload),
            **{**given, "objectives": find_objectives(self.objectives)},
            storage=storage,
            plan=self.to_dict(),
            **settings,
        )

    def run(self, *, storage: str | Path, **settings: Any) -> StudyResult:
        """Load the workload and search; see `search`."""
        return self.search(self.load_workload(), storage=storage, **settings)


def _unknown(content: Mapping[str, Any], known: tuple[str, ...], prefix: str) -> list[str]:
    """Keys that mean nothing, with what may have been meant."""
    problems = []
    for key in content:
        if key not in known:
            close = nearest(key, known)
            fix = f"did you mean {prefix}{close}?" if close else "leave it out"
            problems.append(
                f"{prefix}{show(key).strip(chr(39))} must be one of {', '.join(known)}, got "
                f"{show(key)}; {fix}"
            )
    return problems


def _problems(given: Mapping[str, Any]) -> list[str]:
    """Rules that the fields given break, each named by its place in the file."""
    place = {key: f"{section}.{key}" for section, keys in _SECTIONS.items() for key in keys}
    problems = []
    for each in fields(StudyPlan):
        may_be_open = each.default is None and given.get(each.name) is None
        if each.name not in given or may_be_open:
            continue
        found = each.metadata["rule"](given[each.name], place[each.name])
        usual = "nothing" if each.default in (None, MISSING) else str(each.default)
        fix = f"; leave it out for {usual}"
        problems += [text if ";" in text else f"{text}{fix}" for text in found]
    return problems


def _tuples(value: Any) -> Any:
    """Lists as tuples, so that a plan cannot be changed."""
    if isinstance(value, Mapping):
        return {key: _tuples(each) for key, each in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _lists(each) for key, each in value.items()}
    return list(value) if isinstance(value, tuple) else value
