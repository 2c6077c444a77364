"""What `codesign measure` times, reads from board and meter, and writes."""

import math
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from accelerators import ConfigError
from accelerators.baselines import read_baselines
from codesign.boards.measure import (
    Board,
    BoardWatch,
    Meter,
    Reuse,
    ReusedLayer,
    Timing,
    measure,
    read_meter,
    with_power,
)
from codesign.boards.measure.board import parsed_flags, throttling
from codesign.boards.measure.meter import utc
from codesign.boards.measure.plain import PlainConvolution
from codesign.boards.measure.reused import layer_of
from codesign.boards.measure.start import unpacked
from codesign.cli.on_board import main
from simulator import LshReuse
from simulator.running.product import product
from workloads import capture
from workloads.traces.unfold import rows_of

ROOT = Path(__file__).parents[2]
MODEL = """
import torch
from torch import nn

class Tiny(nn.Module):
    input_shape = (3, 12, 12)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.shared = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.shared(torch.relu(self.shared(torch.relu(self.conv(x)))))
        return self.head(x.mean((2, 3)))
"""
# What comes with PyTorch (its own requirements).
WITH_TORCH = (
    "numpy torch torchgen functorch typing_extensions sympy mpmath networkx jinja2 markupsafe "
    "filelock fsspec setuptools"
)
OURS = "accelerators workloads simulator codesign __main__"
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in {known}:
            raise ModuleNotFoundError(f"{{name}} is not on the board", name=name)
sys.meta_path.insert(0, Blocker())
"""


def smooth(*shape, seed=0):
    """Whole numbers of few levels, in patches that are alike."""
    rng = np.random.default_rng(seed)
    images, channels, height, width = shape
    coarse = rng.integers(-3, 4, (images, channels, -(-height // 3), -(-width // 3)))
    maps = np.repeat(np.repeat(coarse, 3, axis=2), 3, axis=3)[:, :, :height, :width]
    return torch.from_numpy((maps + rng.integers(0, 2, shape)).astype(np.float32))


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(MODEL)
    return f"{path}:Tiny"


class TestMeter:
    @given(
        start=st.floats(0, 40),
        length=st.floats(1, 50),
        watts=st.floats(0.1, 20),
        slope=st.floats(0, 1),
    )
    def test_energy_of_a_ramp_is_its_integral(self, start, length, watts, slope):
        times = np.arange(0.0, 101.0, 0.25)
        meter = Meter(name="ramp", times_s=times, watts=watts + slope * times)
        end = start + length
        # Integral of w + s t from t0 to t1.
        expected = watts * length + slope * (end**2 - start**2) / 2
        assert meter.energy_j(start, end) == pytest.approx(expected, rel=1e-9)
        assert meter.mean_watts(start, end) == pytest.approx(expected / length, rel=1e-9)

    def test_a_step_between_samples_is_a_straight_line(self):
        meter = Meter(name="step", times_s=np.array([0.0, 1, 2, 3]), watts=np.array([2.0, 2, 6, 6]))
        # From 0.5: half a second of 2 W, a second of 4 W in the mean, half a second of 6 W.
        assert meter.energy_j(0.5, 2.5) == 1 + 4 + 3

    def test_both_forms_of_time_are_one(self, tmp_path):
        path = tmp_path / "meter.csv"
        path.write_text(
            "watts, time, volts\n5,1970-01-01T00:01:40Z,5.1\n"
            "6,1970-01-01T02:01:41+02:00,5\n7,102.5,5\n"
        )
        meter = read_meter(path)
        assert meter.times_s.tolist() == [100, 101, 102.5]
        assert meter.watts.tolist() == [5, 6, 7]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("time,power\n1,2\n", r"column 'watts', got time, power"),
            ("", "got an empty file"),
            ("time,watts\n2026-11-22T12:00:00,3\n", "line 2 time must be a time with its offset"),
            ("time,watts\n1795348800123,3\n", "line 2 time must be seconds since 1970"),
            ("time,watts\n100,3\n100,3\n", "line 3 time must be later"),
            ("time,watts\n100,-3\n", "line 2 watts must be a number of at least 0, got '-3'"),
            ("time,watts\n100,nan\n", "line 2 watts must be a number"),
            ("time,watts\n100\n", "line 2 watts must be a number"),
        ],
    )
    def test_wrong_logs_say_line_rule_and_fix(self, tmp_path, text, message):
        path = tmp_path / "meter.csv"
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_meter(path)

    def test_a_log_must_cover_the_runs_with_samples(self):
        meter = Meter(name="log.csv", times_s=np.array([100.0, 101, 110]), watts=np.ones(3))
        for start, end in ((99, 105), (105, 111)):
            with pytest.raises(
                ConfigError, match=r"log.csv must cover the window 1970.*got samples"
            ):
                meter.energy_j(start, end)
        with pytest.raises(ConfigError, match=r"2 samples or more .* got 0; give more --repeats"):
            meter.energy_j(102, 105)
        empty = Meter(name="log.csv", times_s=np.array([]), watts=np.array([]))
        with pytest.raises(ConfigError, match="got no samples"):
            empty.energy_j(1, 2)


class TestBoard:
    @pytest.fixture
    def pi(self, tmp_path):
        """A file system as a Raspberry Pi's, to be changed as it warms up."""
        files = {
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "proc/cpuinfo": "model name\t: ARMv7 Processor rev 3 (v7l)\n",
            "sys/class/thermal/thermal_zone0/temp": "48200\n",
            "sys/class/thermal/thermal_zone1/temp": "no number\n",
        }
        for core in range(4):
            place = f"sys/devices/system/cpu/cpu{core}/cpufreq"
            files |= {
                f"{place}/scaling_cur_freq": "1800000\n" if core == 2 else "600000\n",
                f"{place}/cpuinfo_max_freq": "1800000\n",
                f"{place}/scaling_governor": "ondemand\n",
            }
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    def test_clock_temperature_and_flags_of_a_run(self, pi):
        board = Board.here(pi)
        assert board.name == "Raspberry Pi 4 Model B Rev 1.4"
        answers = iter([0, 0x40004])
        watch = BoardWatch(board=board, flags=lambda: next(answers))
        watch.start()
        (pi / "sys/class/thermal/thermal_zone0/temp").write_text("81700\n")
        (pi / "sys/devices/system/cpu/cpu2/cpufreq/scaling_cur_freq").write_text("1500000\n")
        watch.sample()
        watch.stop()
        assert watch.clock_mhz == 1500
        assert watch.conditions == (
            "clock 1500 to 1800 MHz of at most 1800, governor ondemand, unsteady; "
            "48 to 82 degrees C; firmware says throttled while measuring"
        )

    def test_a_device_that_tells_nothing_is_not_guessed(self, tmp_path):
        watch = BoardWatch(board=Board.here(tmp_path), flags=lambda: None)
        watch.start()
        watch.stop()
        assert watch.clock_mhz is None
        assert watch.conditions == "the device tells neither clock nor temperature"
        assert Board.here(tmp_path).name != ""

    @pytest.mark.parametrize(
        ("before", "after", "words"),
        [
            (0, 0, "no throttling"),
            (0, 0x20002, "clock capped while measuring"),
            (0, 0x10000, "under-voltage while measuring"),  # came and went
            (0x50005, 0x50005, "under-voltage, throttled while measuring"),
            (0x80000, 0x80000, "soft temperature limit since boot, perhaps not while measuring"),
        ],
    )
    def test_flags_of_the_firmware_in_words(self, before, after, words):
        assert throttling(before, after) == f"firmware says {words}"

    def test_answers_of_vcgencmd(self):
        assert parsed_flags("throttled=0x50005\n") == 0x50005
        assert parsed_flags("error=1 error_msg=...") is None


CONVOLUTIONS = {
    "padded": (nn.Conv2d(8, 12, 3, padding=1), (2, 8, 9, 7), 8),
    "strided, L divides no row": (nn.Conv2d(3, 9, 5, stride=(3, 2), padding=2), (2, 3, 21, 17), 7),
    "dilated": (nn.Conv2d(4, 8, 3, dilation=(1, 2)), (2, 4, 11, 10), 6),
    "one tap": (nn.Conv2d(12, 8, 1, bias=False), (1, 12, 10, 9), 4),
}


class TestReused:
    @pytest.mark.parametrize("hashes", [3, 9, 30])  # a table of all signatures, and sorting
    @pytest.mark.parametrize("case", CONVOLUTIONS)
    def test_plain_kernel_computes_what_the_policy_decides(self, case, hashes):
        module, shape, length = CONVOLUTIONS[case]
        images = smooth(*shape)
        reuse = Reuse(hashes=hashes, length=length, thresholds="zero", kernel="plain")
        ours = ReusedLayer("conv", module, images, reuse)
        model = nn.Sequential()
        model.add_module("conv", module)
        layer, decisions, product = decided(model, images, hashes, length)
        with torch.inference_mode():
            output = ours(images)
        assert ours.remaining_ratio == decisions.remaining_ratio < 1
        expected = product + (0 if module.bias is None else module.bias.detach().numpy())
        _, made, height, width = layer.output_shape
        expected = expected.reshape(shape[0], height, width, made).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(output.numpy(), expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("thresholds", ["zero", "spread"])
    @pytest.mark.parametrize("case", CONVOLUTIONS)
    def test_plain_kernel_decides_as_the_policy_to_the_last_bit(self, case, thresholds):
        module, shape, length = CONVOLUTIONS[case]
        images = smooth(*shape) * 0.1  # no float is a tenth: every sum is rounded
        layer = layer_of("conv", module, images)
        policy = LshReuse(hashes=6, length=length, thresholds=thresholds, order="channels_last")
        rows = rows_of(layer, images.numpy())
        state = policy.calibrate(layer, rows)
        decisions = policy.decide(layer, rows, state)
        plain = PlainConvolution(
            layer, module.weight.detach().numpy(), images.numpy(),
            hashes=6, length=length, thresholds=thresholds,
        )  # fmt: skip
        np.testing.assert_array_equal(plain._thresholds, policy.hashing(layer, state)[1][0])
        ours = plain.clusters(rows_of(layer, images.numpy(), order="channels_last")[0])
        rows_an_image = layer.gemm.m // layer.images
        for place, (first, ids, sizes) in enumerate(ours):
            assert first == place * length
            theirs = decisions.rows.ids[0, place].reshape(-1, rows_an_image)
            theirs = theirs + np.arange(layer.images)[:, None] * rows_an_image
            # Each of our clusters is one of theirs, and there are as many.
            pairs = np.unique(np.stack([ids.ravel(), theirs.ravel()]), axis=1)
            assert pairs.shape[1] == len(sizes) == decisions.rows.clusters[0, place].sum()

    @pytest.mark.parametrize("thresholds", ["zero", "spread"])
    def test_kernels_agree(self, thresholds):
        module, shape, length = CONVOLUTIONS["padded"]
        images = smooth(*shape)
        outputs, ratios = [], []
        for kernel in ("numba", "plain"):
            reuse = Reuse(hashes=7, length=length, thresholds=thresholds, kernel=kernel)
            layer = ReusedLayer("conv", module, images, reuse)
            outputs.append(layer(images).detach().numpy())
            ratios.append(layer.remaining_ratio)
        assert ratios[0] == ratios[1]
        np.testing.assert_allclose(outputs[0], outputs[1], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("kernel", ["numba", "plain"])
    def test_equal_tokens_cost_a_linear_module_no_accuracy(self, kernel):
        tokens = torch.randn(2, 3, 16, generator=torch.manual_seed(1)).repeat(1, 5, 1)
        module = nn.Linear(16, 6)
        reuse = Reuse(hashes=24, length=8, thresholds="zero", kernel=kernel)
        ours = ReusedLayer("fc", module, tokens, reuse)
        with torch.inference_mode():
            torch.testing.assert_close(ours(tokens), module(tokens), rtol=0, atol=1e-5)
        # Three different tokens of fifteen, in each image and sub-matrix.
        assert ours.remaining_ratio == 3 / 15

    def test_a_setting_of_many_layers_fits_a_cell(self):
        few = {"conv1": (3, 4), "fc*": None}
        reuse = Reuse(hashes=5, length=6, layers=few, thresholds="zero", kernel="plain")
        setting = "lsh hashes=5 length=6 thresholds=zero order=channels_last"
        assert reuse.text() == f"{setting}, conv1=3,4 fc*=dense"
        assert reuse.text("fc1") == reuse.text("other") == setting
        many = replace(reuse, layers={f"layer{i}.conv": (3, 4) for i in range(60)})
        assert many.text() == f"{setting}, 60 layers with their own"
        assert many.text("layer7.conv").startswith("lsh hashes=3 length=4 ")

    def test_what_stays_dense_says_why(self, tiny):
        from workloads.models import load

        result = measure(
            nn.Sequential(
                nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3, padding="same"),
                nn.Conv2d(4, 2, 1), nn.Conv2d(2, 8, 1), nn.Flatten(), nn.Linear(8 * 16, 3),
            ),
            smooth(1, 4, 6, 6), threads=1, repeats=1, warm_up=0,
            reuse=Reuse(hashes=4, length=4, layers={"2": None}, kernel="plain"),
        )  # fmt: skip
        assert [each.why_dense for each in result.layers] == [
            "grouped",
            "its padding or input has another form",
            "asked for dense",
            "its rows of 2 are shorter than L",
            "one row an image has nothing to share with",
        ]
        assert result.reused is None and result.speedup is None
        with pytest.raises(
            ConfigError, match=r"'convx' must fit a module .* the model has conv, s"
        ):
            measure(
                load(tiny), smooth(1, 3, 12, 12),
                reuse=Reuse(hashes=4, length=4, layers={"convx": (3, 3)}),
            )  # fmt: skip


def decided(model, images, hashes, length):
    """The layer `conv`, the decisions of the policy, and the `(m, n)` product under them."""
    trace = capture(model, images)
    layer = trace.layers[0]
    policy = LshReuse(hashes=hashes, length=length, thresholds="zero", order="channels_last")
    rows = trace.rows(layer.name)
    decisions = policy.decide(layer, rows, {})
    return layer, decisions, product(decisions, rows, trace.weights(layer.name))[0]


class TestMeasure:
    def test_quartiles_by_hand(self):
        timing = Timing(runs_ms=(5.0, 1.0, 4.0, 2.0, 3.0), start_s=0.0, end_s=1.0)
        assert timing.median_ms == 3
        assert timing.quartiles_ms == (2, 4)

    def test_every_call_has_its_own_reused_form_and_the_model_stays(self, tiny):
        from workloads.models import load

        model, images = load(tiny), smooth(2, 3, 12, 12)
        samples = []
        watch = BoardWatch(board=Board.here(), flags=lambda: samples.append(1))
        with torch.inference_mode():
            before = model(images)
        result = measure(
            model, images, threads=1, repeats=3, warm_up=1, watch=watch,
            reuse=Reuse(hashes=8, length=8, layers={"shared*": (12, 16)}, kernel="plain"),
        )  # fmt: skip
        assert [each.name for each in result.layers] == ["conv", "shared", "shared#2", "head"]
        assert [each.reused is None for each in result.layers] == [False, False, False, True]
        assert result.layers[0].shapes == "2x3x12x12 -> 2x16x12x12"
        assert len(result.dense.runs_ms) == len(result.layers[1].reused.runs_ms) == 3
        assert result.dense.end_s <= result.reused.start_s  # a meter can tell them apart
        assert 0 < result.error < 1
        assert len(samples) == 2  # before and after
        with torch.inference_mode():
            assert torch.equal(model(images), before)
        assert all("forward" not in vars(module) for module in model.modules())

    def test_reused_network_is_its_reused_layers_in_turn(self, tiny):
        from codesign.boards.measure.timing import _calls, _reused
        from workloads.models import load

        model, images = load(tiny), smooth(1, 3, 12, 12)
        with torch.inference_mode():
            calls = _calls(model, images, Reuse(hashes=6, length=9, kernel="plain"))
            conv, first, second, head = calls
            x = torch.relu(conv.reused(images))
            x = second.reused(torch.relu(first.reused(x)))
            with _reused(calls):
                outputs = model(images), model(images)
            expected = head.module(x.mean((2, 3)))
        assert torch.equal(outputs[0], expected) and torch.equal(outputs[1], expected)


class TestCommand:
    def run(self, capsys, *arguments, code=0):
        assert main([str(each) for each in arguments]) == code
        return capsys.readouterr()

    def test_rows_load_and_power_is_added_to_them(self, tiny, tmp_path, capsys):
        np.save(tmp_path / "images.npy", smooth(4, 3, 12, 12).numpy())
        out, log = tmp_path / "my_pi.csv", tmp_path / "meter.csv"
        log.write_text("time,watts\n100,5\n200,5\n")
        options = ("--model", tiny, "--inputs", tmp_path / "images.npy", "--batch", 2,
                   "--threads", 1, "--repeats", 5, "--warm-up", 1, "--hashes", 6,
                   "--layer", "conv=5,9", "--kernel", "plain", "--device", "Pi 4B",
                   "--out", out)  # fmt: skip
        shown = self.run(capsys, *options, "--power-csv", log, code=2)
        assert "must cover the window 20" in shown.err  # and what was measured is kept
        rows = read_baselines(out)
        assert [(row.layer, bool(row.reuse)) for row in rows] == [
            ("", False), ("", True), ("conv", False), ("conv", True), ("shared", False),
            ("shared", True), ("shared#2", False), ("shared#2", True), ("head", False),
        ]  # fmt: skip
        dense, reused, *_ = rows
        assert (dense.device, dense.threads, dense.input, dense.batch) == ("Pi 4B", 1, "12x12x3", 2)
        assert dense.power_w is None and dense.repeats == 5 and dense.statistic == "median"
        assert dense.source.startswith("codesign measure ") and dense.date in dense.source
        assert "inputs images.npy" in dense.note and dense.model == "tiny.py:Tiny"
        assert reused.framework.endswith(", plain reuse kernel, not compiled")
        assert reused.reuse.startswith("lsh hashes=6 length=8") and "conv=5,9" in reused.reuse
        assert rows[3].reuse.startswith("lsh hashes=5 length=9")
        assert "remaining ratio 0." in rows[3].note
        assert "network" in shown.out and "shared#2" in shown.out

        start = min(window(row)[0] for row in (dense, reused)) - 1
        times = np.linspace(start, start + 10, 100_001)
        for row in (dense, reused):
            times = np.union1d(times, np.linspace(*window(row), 4))
        log.write_text("time,watts\n" + "".join(f"{time:.7f},4\n" for time in times))
        shown = self.run(capsys, "--add-power", "--power-csv", log, "--out", out)
        assert "dense: 4.00 W" in shown.out
        powered = read_baselines(out)
        for row in powered[:2]:
            begin, end = window(row)
            assert row.power_w == pytest.approx(4)
            assert row.energy_mj == pytest.approx(4 * (end - begin) * 1e3 / 5)
            assert row.energy_origin == "measured"
        assert powered[2:] == rows[2:]

    def test_rows_of_others_get_no_power(self, tiny, tmp_path, capsys):
        out = tmp_path / "b.csv"
        self.run(capsys, "--model", tiny, "--no-layers", "--no-reuse", "--repeats", 1, "--out", out)
        (row,) = read_baselines(out)
        assert row.reuse == "" and "nothing is alike" in row.note
        meter = Meter(name="log", times_s=np.array([0.0, 1]), watts=np.ones(2))
        with pytest.raises(ConfigError, match="must tell when a network ran"):
            with_power([replace(row, note="")], meter)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--model", "alexnte"), "did you mean 'alexnet'?"),
            (("--power-csv", "none.csv"), "meter none.csv must be a readable CSV file"),
            (("--add-power",), "--add-power must have a meter's log"),
            (("--inputs", "none.npy"), "--inputs must be a .npy file of numbers, got none.npy"),
            (("--inputs", "double.npy"), "finite float32 numbers, got float64 (2, 3, 12, 12)"),
            (("--inputs", "few.npy", "--batch", "3"), "3 or more images of finite"),
            (("--inputs", "few.npy", "--size", "9"), "--size must stand without --inputs"),
            (("--size", "0"), "--size must be at least 1"),
            (("--inputs", "flat.npy"), "the model must take inputs of shape (1, 7)"),
            (("--threads", "4097"), "threads must be 1 to "),
            (("--repeats", "0"), "repeats must be at least 1, got 0; use 1"),
            (("--hashes", "41"), "1 to 40 hashes"),
            (("--layer", "conv=5"), "--layer must be NAME=H,L or NAME=dense, got 'conv=5'"),
            (("--out", "nowhere/b.csv"), "must be a file in a directory that exists"),
            (("--out", "."), "must be a file in a directory that exists"),
            (("--pack", "measure.zip"), "--pack must name a .pyz file"),
        ],
    )
    def test_wrong_input_is_one_message(
        self, options, message, tiny, tmp_path, capsys, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        np.save("double.npy", np.ones((2, 3, 12, 12)))
        np.save("few.npy", np.ones((2, 3, 12, 12), np.float32))
        np.save("flat.npy", np.ones((2, 7), np.float32))
        given = {"--model": tiny} | dict(zip(options[::2], [*options[1::2], ""], strict=False))
        arguments = [each for pair in given.items() for each in pair if each]
        shown = self.run(capsys, *arguments, code=2)
        assert message in shown.err and shown.err.startswith("Error: ")
        assert shown.out == ""


def window(row):
    from datetime import datetime

    found = row.note.removeprefix("runs ").partition(";")[0].split(" to ")
    return tuple(datetime.fromisoformat(each).timestamp() for each in found)


def on_the_board(code, *arguments, cwd, more="", **variables):
    """Run Python where PyTorch, numpy, what is named and the standard library can be imported."""
    blocker = BLOCKER.format(known=f"{WITH_TORCH} {OURS} {more}".split())
    return subprocess.run(
        [sys.executable, "-c", blocker + code, *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, env=variables,
    )  # fmt: skip


class TestPacked:
    """The packed file, really run, with no variable set but where it unpacks."""

    @pytest.fixture(scope="class")
    def packed(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("pack") / "measure.pyz"
        assert main(["--pack", str(path)]) == 0
        return path

    def run(self, packed, tiny, cwd, *options, more="", cache):
        done = on_the_board(
            f"import runpy; runpy.run_path({str(packed)!r}, run_name='__main__')",
            "--model", tiny, "--repeats", "2", "--threads", "1", "--out", "my_pi.csv", *options,
            cwd=cwd, more=more, SIMILARITY_CODESIGN_CACHE=str(cache),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stderr == "wrote my_pi.csv\n"  # no progress in a pipe
        dense, reused, *_ = read_baselines(cwd / "my_pi.csv")
        assert math.isfinite(dense.latency_ms) and math.isfinite(reused.latency_ms)
        return done, reused

    def test_pytorch_and_numpy_alone_run_the_plain_kernel_and_say_so(self, packed, tiny, tmp_path):
        cache = tmp_path / "new" / "cache"
        done, reused = self.run(packed, tiny, tmp_path, cache=cache)
        assert reused.framework.endswith(", plain reuse kernel, not compiled")
        assert "plain fallback (numba is not on the board)" in done.stdout
        assert "not those of a compiled implementation" in done.stdout
        (folder,) = cache.iterdir()
        assert folder.name.startswith("measure-")

    def test_with_numba_the_compiled_kernels_run_and_stay_compiled(self, packed, tiny, tmp_path):
        cache = tmp_path / "cache"
        compiled = []
        for _ in range(2):
            done, reused = self.run(packed, tiny, tmp_path, more="numba llvmlite", cache=cache)
            assert reused.framework.endswith(", numba reuse kernel")
            assert "plain" not in done.stdout
            compiled.append({path: path.stat().st_mtime_ns for path in cache.rglob("*.nbc")})
        assert compiled[0] and compiled[0] == compiled[1]

    def test_where_nothing_can_be_kept_it_runs_from_a_temporary_folder(
        self, packed, tiny, tmp_path
    ):
        cache = tmp_path / "cache"
        cache.write_text("a file")
        _, reused = self.run(packed, tiny, tmp_path, "--no-layers", cache=cache)
        assert reused.framework.endswith(", plain reuse kernel, not compiled")

    def test_contents_decide_the_folder(self, packed, tmp_path, monkeypatch):
        monkeypatch.setenv("SIMILARITY_CODESIGN_CACHE", str(tmp_path))
        first = unpacked(packed)
        assert unpacked(packed) == first and first.parent == tmp_path
        other = tmp_path / "other.pyz"
        with zipfile.ZipFile(other, "w") as made:
            made.writestr("__main__.py", "")
        assert unpacked(other) != first and (unpacked(other) / "__main__.py").is_file()
        assert len(list(tmp_path.iterdir())) == 3  # nothing else is left


def test_the_compiled_kernel_is_refused_where_it_cannot_run(monkeypatch):
    monkeypatch.setattr("codesign.boards.measure.reused.why_plain", lambda: "no numba")
    with pytest.raises(ConfigError, match=r"kernel must be 'plain' where .*: no numba; install"):
        Reuse(hashes=4, length=4, kernel="numba")
    assert Reuse(hashes=4, length=4).kernel == "plain"


def test_command_line_measures_where_the_rest_cannot_be_imported():
    done = on_the_board(
        "import sys; sys.argv[1:] = ['measure', '--model', 'nothing']\n"
        "from codesign.__main__ import main; main()",
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: model must be one of"), done.stderr
    assert utc(0) == "1970-01-01T00:00:00.000000Z"
