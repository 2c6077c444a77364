"""Whatever a saved trace holds, it is read as it is said to be, or refused with one TraceError."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from accelerators import ConfigError, preset
from simulator import LshReuse, StreamMemory, decide, load_memory, save_memory, simulate
from tests.fuzzing import mutate_bytes, mutate_json
from workloads import Convolution, Gemm, Layer, TraceError, WorkloadTrace
from workloads.errors import LONGEST_MESSAGE, plain
from workloads.traces.files import TraceWriter
from workloads.traces.layer import Quantisation

DESIGN = preset("reuse_16x16")
POLICY = LshReuse(hashes=4, length=3)
RANDOM = np.random.default_rng(0)
FLAT = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}


def product(name: str, kind: str, count: int, m: int, n: int, k: int, **more: Any) -> Layer:
    batched = (count,) if count > 1 or kind.startswith("attention") else ()
    return Layer(
        name=name,
        kind=kind,
        gemm=Gemm(m=m, n=n, k=k, count=count),
        images=2,
        row_images=more.pop("row_images", 2),
        input_shape=(*batched, m, k),
        output_shape=(*batched, m, n),
        weights_are_parameters=kind == "linear",
        **more,
    )


# A layer of every kind, with the shape of its weights as they are stored.
LAYERS = {
    Layer(
        name="conv",
        kind="conv",
        gemm=Gemm(m=18, n=2, k=8, count=2),
        images=2,
        row_images=2,
        convolution=Convolution(kernel=(2, 2), groups=2, **FLAT),
        input_shape=(2, 4, 4, 4),
        output_shape=(2, 4, 3, 3),
        weights_are_parameters=True,
    ): (4, 2, 2, 2),
    Layer(
        name="up",
        kind="conv_transpose",
        gemm=Gemm(m=18, n=12, k=4),
        images=2,
        row_images=2,
        convolution=Convolution(kernel=(2, 2), **FLAT | {"stride": (2, 2)}),
        input_shape=(2, 4, 3, 3),
        output_shape=(2, 3, 6, 7),
        weights_are_parameters=True,
    ): (4, 3, 2, 2),
    product("fc", "linear", 1, 8, 3, 6, quantisation=Quantisation(scale=0.5, zero_point=3)): (
        1,
        6,
        3,
    ),
    product("mix", "matmul", 1, 8, 3, 6): (1, 6, 3),
    product("heads", "batched_matmul", 4, 5, 3, 6, row_images=1): (4, 6, 3),
    product("attn.scores", "attention_scores", 4, 5, 5, 6, row_images=1): (4, 6, 5),
    product("attn.values", "attention_values", 4, 5, 6, 5, row_images=1): (4, 5, 6),
}
NAMES = [layer.name for layer in LAYERS]


def write(directory: Path) -> Path:
    directory.mkdir()
    writer = TraceWriter(directory)
    for layer, weight in LAYERS.items():
        given = layer.input_shape if layer.convolution else (
            layer.gemm.count, layer.gemm.m, layer.gemm.k,
        )  # fmt: skip
        values = RANDOM.standard_normal(given)
        if layer.quantisation is not None:
            values = np.rint(values) * layer.quantisation.scale
        writer.add(layer, stored_input=values, stored_weight=RANDOM.standard_normal(weight))
    writer.add_inputs([np.ones((2, 4))], np.eye(2), np.array([1, 0]))
    edges = list(pairwise(NAMES))
    provenance = {
        "model": "test.Net",
        "seed": 0,
        "input_dtypes": ["float64"],
        "versions": {"numpy": "2"},
        "zero_weights": {"fc": 0.25},
        "score": "accuracy",
        "classes": ["a", "b"],
        "precision": "float32",
    }
    writer.finish(edges, images=2, provenance=provenance)
    return directory


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("whole") / "trace")


@pytest.fixture(scope="module")
def saved(whole) -> Path:
    """A trace to be changed; `restored` undoes it."""
    path = whole.with_name("changed")
    shutil.copytree(whole, path)
    return path


@pytest.fixture(autouse=True)
def restored(whole, saved):
    yield
    shutil.rmtree(saved)
    shutil.copytree(whole, saved)


def use(path: Path, *, simulated: bool = True) -> None:
    """All that a user does with a trace; a simulation takes the longest."""
    trace = WorkloadTrace.load(path)
    for layer in trace.layers:
        for order in ("channels_first", "channels_last"):
            rows, weights = trace.rows(layer.name, order=order), trace.weights(layer.name)
            assert rows.shape == (layer.gemm.count, layer.gemm.m, layer.gemm.k)
            assert weights.shape == (layer.gemm.count, layer.gemm.k, layer.gemm.n)
            assert rows.dtype == weights.dtype == np.float32
            assert np.isfinite(rows).all() and np.isfinite(weights).all()
    run = decide(trace, POLICY)
    if not simulated:
        return
    report = simulate(trace, DESIGN, run)
    assert all(design["images"] == trace.images for design in report.to_dict()["designs"].values())
    json.dumps(report.to_dict(), allow_nan=False)


def attempt(path: Path, what: object, *, simulated: bool = True) -> str | None:
    """The message of a refusal, None where the trace is taken; any other error is a failure."""
    try:
        use(path, simulated=simulated)
    except (TraceError, ConfigError) as error:
        message = plain(str(error))
        assert str(path) in message or isinstance(error, ConfigError), message
        assert len(message) <= LONGEST_MESSAGE
        message.encode()
        return message
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__} is no TraceError") from error
    return None


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the description."""
    description = json.loads((path / "trace.json").read_text())
    edit(description)
    (path / "trace.json").write_text(json.dumps(description))


def replace(path: Path, name: str, data: bytes) -> None:
    """Another file, with its size and checksum in the description."""
    (path / name).write_bytes(data)
    digest = {"bytes": len(data), "crc32": zlib.crc32(data)}
    change(path, lambda trace: trace["files"].update({name: digest}))


def test_a_trace_of_every_kind_of_layer_is_taken(saved):
    assert attempt(saved, "whole") is None


def mutate_descriptions(saved: Path, seeds: range) -> int:
    """How many of the mutated descriptions are refused."""
    whole = json.loads((saved / "trace.json").read_text())
    refused = 0
    for seed in seeds:
        mutated = mutate_json(whole, Random(seed))
        (saved / "trace.json").write_text(json.dumps(mutated))
        refused += attempt(saved, f"seed {seed}", simulated=seed % 4 == 0) is not None
    return refused


def test_mutated_descriptions(saved):
    assert mutate_descriptions(saved, range(80)) > 40


@pytest.mark.slow
def test_many_mutated_descriptions(saved):
    mutate_descriptions(saved, range(1000, 5000))


def mutate_files(whole: Path, saved: Path, seeds: range) -> None:
    files = ["trace.json", *json.loads((whole / "trace.json").read_text())["files"]]
    for seed in seeds:
        random = Random(seed)
        name = random.choice(files)
        data = mutate_bytes((whole / name).read_bytes(), random)
        known = random.random() < 0.7 and name != "trace.json"
        if known:
            replace(saved, name, data)
        else:
            (saved / name).write_bytes(data)
        message = attempt(saved, f"seed {seed} {name}", simulated=seed % 4 == 0)
        if not known and name.startswith("layers") and data != (whole / name).read_bytes():
            assert message is not None
        for changed in (name, "trace.json"):
            shutil.copyfile(whole / changed, saved / changed)


def test_mutated_files(whole, saved):
    mutate_files(whole, saved, range(80))


@pytest.mark.slow
def test_many_mutated_files(whole, saved):
    mutate_files(whole, saved, range(1000, 5000))


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        (lambda t: t.update(images=0), "images must be a whole number of at least 1, got 0"),
        (lambda t: t.update(images=-1), "images must be a whole number of at least 1, got -1"),
        (lambda t: t.update(images=True), "images must be a whole number of at least 1, got True"),
        (lambda t: t.update(images=7), "images=7 must be that of every layer, got 2"),
        (lambda t: t.update(images=10**30), "images must be a whole number of at most"),
        (lambda t: t.update(format_version=True), "format_version must be 1, got True"),
        (lambda t: t["layers"][0].update(images=4, row_images=1), "images=2 must be that of every"),
        (lambda t: t["layers"][0].update(images=10**30), "images must be a whole number"),
        (lambda t: t["layers"][0].update(row_images=3), "row_images must be images=2 or 1, got 3"),
        (lambda t: t["layers"][2].update(weights_are_parameters="no"), "must be True or False"),
        (lambda t: t["layers"][2].update(weights_are_parameters=1), "must be True or False"),
        (lambda t: t["layers"][2].update(input_shape=[8, 7]), "input_shape must hold .* = 48 el"),
        (lambda t: t["layers"][4].update(output_shape=[5, 3]), "output_shape must hold .* = 60"),
        (lambda t: t["layers"][0].update(output_shape=[3, 4, 3, 3]), "gemm .* must be"),
        (lambda t: t["layers"][1].update(output_shape=[2, 3, 6, 8]), "gemm .* must be"),
        (lambda t: t["layers"][1].update(output_shape=[2, 3, 5, 6]), "gemm .* must be"),
        (lambda t: t["layers"][0]["convolution"].update(stride=1), "stride must be one to three"),
        (lambda t: t["layers"][0]["convolution"].update(padding=[2**40, 0]), "at most 16777216"),
        (lambda t: t["layers"][2]["gemm"].update(n=10**30), "n must be a whole number of at most"),
        (lambda t: t["layers"][2].update(name="a\udc80"), "name must be a non-empty text"),
        (lambda t: t["layers"][2]["quantisation"].update(scale=1e-300), "scale must be a finite"),
        (lambda t: t["edges"].append("co"), "pairs of layer names"),
        (lambda t: t["edges"].append([1, 2]), "pairs of layer names"),
        (lambda t: t["files"].pop("layers/0003.safetensors"), "one of each of the 7 layers"),
        (lambda t: t["files"].update({"layers/0009.safetensors": DIGEST}), "one of each of the 7"),
        (lambda t: t["files"].update({"/etc/passwd": DIGEST}), "trace's own files"),
        (lambda t: t["files"].update({"layers/../../x": DIGEST}), "trace's own files"),
        (lambda t: t["files"].update({"layers\\0009.safetensors": DIGEST}), "trace's own files"),
        (lambda t: t["files"]["inputs.safetensors"].update(bytes=True), "trace's own files"),
        (lambda t: t["files"]["inputs.safetensors"].update(crc32=-1), "trace's own files"),
        (lambda t: t["provenance"].update(note=[[[]]] * 2, seed=10**40), "integers below 2.64"),
        (lambda t: t["provenance"].update(classes=5), "provenance.classes must be a list of texts"),
        (lambda t: t["provenance"].update(input_dtypes=[]) or t["provenance"].update(
            input_dtypes=["float32"] * 3), "input_dtypes must be of the 1 inputs"),
        (lambda t: t["provenance"].update(zero_weights={"fc": 2}), "a number from 0 to 1 for each"),
    ],
)  # fmt: skip
def test_an_edited_description_is_refused_with_its_rule(saved, edit, rule):
    change(saved, edit)
    with pytest.raises(TraceError, match=rule) as caught:
        use(saved)
    assert str(saved / "trace.json") in str(caught.value)


DIGEST = {"bytes": 1, "crc32": 1}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "must be JSON, got a damaged"),
        (b"[" * 5000, "must be JSON, got a damaged .*nested too deep"),
        (b'{"a": ' * 5000, "must be JSON, got a damaged .*nested too deep"),
        (b"9" * 5000, "must be JSON, got a damaged"),
        (b'{"format": NaN}', "NaN is no JSON"),
        (b'{"format": 1, "format": 2}', "the key 'format' stands twice"),
        ("{}".encode("utf-16"), "must be JSON, got a damaged"),
        (b"\x1f\x8b\x08\x00", "must be JSON, got a damaged"),
        (b"null", "format must be"),
    ],
    ids=["empty", "lists", "dicts", "digits", "nan", "twice", "utf-16", "gzip", "null"],
)
def test_a_description_that_is_no_plain_json(saved, content, rule):
    (saved / "trace.json").write_bytes(content)
    with pytest.raises(TraceError, match=rule) as caught:
        WorkloadTrace.load(saved)
    assert len(str(caught.value)) < 600


def test_nested_provenance_is_refused(saved):
    for depth in (40, 400, 5000):
        text = json.dumps(json.loads((saved / "trace.json").read_text()))
        nest = "[" * depth + "]" * depth
        (saved / "trace.json").write_text(text.replace('"test.Net"', nest))
        with pytest.raises(TraceError, match="JSON"):
            WorkloadTrace.load(saved)
        shutil.copyfile(saved.with_name("trace") / "trace.json", saved / "trace.json")


def test_a_byte_order_mark_is_no_damage(saved):
    path = saved / "trace.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert attempt(saved, "mark") is None


@pytest.mark.parametrize("kind", ["bool", "int8", "float16", "float64", "uint8", "int32"])
def test_tensors_of_another_type_are_refused(saved, kind):
    for name in ("layers/0000.safetensors", "layers/0006.safetensors"):
        tensors = load_tensors((saved / name).read_bytes())
        replace(saved, name, save_tensors({k: v.astype(kind) for k, v in tensors.items()}))
        with pytest.raises(TraceError, match=f"must hold finite float32 tensors, got {kind}"):
            use(saved)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_tensors_that_are_not_finite_are_refused(saved, value):
    name = "layers/0002.safetensors"
    tensors = {k: v.copy() for k, v in load_tensors((saved / name).read_bytes()).items()}
    tensors["weight"].flat[3] = value
    replace(saved, name, save_tensors(tensors))
    with pytest.raises(TraceError, match="must hold finite float32 tensors, got NaN or infinity"):
        use(saved)


def test_a_product_that_overflows_is_refused(saved):
    name = "layers/0003.safetensors"
    tensors = load_tensors((saved / name).read_bytes())
    replace(saved, name, save_tensors({k: np.full_like(v, 1e25) for k, v in tensors.items()}))
    with pytest.raises(ConfigError, match="layer 'mix' must have a finite product"):
        use(saved)


@pytest.mark.parametrize("name", ["trace.json", "layers/0000.safetensors", "inputs.safetensors"])
@pytest.mark.parametrize("kind", ["directory", "pipe", "device", "loop"])
def test_what_is_no_file_ends_at_once(saved, name, kind):
    path = saved / name
    path.unlink()
    match kind:
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path.name)
    with pytest.raises(TraceError, match="must exist"):
        use(saved)


def test_a_file_that_is_another_trace_s_layer_is_refused(saved):
    replace(saved, "layers/0000.safetensors", (saved / "layers/0001.safetensors").read_bytes())
    with pytest.raises(TraceError, match=r"must hold .* for layer 'conv', got"):
        use(saved)


def test_a_damaged_memory_of_a_stream_is_refused(tmp_path):
    trace = WorkloadTrace.load(write(tmp_path / "trace"))
    linear = [layer for layer in trace.layers if layer.kind == "conv"]
    policy = LshReuse(hashes=4, length=3, scope="stream", thresholds="zero")
    rows = trace.rows(linear[0].name)
    _, table = policy.decide_next(linear[0], rows, {}, None)
    path = tmp_path / "memory"
    save_memory(
        StreamMemory(policy=policy.describe(), states={"conv": {}}, tables={"conv": table}), path
    )
    data = path.read_bytes()
    assert load_memory(path).tables["conv"].keys() == table.keys()
    for seed in range(300):
        path.write_bytes(mutate_bytes(data, Random(seed)))
        try:
            memory = load_memory(path)
            policy.decide_next(linear[0], rows, {}, memory.tables["conv"])
        except (ConfigError, KeyError) as error:
            assert isinstance(error, ConfigError) or error.args == ("conv",), seed


def test_the_decisions_of_an_accepted_trace_are_those_of_the_original(saved, whole):
    """What a mutation leaves untouched is read as before."""
    change(saved, lambda trace: trace["provenance"].update(note="mine"))
    first, second = (decide(WorkloadTrace.load(path), POLICY) for path in (whole, saved))
    assert first.relative_mse == second.relative_mse
