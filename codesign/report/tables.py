"""Tables and key numbers of a search's report."""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

from typing import Any

from accelerators import Accelerator
from codesign.evaluation.objectives import ACCURACY
from codesign.report.plots import start_name
from codesign.space.parameters import BUFFERS
from codesign.space.techniques import searched
from codesign.space.template import StoredPolicy
from codesign.study.result import StudyResult
from codesign.study.trial import Trial
from simulator import NoReuse, PerLayer, ReusePolicy
from simulator.pages.cards import energy_card, interval_texts, per_image_cards, speed_card
from simulator.pages.page import card
from simulator.results.design_tables import LAYER_COLUMNS, LAYERS_TEXT, layer_rows
from simulator.results.differences import AGREEMENTS, ratio_text
from simulator.results.lookup import equal_area_design, given_design
from simulator.results.names import limit_name
from simulator.results.tables import column, number, percent
from workloads.traces.scores import SCORES

# The same of a setting of a technique.
_OF_TECHNIQUES = {
    "length": ("sub-vector length L", "elements"),
    "tile_rows": ("tile", "rows at most"),
    "tile_shape": ("shape of a tile", "strip of rows or block of positions"),
    "look_once": ("vectors looked at", "yes: once a pixel, no: once a tap"),
    "entries": ("leaders kept", "of a tile"),
}
# Parameter -> what it is in words, and its unit.
PARAMETER_NAMES = {
    "array.rows": ("array rows", "multiply-accumulate units"),
    "array.columns": ("array columns", "multiply-accumulate units"),
    "array.fold_timing": ("consecutive folds", "sequential or overlapped"),
    "activation_buffer.kib": ("activation buffer", "KiB"),
    "weight_buffer.kib": ("weight buffer", "KiB"),
    "output_buffer.kib": ("output buffer", "KiB"),
    "centroid_buffer.kib": ("centroid buffer", "KiB"),
    "cache.entries": ("centroid cache size", "clusters"),
    "cache.ways": ("centroid cache associativity", "ways"),
    "cache.banks": ("centroid cache banks", "accesses per cycle"),
    "cache.clear_entries_per_cycle": ("centroid cache clearing", "entries per cycle"),
    "front_end.lanes": ("hash lanes", "sub-vectors per cycle"),
    "front_end.projection": ("hash projections", "sign: adders, int8: multipliers"),
    "accumulator_bits": ("width of partial sums", "bits"),
    "pass_columns": ("columns multiplied in a pass", "of a layer's n"),
    **{f"{name}.times": (f"{name.replace('_', ' ')}", "times what tiles need") for name in BUFFERS},
    "state_buffer.used": ("buffer of what is kept between frames", "yes or no"),
    "remaining": ("vectors that units are sized for", "of a tile's"),
    "output_error": (
        "error of the answers that is borne",
        "mean square, of that of the dense answers",
    ),
    **{
        f"{technique}.{name}": (f"{technique}: {words}", unit)
        for technique in searched()
        for name, (words, unit) in _OF_TECHNIQUES.items()
    },
    "reconstructor.sums_per_cycle": ("reconstructor rate", "partial sums per cycle"),
}
# The same of a layer's own parameters.
LAYER_PARAMETER_NAMES = {
    "reuse": ("reuse", "no: the layer runs dense"),
    "hashes": ("hashes H", "bits of a signature"),
    "length": ("sub-vector length L", "elements"),
    "technique": ("technique", ""),
    "position": ("position on its front", "0: dense, then from exact to compressed"),
}


def parameter_name(result: StudyResult, name: str) -> tuple[str, str]:
    """A parameter in words and its unit; its own name where there are no words."""
    layer, _, of_layer = name.rpartition(".")
    if layer in result.space.choosing and of_layer in LAYER_PARAMETER_NAMES:
        words, unit = LAYER_PARAMETER_NAMES[of_layer]
        return f"{layer}: {words}", unit
    return PARAMETER_NAMES.get(name, (name, ""))


def choice_text(choice: Any) -> str:
    """A value of a parameter in words."""
    return {True: "yes", False: "no"}[choice] if isinstance(choice, bool) else str(choice)


def study_cards(result: StudyResult, best: Trial) -> list[dict[str, str]]:
    """Key numbers of the best design found."""
    summary, values, start = best.summary, best.values, result.start.summary
    assert values is not None, "the best trial is complete"
    reuse, equal = given_design(summary), equal_area_design(summary)
    known = {**dict.fromkeys(SCORES, "accuracy"), **dict.fromkeys(AGREEMENTS, "agreement")}
    name = known.get(result.quality, "")
    return [
        speed_card("Best found: speed", summary),
        energy_card("Best found: energy", summary),
        card(
            f"Best found: {result.accuracy.short}",
            percent(values[ACCURACY]),
            "%",
            "; ".join(
                [
                    f"the dense model: {percent(result.baseline[ACCURACY])} %",
                    *interval_texts(summary, name),
                ]
            ),
        ),
        *per_image_cards(reuse, equal),
        card(
            "Area",
            number(reuse["area_mm2"]),
            "mm²",
            f"the design the search started from: {number(given_design(start)['area_mm2'])} mm²"
            if start
            else "without DRAM",
        ),
        card(
            "Trials",
            str(len(result.of_state("complete"))),
            f"of {result.asked or len(result.trials)} complete",
            f"{len(result.front)} of them on the Pareto front",
        ),
    ]


def best_section(result: StudyResult, best: Trial) -> dict[str, Any]:
    """The best design: its parameters beside the first trial's, its layers, its source text."""
    accelerator, policy = result.design_of(best)
    is_start = best.number == result.start.number
    rows = []
    for parameter in result.space.parameters:
        name = parameter.name
        words, unit = parameter_name(result, name)
        start, found = result.start.parameters[name], best.parameters[name]
        rows.append(
            {
                "name": words,
                "unit": unit,
                "start": _applies(result, result.start, name, start),
                "best": _applies(result, best, name, found),
                "changed": ("best",) if start != found else (),
            }
        )
    started = result.space.following(result.start.parameters)
    for name, value in result.space.following(best.parameters).items():
        rows.append(
            {
                "name": name,
                "unit": "follows from the error that is borne",
                "start": started[name],
                "best": value,
                "changed": ("best",) if started[name] != value else (),
            }
        )
    columns = [
        column("name", "Parameter", text=True),
        column("unit", "Unit", text=True),
        column("start", start_name(result).capitalize()),
        column("best", "Best found"),
    ]
    chosen = (
        f"Trial {best.number}: of the trials on the front that keep the accuracy, the one with the "
        "least energy-delay product against the dense design of equal area."
    )
    text = f"{chosen} It is the trial that the search started from." if is_start else chosen
    return {
        "text": f"{text} Values that differ from the {start_name(result)} are coloured.",
        "columns": columns,
        "rows": rows,
        "layers_text": LAYERS_TEXT,
        "layer_columns": LAYER_COLUMNS,
        "layer_rows": layer_rows(best.summary),
        "python": design_python(accelerator, policy),
    }


def _applies(result: StudyResult, trial: Trial, name: str, value: Any) -> Any:
    """The value, or a dash for a parameter that has no effect, as of a layer that runs dense."""
    return None if result.space.is_idle(name, trial.parameters) else value


def design_python(accelerator: Accelerator, policy: ReusePolicy) -> str:
    """Source text that builds the design and the policy."""
    return f"{accelerator.to_python()}\n{policy_python(policy)}"


def policy_python(policy: ReusePolicy) -> str:
    """Source text that builds an equal policy and calls it `policy`."""
    if isinstance(policy, NoReuse):
        return "from simulator import NoReuse\n\npolicy = NoReuse()\n"
    if isinstance(policy, PerLayer):
        used = {type(each).__name__ for each in policy.policies.values()} | {"PerLayer"}
        lines = "".join(f"    {name!r}: {each!r},\n" for name, each in policy.policies.items())
        return (
            f"from simulator import {', '.join(sorted(used))}\n\npolicy = PerLayer({{\n{lines}}})\n"
        )
    if isinstance(policy, StoredPolicy):
        return f"# {policy.source}, of the file that the search was given\npolicy = {policy!r}\n"
    kind = type(policy).__name__
    return f"from simulator import {kind}\n\npolicy = {policy!r}\n"


def front_columns(result: StudyResult) -> list[dict[str, Any]]:
    """Columns of the front's table."""
    return [
        column("trial", "Trial"),
        *(column(each.name, each.heading, each.shown_unit) for each in result.objectives),
        column("ratio", "Energy", "× dense, equal area"),
        *_held_out_columns(result),
        column("area", "Area", "mm²"),
        column("array", "Array", "rows × columns"),
        column("bound", "Bound by", text=True),
        *(
            column(f"layer {name}", name, result.space.reuse_heading)
            for name in result.space.choosing
        ),
    ]


def _held_out_columns(result: StudyResult) -> list[dict[str, Any]]:
    """Of what designs are on inputs that the search did not see."""
    if result.held_out is None:
        return []
    return [
        column("held_out_accuracy", f"{result.accuracy.heading}, held out", "%"),
        column("held_out_speedup", "Speed, held out", "× dense, equal area"),
        column("held_out_ratio", "Energy, held out", "× dense, equal area"),
    ]


def _held_out_cells(result: StudyResult, trial: Trial) -> dict[str, Any]:
    if result.held_out is None or trial.number not in result.held_out.trials:
        return {}
    values = result.held_out.trials[trial.number]
    return {
        "held_out_accuracy": result.accuracy.cell(values[ACCURACY]),
        "held_out_speedup": ratio_text(values["speedup_equal_area"]),
        "held_out_ratio": ratio_text(values["energy_ratio_equal_area"]),
    }


def front_rows(result: StudyResult, best: Trial | None) -> list[dict[str, Any]]:
    """A row for each trial on the front, the best in the first objective first."""
    first, rows = result.objectives[0], []
    sign = -1 if first.maximise else 1
    for trial in sorted(result.front, key=lambda each: sign * (each.values or {})[first.name]):
        values, reuse = trial.values or {}, given_design(trial.summary)
        array = reuse["accelerator"]["array"]
        settings = result.space.reuse_texts(trial.parameters)
        rows.append(
            {
                "trial": trial.number,
                **{each.name: each.cell(values[each.name]) for each in result.objectives},
                "ratio": ratio_text(trial.summary["energy_ratio_equal_area"]),
                **_held_out_cells(result, trial),
                "area": reuse["area_mm2"],
                "array": f"{array['rows']} × {array['columns']}",
                "bound": limit_name(reuse["bound_by"], reuse["accelerator"]),
                **{f"layer {name}": setting for name, setting in settings.items()},
                "marked": best is not None and trial.number == best.number,
            }
        )
    return rows


def space_columns() -> list[dict[str, Any]]:
    """Columns of the table of the design space."""
    return [
        column("name", "Parameter", text=True),
        column("unit", "Unit", text=True),
        column("choices", "Choices", text=True),
    ]


def space_rows(result: StudyResult) -> list[dict[str, Any]]:
    """A row for each parameter that was searched."""
    rows = []
    for parameter in result.space.parameters:
        words, unit = parameter_name(result, parameter.name)
        choices = ", ".join(map(choice_text, parameter.choices))
        rows.append({"name": words, "unit": unit, "choices": choices})
    return rows
