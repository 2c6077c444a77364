"""Why reuse pays or not on one layer: one thing changed after the other, sums that spill, folds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

from synthetic import SHAPES, Setting, as_large, dense, run, settings

from codesign.space.techniques import SHARING
from simulator import DesignReport

TILES = (64, 144, 256, 1024, None)
# The layer that one thing after the other is changed on.
MIDDLE = "3x3 128->128, 60x80"
LARGE = "3x3 64->64, 120x160"
SPILLING = (64, 256, 1024, 4096, None)
FOLDING = (16, 36, 64, 144, 256, 576, 1024)


def against(report: DesignReport, beside: DesignReport) -> tuple[float, float]:
    """Speed and energy of a design over those of another."""
    return beside.cycles / report.cycles, report.total_energy_pj / beside.total_energy_pj


def shares(report: DesignReport) -> dict[str, float]:
    """Limit -> part of the cycles that it is to blame for."""
    return {name: cycles / report.cycles for name, cycles in report.critical_cycles.items()}


def tile_name(rows: int | None) -> str:
    """Of a tile."""
    return "image" if rows is None else str(rows)


MIDDLE_SETTING = Setting(technique="leaders", kept=0.5)
# What is changed -> other settings.
KNOBS: dict[str, dict[str, Setting]] = {
    "as it is": {"leaders, tile 256, L 64, 64 columns, 24 bits": MIDDLE_SETTING},
    "technique": {
        name: replace(MIDDLE_SETTING, technique=name) for name in SHARING if name != "leaders"
    },
    "tile": {
        tile_name(rows): replace(MIDDLE_SETTING, tile_rows=rows) for rows in TILES if rows != 256
    }
    | {"256 in strips": replace(MIDDLE_SETTING, tile_shape="strip")},
    "L": {str(each): replace(MIDDLE_SETTING, length=each) for each in (32, 128)},
    "looks": {"once a tap": replace(MIDDLE_SETTING, look_once=False)},
    "columns in a pass": {
        str(each): replace(MIDDLE_SETTING, columns=each) for each in (8, 16, 32, 128)
    },
    "built for r": {str(each): replace(MIDDLE_SETTING, kept=each) for each in (0.2, 0.8)},
    "array": {
        "32x32, L 32": replace(MIDDLE_SETTING, array=32, length=32),
        "32x32": replace(MIDDLE_SETTING, array=32),
        "128x128, L 128": replace(MIDDLE_SETTING, array=128, length=128),
        "128x128": replace(MIDDLE_SETTING, array=128),
    },
    "folds": {"sequential": replace(MIDDLE_SETTING, fold_timing="sequential")},
    "bits of a sum": {
        str(each): replace(MIDDLE_SETTING, accumulator_bits=each) for each in (16, 32)
    },
    "a byte of DRAM": {
        "162.5 pJ": replace(MIDDLE_SETTING, dram="horowitz_2014_low"),
        "325 pJ": replace(MIDDLE_SETTING, dram="horowitz_2014_high"),
    },
}


def knob_rows(names: Sequence[str] = tuple(KNOBS), ratio: float = 0.5) -> list[dict[str, object]]:
    """One layer, one thing changed after the other.

    Args:
        names: of `KNOBS`, what is changed.
        ratio: r.
    """
    layers = SHAPES[MIDDLE]
    rows = []
    for what in names:
        for name, setting in KNOBS[what].items():
            report = run(layers, setting, ratio, setting.design(layers))
            rows.append(
                {"changed": what, "to": name, **told(report, dense(layers, report.accelerator))}
            )
    rows += [
        {"changed": "a unit's size", "to": name, **told(report, dense(layers, report.accelerator))}
        for name, report in cut_units(ratio)
    ]
    return rows


def cut_units(ratio: float) -> Iterable[tuple[str, DesignReport]]:
    """The same design with less of what its sizes were fitted to."""
    layers = SHAPES[MIDDLE]
    design = MIDDLE_SETTING.design(layers)
    gather, weights = design.reconstructor, design.weight_buffer
    assert gather is not None
    for part in (2, 4):
        fewer = replace(gather, ports=1, width=gather.ports * gather.width // part)
        other = replace(design, reconstructor=fewer)
        yield f"1/{part} of the gathering lanes", run(layers, MIDDLE_SETTING, ratio, other)
    less = replace(weights, capacity_bytes=weights.capacity_bytes // 8)
    other = replace(design, weight_buffer=less)
    yield "1/8 of the weight buffer", run(layers, MIDDLE_SETTING, ratio, other)


def told(report: DesignReport, beside: DesignReport) -> dict[str, object]:
    """A design beside dense, in words."""
    speed, energy = against(report, beside)
    limits = sorted(shares(report).items(), key=lambda each: -each[1])[:2]
    moved, dense_moved = (sum(each.dram_bytes.values()) for each in (report, beside))
    return {
        "speed": f"{speed:.2f}x",
        "energy": f"{energy:.2f}x",
        "mm2": f"{report.area_mm2:.1f}",
        "DRAM": f"{moved / dense_moved:.1f}x",
        "limited by": ", ".join(f"{name} {share:.0%}" for name, share in limits),
    }


def spill_rows(
    tiles: Sequence[int | None] = SPILLING, ratio: float = 0.3
) -> list[dict[str, object]]:
    """The largest layer in larger and larger tiles, at last looked at once a tap: what travels."""
    layers, rows = SHAPES[LARGE], []
    for tile, once in [*((tile, True) for tile in tiles), (None, False)]:
        setting = Setting(technique="neighbours", tile_rows=tile, kept=ratio, look_once=once)
        report = run(layers, setting, ratio, setting.design(layers))
        beside = dense(layers, report.accelerator)
        moved = report.dram_bytes
        speed, energy = against(report, beside)
        rows.append(
            {
                "tile": tile_name(tile) + ("" if once else ", once a tap"),
                "inputs and outputs, MB": f"{(moved['inputs'] + moved['outputs']) / 1e6:.1f}",
                "sums, MB": f"{moved['spilled_sums'] / 1e6:.1f}",
                "results, MB": f"{moved['spilled_results'] / 1e6:.1f}",
                "dense, MB": f"{sum(beside.dram_bytes.values()) / 1e6:.1f}",
                "DRAM's energy": f"{report.energy_pj['dram'] / report.total_energy_pj:.0%}",
                "mm2": f"{report.area_mm2:.1f}",
                "speed": f"{speed:.2f}x",
                "energy": f"{energy:.2f}x",
                "limited by": report.bound_by,
            }
        )
    return rows


@dataclass(frozen=True, kw_only=True)
class Folded:
    """Clusters of a tile on an array, with L as long as it has rows.

    Attributes:
        array: rows and columns.
        clusters: of a view in a tile, the mean.
        used: multiplications over those that the array could do while it is busy.
        speed, energy: over dense at equal area.
    """

    array: int
    clusters: float
    used: float
    speed: float
    energy: float


def folded(tiles: Sequence[int] = FOLDING, ratio: float = 0.5) -> list[Folded]:
    """Tiles with fewer and with more clusters than the array has rows."""
    layers, found = SHAPES[MIDDLE], []
    for array, rows in product((32, 64, 128), tiles):
        setting = Setting(
            technique="neighbours", tile_rows=rows, array=array, length=array, kept=ratio
        )
        report = run(layers, setting, ratio, setting.design(layers))
        speed, energy = against(report, dense(layers, report.accelerator))
        looks = setting.policy(layers[0]).looks(layers[0])
        could = report.busy_cycles["array"] * array**2
        found.append(
            Folded(
                array=array,
                clusters=ratio * float(looks.vectors.mean()),
                used=sum(layer.timing.macs for layer in report.layers) / could,
                speed=speed,
                energy=energy,
            )
        )
    return found


def fold_rows(found: Sequence[Folded]) -> list[dict[str, object]]:
    """As a table."""
    return [
        {
            "array": f"{each.array}x{each.array}",
            "|C| in a tile": f"{each.clusters:.0f}",
            "|C| / rows": f"{each.clusters / each.array:.2f}",
            "array used while busy": f"{each.used:.0%}",
            "speed": f"{each.speed:.2f}x",
            "energy": f"{each.energy:.2f}x",
        }
        for each in found
    ]


def predicted(
    shape: str, technique: str, tile_rows: int | None, ratio: float
) -> tuple[float, float]:
    """Speed and energy that the map has for a shape: of its design with the least product of both.

    Args:
        shape: of `SHAPES`.
        technique: of `SHARING`.
        tile_rows: see `Setting`.
        ratio: r.
    """
    layers = SHAPES[shape]
    tried = [
        run(layers, setting, ratio, setting.design(layers))
        for setting in settings(shape, technique, tile_rows)
    ]
    beside = as_large(layers, {report.accelerator for report in tried})
    found = [against(report, beside[report.accelerator]) for report in tried]
    return min(found, key=lambda each: each[1] / each[0])
