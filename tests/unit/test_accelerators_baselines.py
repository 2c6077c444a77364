"""Measured baselines: what a row must say, what is refused, and what the built-in table holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from accelerators import (
    BASELINE_COLUMNS,
    Baseline,
    ConfigError,
    baselines,
    read_baselines,
    write_baselines,
)
from codesign.cli import app as cli

HEADER = "device,framework,precision,model,latency_ms,statistic,source"
ROW = "Desk,PyTorch 2.6,fp32,resnet18,12.5,median,me: stop watch"


def row(**changes):
    values = {
        "device": "Desk",
        "framework": "PyTorch 2.6",
        "precision": "fp32",
        "model": "resnet18",
        "latency_ms": 12.5,
        "statistic": "median",
        "source": "me: stop watch",
    }
    return Baseline(**(values | changes))


def written(path, text):
    path.write_text(text)
    return path


def run(*arguments, code=0):
    result = CliRunner().invoke(cli.app, ["baselines", *arguments])
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def test_a_file_of_the_needed_columns_loads_with_the_rest_unknown(tmp_path):
    (found,) = read_baselines(written(tmp_path / "mine.csv", f"{HEADER}\n{ROW}\n"))
    assert found == row()
    assert found.threads is None and found.energy_mj is None and found.batch == 1


positive = st.floats(1e-3, 1e5).map(lambda value: float(f"{value:.9g}"))
words = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1, max_size=20)


@given(
    rows=st.lists(
        st.builds(
            row,
            device=words,
            layer=st.just("") | words,
            reuse=st.just("") | words,
            latency_ms=positive,
            threads=st.none() | st.integers(1, 64),
            power_w=st.none() | positive,
            source=words,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_rows_read_back_as_they_were_written(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    write_baselines(path, rows)
    assert read_baselines(path) == tuple(rows)
    assert path.read_text().splitlines()[0] == ",".join(BASELINE_COLUMNS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}\n{ROW.removesuffix('me: stop watch')}\n", "line 2.source must say where"),
        (f"{HEADER}\n{ROW.replace('12.5', '12.5 ms')}\n", "latency_ms must be a finite number"),
        (f"{HEADER}\n{ROW.replace('12.5', '')}\n", "latency_ms must be a finite number"),
        (f"{HEADER}\n{ROW.replace('fp32', 'fp23')}\n", "use 'fp32'"),
        (HEADER.replace("latency_ms", "latency_s") + f"\n{ROW}\n", "use 'latency_ms', converted"),
        (HEADER.replace(",source", "") + "\n", "must have the column source"),
        (f"{HEADER},energy_mj\n{ROW},3.5\n", "energy_origin must be 'measured' or 'derived'"),
        (f"{HEADER},date\n{ROW},yesterday\n", "date must be a date"),
        (f"{HEADER},input\n{ROW},224\n", "input must be height x width x channels"),
        (f"{HEADER}\n{ROW},more\n", "line 2 must have 7 columns, got more"),
        (f"{HEADER}\n{ROW[:20]}", "line 2 must have 7 columns, got fewer"),
        (f"{HEADER}\n", "must hold a row, got a header alone"),
        (f"{HEADER}\n{ROW}\0\0", "must be text, got NUL characters"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_by_line(text, message, tmp_path):
    with pytest.raises(ConfigError) as error:
        read_baselines(written(tmp_path / "mine.csv", text))
    assert message in str(error.value)
    assert "mine.csv" in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.csv"):
        read_baselines(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="must be a readable text file"):
        read_baselines(tmp_path)


def test_a_spread_encloses_its_median_and_says_what_it_is():
    assert row(low_ms=12.0, high_ms=13.0, spread="quartiles").spread == "quartiles"
    with pytest.raises(ConfigError, match=r"from low_ms=13 to high_ms=14, got 12\.5"):
        row(low_ms=13.0, high_ms=14.0, spread="min-max")
    with pytest.raises(ConfigError, match="spread must name"):
        row(low_ms=12.0, high_ms=13.0)


def test_the_built_in_table_has_its_published_rows_each_with_a_source():
    rows = baselines()
    assert len(rows) == 371 + 967 + 30  # data/SOURCES.md
    assert all(each.source for each in rows)
    # ncnn's README, line 1858: resnet18 min = 122.27 max = 125.39 avg = 123.12, 4 threads
    (found,) = baselines(
        device="Pi 4B", model="resnet18", framework="ncnn", precision="fp32", threads=4
    )
    assert (found.latency_ms, found.low_ms, found.high_ms) == (123.12, 122.27, 125.39)


def test_energy_of_mlperf_rows_is_power_times_latency_and_marked():
    rows = [each for each in baselines() if each.energy_mj is not None]
    assert rows
    for each in rows:
        assert each.energy_label == "derived, unverified"
        assert each.energy_mj == pytest.approx(each.power_w * each.latency_ms, rel=5e-3)
        assert each.source.startswith("mlcommons/inference_results")


def test_unknown_names_get_the_nearest_together():
    with pytest.raises(ConfigError) as error:
        baselines(device="Pi 4", model="resnet81")
    assert error.value.violations == (
        "baselines.device must be one that a row has, got 'Pi 4'; use 'Pi 4B'",
        "baselines.model must be one that a row has, got 'resnet81'; use 'resnet18'",
    )
    with pytest.raises(ConfigError, match="got ''; there are 'Pi 3B"):
        baselines(device="")


def test_known_names_that_no_row_has_together_find_nothing():
    assert baselines(device="Pi Zero 2 W", model="vgg16") == ()


def test_own_rows_come_first_and_layers_only_when_asked_for(tmp_path):
    path = tmp_path / "mine.csv"
    mine = [row(), row(layer="conv1", reuse="lsh hashes=10 length=10")]
    write_baselines(path, mine)
    assert baselines(device="Desk", files=[path]) == (mine[0],)
    assert baselines(device="Desk", layer=None, files=[path]) == tuple(mine)
    assert baselines(device="Desk", layer="conv1", reuse="", files=[path]) == ()
    assert baselines(model="resnet18", files=[path])[0] == mine[0]


def test_the_command_shows_rows_and_writes_them_back(tmp_path):
    out, _ = run("--device", "Pi 4B", "--model", "resnet50", "--csv", str(tmp_path / "out.csv"))
    assert "ncnn CPU" in out and "derived, unverified" in out and "MLCommons has not" in out
    found = read_baselines(tmp_path / "out.csv")
    assert found == baselines(device="Pi 4B", model="resnet50")


def test_the_command_tells_what_there_is_and_what_is_wrong():
    out, _ = run()
    assert "Pi Zero 2 W" in out and "mobilenet_v2" in out
    _, err = run("--device", "Pi 4b", code=2)
    assert "use 'Pi 4B'" in err
    _, err = run("--device", "Pi Zero 2 W", "--model", "vgg16", code=2)
    assert "no row has all" in err
