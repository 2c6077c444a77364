"""Every option has an effect, or is refused with the reason; units are told and taken."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from accelerators import ConfigError
from codesign.cli import app as cli
from codesign.cli.outputs import check_directory, check_files
from codesign.space.constraints import Constraints
from codesign.study.plan import StudyPlan
from codesign.study.sweep import read_settings
from simulator import LshReuse, NoReuse, PerLayer
from tests.small_search import small_workload

COMMANDS = typer.main.get_command(cli.app).commands


def run(*arguments, code=2):
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return " ".join(result.stderr.replace("\u2502", " ").split())


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    return small_workload().trace.save(tmp_path_factory.mktemp("trace") / "trace")


def single_options():
    for name, command in COMMANDS.items():
        for option in command.params:
            if option.param_type_name == "option" and not option.multiple and option.name != "help":
                yield name, option


@pytest.mark.parametrize(
    ("name", "option"), single_options(), ids=lambda each: getattr(each, "name", each)
)
def test_an_option_given_twice_is_told(name, option):
    """Of two values one would be left out silently."""
    given = [option.opts[0], *["1"] * (0 if option.is_flag else option.nargs)]
    told = run(name, *given, *given, "--help", code=0)  # nothing runs
    assert f"{option.opts[0]} is given several times; the last counts." in told


DENSE = ("--accelerator", "dense_16x16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*DENSE, "--scope", "batch"), "--scope must come with reuse"),
        (
            (*DENSE, "--thresholds", "zero", "--order", "channels_last"),
            "--thresholds, --order must",
        ),
        ((*DENSE, "--learning", "pca"), "--learning must come with reuse"),
        (("--layer", "first=dense", "--representative", "first"), "--representative must come"),
        ((*DENSE, "--calibration", "TRACE"), "--calibration must come with thresholds or hyper"),
        (
            ("--hashes", 4, "--length", 4, "--thresholds", "zero", "--calibration", "TRACE"),
            "--calibration must come with thresholds or hyperplanes that are learned",
        ),
        (("--layer", "first=4,4", "--layer", "first=5,4"), "must name a layer once, got 'first'"),
        (
            ("--layer", "f*=4,4", "--layer", "first=5,4"),
            "'first' must decide a layer, but patterns",
        ),
        (("--layer", "nosuch=4,4"), "'nosuch' must match a layer"),
    ],
)
def test_options_of_a_replay_that_would_do_nothing(trace, options, message):
    options = [trace if each == "TRACE" else each for each in options]
    for command in ("simulate", "compare"):
        assert message in run(command, trace, *options)


def test_learning_under_reuse_where_nothing_is_learned(trace):
    options = ("--hashes", 4, "--length", 4, "--thresholds", "zero", "--calibrate-under-reuse")
    assert "--calibrate-under-reuse must come with" in run("simulate", trace, *options)


def test_similarity_of_a_trace_captures_nothing(trace, tmp_path):
    told = run("similarity", trace, "--images", 5, "--seed", 0, "--out", tmp_path / "x.html")
    assert "--images, --seed must come with --model, got them without" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pack", "m.pyz", "--repeats", "3"), "--pack must stand without --repeats"),
        (("--no-reuse", "--hashes", "4"), "--no-reuse must stand without --hashes"),
        (
            ("--add-power", "--power-csv", "m.csv", "--warm-up", "1"),
            "--add-power must stand without --warm-up",
        ),
    ],
)
def test_measure_refuses_options_that_it_would_not_read(arguments, message):
    assert message in run("measure", *arguments)


def test_what_no_layer_or_search_has_is_told_before_the_work(trace, tmp_path, monkeypatch):
    told = run("similarity", trace, "--sub-vector", 999, "--out", tmp_path / "x.html")
    assert "sub_vector must be one that a layer has, got 999" in told
    assert not (tmp_path / "x.html").exists()
    monkeypatch.setattr(
        "codesign.evaluation.workload.load_workload", None
    )  # calling it would raise
    first = ("--images", 20, "--first-images", 20)
    assert "--first-images must be fewer than the 20" in run("search", "--out", tmp_path, *first)
    for option in ("projection", "acquisition"):
        told = run("nested", "--out", tmp_path / "n", f"--{option}", "foo")
        assert f"nested_search {option} must be one of" in told
    told = run("compare", trace, "--device", "Pi 4B", "--device", "Pi 4B", *DENSE)
    assert "must name a device once, got 'Pi 4B' again" in told


def test_training_without_reuse_has_no_hyperplanes(tmp_path):
    told = run("train", "--data", "camvid:x", "--out", tmp_path, "--learning", "task")
    assert "--learning must come with reuse" in told


def test_accuracy_lost_is_a_fraction_or_a_percentage(tmp_path, monkeypatch):
    loss = ("search", "--out", tmp_path, "--max-accuracy-loss")
    assert "must be a fraction of at most 1, got 2.0; use 0.02 for 2 percent" in run(*loss, 2)
    assert "fraction of at most 1, got 1.5; use 0.015 for 1.5 percent" in run(*loss, "150%")
    assert "neither a fraction, such as 0.02, nor a percentage" in run(*loss, "2points")
    found = []

    def stop(plan):
        found.append(plan.constraints.accuracy_loss)
        raise ConfigError("stopped")

    monkeypatch.setattr(StudyPlan, "load_workload", stop)
    for text in ("2%", "0.02", " 2 %"):
        run(*loss, text)
    assert found == [0.02] * 3


@pytest.mark.parametrize("loss", [1.001, 2, 1e300, 10**400, -0.1, float("nan"), True, "2%"])
def test_accuracy_lost_in_python(loss):
    with pytest.raises(ConfigError, match="accuracy_loss must be a "):
        Constraints(accuracy_loss=loss)


def test_limits_say_their_unit():
    shown = {option.name: option for _, option in single_options()}
    for name, unit in (("area_mm2", "mm2"), ("power_mw", "mW"), ("latency_ms_per_image", "ms")):
        assert unit in shown[f"max_{name}"].help
    assert "0.02 or 2%" in shown["max_accuracy_loss"].help


def test_values_of_a_sweep_may_have_units():
    from accelerators import preset

    base = preset("reuse_16x16")
    sizes, clocks = read_settings(
        ["weight_buffer.capacity_bytes=16KiB,20kB,32768", "clock_hz=0.5GHz,250 MHz,1e9"], base
    )
    assert sizes.values == (16384, 20000, 32768)
    assert clocks.values == (5e8, 2.5e8, 1e9)
    for wrong in ("weight_buffer.capacity_bytes=16K", "weight_buffer.capacity_bytes=0.3B"):
        with pytest.raises(ConfigError, match="write whole numbers, in B or KiB or MiB"):
            read_settings([wrong], base)
    for text in ("array.rows=16KiB", "clock_hz=1KiB"):
        with pytest.raises(ConfigError, match="must be given"):
            read_settings([text], base)
    with pytest.raises(ConfigError, match="must name a field that changes a design, got 'name'"):
        read_settings(["name=a,b"], base)


@pytest.mark.parametrize("seed", [2**32, 10**23])
def test_seeds_that_no_generator_takes(tmp_path, seed):
    for command in ("capture", "search", "nested"):
        assert "'--seed'" in run(command, "--out", tmp_path / "x", "--seed", seed)
    with pytest.raises(ConfigError, match=r"search\.seed must be an integer of at most 4294967295"):
        StudyPlan(seed=seed)


def test_patterns_that_other_patterns_hide():
    layers = small_workload().trace.layers
    policy = LshReuse(hashes=4, length=4)
    PerLayer({"first": policy, "*": NoReuse()}).check_layers(layers)
    with pytest.raises(ConfigError, match="pattern 'first' must decide a layer"):
        PerLayer({"*": NoReuse(), "first": policy}).check_layers(layers)


def test_outputs_are_apart_from_each_other_and_from_what_is_read(tmp_path):
    page, same = tmp_path / "page", tmp_path / "sub" / ".." / "page"
    with pytest.raises(ConfigError, match="got that of --csv; give another path"):
        check_files(csv=page, html=same)
    with pytest.raises(ConfigError, match="got one that is read; give another path"):
        check_files(csv=page, inputs=[None, same])
    check_files(csv=Path("/dev/null"), html=Path("/dev/null"))


def test_what_is_moved_to_its_place_is_no_mount_point(tmp_path, monkeypatch):
    check_directory(tmp_path, replaced=True)
    monkeypatch.setattr("os.path.ismount", lambda path: str(path) == str(tmp_path))
    check_directory(tmp_path)
    with pytest.raises(ConfigError, match="a mount point, which cannot be replaced"):
        check_directory(tmp_path, replaced=True)
