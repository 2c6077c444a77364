"""The arithmetic of studies 011 and 012 on small input."""

import importlib.util
import sys
from pathlib import Path

import pytest

from accelerators import processor_preset
from tests.builders import matrix_layer

STUDIES = Path(__file__).parents[2] / "studies"


def study(name):
    """A study as a module, as running it imports its neighbours."""
    sys.path.insert(0, str(STUDIES))
    try:
        spec = importlib.util.spec_from_file_location(name, STUDIES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(STUDIES))


def test_study_011_names_every_outlier_and_tells_fitted_from_held_out():
    cpu = study("011_cpu_model")
    processor = processor_preset("Pi 4B")
    found = cpu.predictions(cpu.measured(processor), processor)
    outliers = [each for each in found if abs(each.error) > cpu.OUTLIER]
    drawn = cpu.figure({processor: found})
    assert len(drawn.layout.annotations) == len(outliers) > 0
    assert sum(len(trace.x) for trace in drawn.data if trace.mode == "markers") == len(found)
    assert cpu.errors([]) == "-"
    assert cpu.errors(found).endswith(f"({len(found)})")


def test_study_012_reads_the_table_and_its_formulas_hold():
    pi = study("012_deep_reuse_on_a_pi")
    rows = pi.table_rows()
    assert len(rows) == 10
    # facts: the table averages 1.81x and 51.5 %; three rows beat 1 / (1 - compression)
    assert sum(row.speedup for row in rows) / 10 == pytest.approx(1.81, abs=0.005)
    assert sum(row.compression for row in rows) / 10 == pytest.approx(0.515, abs=0.0005)
    beaten = [row.model for row in rows if row.speedup > row.bound]
    assert beaten == ["resnest", "resnet38", "psanet"]
    # Deep Reuse's M / (H + r_c M + M / L) on one layer: 64 / (10 + r 64 + 64 / 10)
    row = pi.Row(model="resnet18", speedup=1.0, compression=0.75)
    layer = matrix_layer("fc", m=100, n=64, k=40)
    assert pi.macs_formula([layer], row, 10) == pytest.approx(64 / (10 + 0.25 * 64 + 6.4))
    counts = pi.counts(layer, 0.25, 10)
    assert counts.clusters == 0.25 * 100 * 4
    ((dense, unfolded, reuse),) = pi.latencies([layer], row, processor_preset("Pi 3B+"), 40)
    assert dense == unfolded > 0 and dense / reuse < row.bound
    assert pi.counts(matrix_layer("fc", m=1, n=64, k=40), 0.25, 10) is None
