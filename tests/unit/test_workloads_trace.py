"""A trace on disk is exactly what was written, or an error that says what is wrong with it."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from workloads import Convolution, Gemm, Layer, TraceError, WorkloadTrace
from workloads.traces.files import TraceFiles, TraceWriter

CONV = Layer(
    name="conv",
    kind="conv",
    gemm=Gemm(m=2 * 9, n=4, k=12),
    images=2,
    row_images=2,
    convolution=Convolution(kernel=(2, 2), stride=(1, 1), padding=(0, 0), dilation=(1, 1)),
    input_shape=(2, 3, 4, 4),
    output_shape=(2, 4, 3, 3),
    weights_are_parameters=True,
)
FC = Layer(
    name="fc",
    kind="linear",
    gemm=Gemm(m=2, n=5, k=36),
    images=2,
    row_images=2,
    input_shape=(2, 36),
    output_shape=(2, 5),
    weights_are_parameters=True,
)
RANDOM = np.random.default_rng(0)
DATA = {
    "conv": (RANDOM.standard_normal((2, 3, 4, 4)), RANDOM.standard_normal((4, 3, 2, 2))),
    "fc": (RANDOM.standard_normal((1, 2, 36)), RANDOM.standard_normal((1, 36, 5))),
}
IDS = np.arange(6).reshape(2, 3)


def write(directory: Path) -> Path:
    directory.mkdir(parents=True)
    writer = TraceWriter(directory)
    for layer in (CONV, FC):
        stored_input, stored_weight = DATA[layer.name]
        writer.add(layer, stored_input=stored_input, stored_weight=stored_weight)
    writer.add_inputs([IDS, np.float32(3)], np.eye(2, dtype=np.float16), np.array([1, 0]))
    writer.finish([("conv", "fc")], images=2, provenance={"model": "test", "seed": None})
    return directory


@pytest.fixture
def saved(tmp_path) -> Path:
    return write(tmp_path / "trace")


def test_round_trip_is_exact(saved, tmp_path):
    trace = WorkloadTrace.load(saved)
    copied = WorkloadTrace.load(trace.save(tmp_path / "deep" / "copy") / "trace.json")
    for one in (trace, copied):
        assert one.layers == (CONV, FC) and len(one) == 2 and one.images == 2
        assert list(one.graph.edges) == [("conv", "fc")]
        assert one.provenance == {"model": "test", "seed": None}
        assert one.macs == 2 * 9 * 4 * 12 + 2 * 5 * 36
        assert one.layer("fc") == FC
        assert (one.inputs[0] == IDS).all() and one.inputs[0].dtype == IDS.dtype
        assert one.inputs[1].shape == () and one.inputs[1] == 3
        assert one.outputs.dtype == np.float16 and (one.labels == [1, 0]).all()
        for name, (stored_input, stored_weight) in DATA.items():
            tensors = one.files.read(f"layers/{['conv', 'fc'].index(name):04d}.safetensors")
            assert (tensors["input"] == stored_input.astype(np.float32)).all()
            assert (tensors["weight"] == stored_weight.astype(np.float32)).all()
        assert (one.rows("fc") == DATA["fc"][0].astype(np.float32)).all()
        assert (one.weights("fc") == DATA["fc"][1].astype(np.float32)).all()
    assert [p.name for p in tmp_path.iterdir()] == ["trace", "deep"]
    assert "2 layers, 2 images" in repr(trace)


@pytest.mark.parametrize("order", ["channels_first", "channels_last"])
def test_rows_and_weights_multiply_to_the_convolution(saved, order):
    trace = WorkloadTrace.load(saved)
    rows, weights = trace.rows("conv", order=order), trace.weights("conv", order=order)
    result = rows[0] @ weights[0]
    images, kernel = (x.astype(np.float32) for x in DATA["conv"])
    for b, y, x in np.ndindex(2, 3, 3):
        patch = images[b, :, y : y + 2, x : x + 2]
        expected = (patch[None] * kernel).sum((1, 2, 3))
        np.testing.assert_allclose(result[b * 9 + y * 3 + x], expected, rtol=1e-5, atol=1e-5)


def test_a_pickled_trace_reads_the_same_files(saved):
    trace = WorkloadTrace.load(saved)
    trace.rows("fc")
    copied = pickle.loads(pickle.dumps(trace))
    assert copied.layers == trace.layers and (copied.rows("conv") == trace.rows("conv")).all()


def test_unknown_layer(saved):
    with pytest.raises(TraceError, match="no layer 'fc2'; use one of conv, fc"):
        WorkloadTrace.load(saved).rows("fc2")
    with pytest.raises(TraceError, match="order must be one of"):
        WorkloadTrace.load(saved).weights("fc", order="CHW")


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        ("delete", "must exist"),
        ("truncate", "bytes, got .*truncated"),
        ("grow", "bytes, got"),
        ("flip", "CRC-32 .*corrupted"),
    ],
)
@pytest.mark.parametrize("name", ["layers/0001.safetensors", "inputs.safetensors"])
def test_damaged_tensors(saved, damage, rule, name):
    path = saved / name
    data = bytearray(path.read_bytes())
    if damage == "delete":
        path.unlink()
    else:
        if damage == "truncate":
            data = data[:-7]
        elif damage == "grow":
            data += b"\0"
        else:
            data[-3] ^= 1
        path.write_bytes(data)
    with pytest.raises(TraceError, match=rule) as caught:
        trace = WorkloadTrace.load(saved)
        trace.rows("conv")  # the other layer is whole
        trace.rows("fc")
    assert str(path) in str(caught.value) and "restore the file" in str(caught.value)


def change(path: Path, **values: object) -> None:
    description = json.loads((path / "trace.json").read_text())
    (path / "trace.json").write_text(json.dumps({**description, **values}))


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"format_version": 2}, "format_version must be 1, got 2"),
        ({"format": "other"}, "format must be"),
        ({"layers": None}, "layers must be of type list"),
        ({"layers": []}, "WorkloadTrace.layers must hold a layer"),
        ({"layers": [CONV.to_dict()] * 2}, "different names, got conv"),
        ({"layers": [{**CONV.to_dict(), "images": 0}]}, "images must be a whole number"),
        ({"layers": [7]}, "Layer must have the fields"),
        ({"edges": [["fc", "conv"]]}, "in the order of their calls"),
        ({"edges": [["conv", "lost"]]}, "in the order of their calls"),
        ({"edges": [["conv"]]}, "must describe a trace"),
        ({"files": {"../../secret": {"bytes": 1, "crc32": 1}}}, "trace's own files"),
        ({"files": {"layers/0000.safetensors": {"bytes": "1"}}}, "trace's own files"),
    ],
)
def test_damaged_description(saved, values, rule):
    change(saved, **values)
    with pytest.raises(TraceError, match=rule) as caught:
        WorkloadTrace.load(saved)
    assert str(saved / "trace.json") in str(caught.value)


def test_unreadable_description(saved, tmp_path):
    path = saved / "trace.json"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(TraceError, match=rf"{path} must be JSON, got a damaged"):
        WorkloadTrace.load(saved)
    path.write_text("[1]")
    with pytest.raises(TraceError, match="format must be"):
        WorkloadTrace.load(saved)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TraceError, match="must be JSON"):
        WorkloadTrace.load(saved)
    with pytest.raises(TraceError, match="must exist and be readable"):
        WorkloadTrace.load(tmp_path / "nothing")


def test_description_that_disagrees_with_the_tensors(saved):
    wider = {**FC.to_dict(), "gemm": {"m": 2, "n": 5, "k": 35, "count": 1}, "input_shape": [2, 35]}
    change(saved, layers=[CONV.to_dict(), wider])
    with pytest.raises(TraceError, match=r"0001.safetensors must hold .* for layer 'fc', got"):
        WorkloadTrace.load(saved).rows("fc")


def test_saving_replaces_only_traces(saved, tmp_path):
    trace = WorkloadTrace.load(saved)
    with pytest.raises(TraceError, match="must not exist, got a trace; pass overwrite=True"):
        trace.save(saved)
    assert trace.save(saved, overwrite=True) == saved  # even itself
    assert WorkloadTrace.load(saved).layers == trace.layers
    other = tmp_path / "other"
    other.mkdir()
    trace.save(other)  # empty
    (other / "trace.json").unlink()
    with pytest.raises(TraceError, match="must be a trace to be replaced"):
        trace.save(other, overwrite=True)
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(TraceError, match="must be a directory or not exist, got a file"):
        trace.save(file, overwrite=True)
    assert file.read_text() == "mine" and sorted(os.listdir(tmp_path)) == ["file", "other", "trace"]


def test_a_damaged_trace_is_not_saved(saved, tmp_path):
    trace = WorkloadTrace.load(saved)
    (saved / "layers" / "0000.safetensors").unlink()
    with pytest.raises(TraceError, match=r"0000.safetensors must exist"):
        trace.save(tmp_path / "copy")
    assert not (tmp_path / "copy").exists() and os.listdir(tmp_path) == ["trace"]


def test_shapes_alone(tmp_path):
    trace = WorkloadTrace.from_gemms(
        [
            ("a", Gemm(m=8, n=4, k=2)),
            ("b", Gemm(m=8, n=4, k=4, count=3)),
            ("c", Gemm(m=1, n=1, k=1)),
        ]
    )
    copied = WorkloadTrace.load(trace.save(tmp_path / "shapes"))
    for one in (trace, copied):
        assert one.macs == 8 * 4 * 2 + 3 * 8 * 4 * 4 + 1
        assert list(one.graph.edges) == [("a", "b"), ("b", "c")]
        assert list(nx.topological_sort(one.graph)) == ["a", "b", "c"]
        assert one.inputs is one.outputs is one.labels is None
        assert one.layer("b").output_shape == (3, 8, 4)
        for read in (one.rows, one.weights):
            with pytest.raises(TraceError, match=r"layer 'b' must have tensors .*; capture"):
                read("b")
    with pytest.raises(TraceError, match="different names, got a"):
        WorkloadTrace.from_gemms([("a", Gemm(m=1, n=1, k=1))] * 2)
    with pytest.raises(TraceError, match="must hold a layer, got none"):
        WorkloadTrace.from_gemms([])


def test_provenance_must_be_json(tmp_path):
    writer = TraceWriter(tmp_path)
    with pytest.raises(TraceError, match=r"must hold JSON values: .* in \['model'\]"):
        writer.finish([], images=1, provenance={"model": object()}, layers=[FC])


def test_only_the_last_layer_stays_in_memory(saved):
    files = TraceFiles(saved)
    first = files.read("layers/0000.safetensors", keep=True)
    assert files.read("layers/0000.safetensors") is first
    files.read("layers/0001.safetensors", keep=True)
    assert files.read("layers/0000.safetensors") is not first


def test_reading_a_trace_needs_no_pytorch(saved):
    script = f"""
import sys
import workloads
assert "WorkloadTrace" in dir(workloads) and "capture" in dir(workloads)
trace = workloads.WorkloadTrace.load({str(saved)!r})
for layer in trace.layers:
    trace.rows(layer.name), trace.weights(layer.name)
assert not [name for name in sys.modules if name.split(".")[0] == "torch"]
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_everything_exported_is_there():
    import workloads

    for name in workloads.__all__:
        value = getattr(workloads, name)
        assert callable(value) and getattr(workloads, name) is value, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        workloads.nothing  # noqa: B018


def test_a_trace_of_the_first_format_is_read_as_it_was_written(tmp_path):
    """Commit 39818d7 captured this quantised network: see `data/SOURCES.md`."""
    old = Path(__file__).parent / "data" / "trace_of_39818d7"
    trace = WorkloadTrace.load(old)
    assert [(layer.name, layer.kind) for layer in trace.layers] == [
        ("conv", "conv"),
        ("fc", "linear"),
    ]
    assert trace.labels.tolist() == [0, 2] and trace.outputs.shape == (2, 3)
    for layer in trace.layers:
        steps = layer.quantisation.steps(trace.rows(layer.name))
        assert np.array_equal(steps * np.float32(layer.quantisation.scale), trace.rows(layer.name))
    files = sorted(path.relative_to(old) for path in old.rglob("*.*"))
    again = trace.save(tmp_path / "again")
    assert [(again / file).read_bytes() for file in files] == [
        (old / file).read_bytes() for file in files
    ]
