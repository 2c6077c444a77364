"""A captured model is its products, their tensors and the way data takes between them."""

from __future__ import annotations

import gc
import math
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from workloads import CifarNet, TraceError, WorkloadTrace, capture, run_with
from workloads.capturing.replaying import replay


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


class Residual(nn.Module):
    """Two branches, in-place operations, a view, a concatenation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.short = nn.Conv2d(4, 4, 1)
        self.side = nn.Linear(3, 4)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        side = self.side(x.mean((2, 3)))
        x = F.relu(self.stem(x), inplace=True)
        y = self.conv2(F.relu(self.bn(self.conv1(x))))
        y += self.short(x)
        y.relu_()
        return self.fc(torch.cat([y.flatten(2).mean(2), side], 1))


EDGES = {
    ("stem", "conv1"),
    ("conv1", "conv2"),
    ("stem", "short"),
    ("conv2", "fc"),
    ("short", "fc"),
    ("side", "fc"),
}


@pytest.mark.parametrize("grad", [True, False])
def test_edges_of_a_residual_block(grad):
    with torch.set_grad_enabled(grad):
        trace = capture(Residual(), randn(2, 3, 6, 6))
    assert set(trace.graph.edges) == EDGES
    assert [layer.name for layer in trace.layers] == [
        "side",
        "stem",
        "conv1",
        "conv2",
        "short",
        "fc",
    ]


class TwoBranches(nn.Module):
    """Attention over what one branch wrote into a buffer, of keys from the other."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out = nn.Linear(8, 8)

    def forward(self, x):
        kv = torch.zeros(2, *x.shape)
        kv[0] = self.k(x)
        q, v = self.q(x), self.v(x)
        return x + self.out(F.scaled_dot_product_attention(*(y[:, None] for y in (q, kv[0], v))))


def test_edges_of_attention_and_of_buffers():
    trace = capture(TwoBranches(), randn(3, 5, 8))
    assert set(trace.graph.edges) == {
        ("q", "attention.scores"),
        ("k", "attention.scores"),
        ("attention.scores", "attention.values"),
        ("v", "attention.values"),
        ("attention.values", "out"),
    }


def test_transformer_and_recurrent_layers_are_chained():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    edges = set(capture(layer, randn(2, 5, 8)).graph.edges)
    assert {("self_attn", "self_attn.scores"), ("self_attn", "self_attn.values")} <= edges
    assert ("linear1", "linear2") in edges and ("self_attn.out_proj", "linear1") in edges
    assert ("self_attn", "linear1") not in edges
    trace = capture(nn.LSTM(8, 4, batch_first=True), randn(2, 3, 8))
    assert ("lstm", "lstm#2") not in trace.graph.edges and len(trace) == 4


def recompute(trace: WorkloadTrace, model: nn.Module) -> torch.Tensor:
    """Run a model with the trace's matrices in place of its own."""

    def on_gemm(call):
        return call.from_result(trace.rows(call.layer.name) @ trace.weights(call.layer.name))

    with torch.no_grad():
        return run_with(model, trace.inputs, on_gemm)


def test_cifarnet_is_reproduced_from_its_trace(tmp_path):
    torch.manual_seed(0)
    model, x = CifarNet(), randn(4, 3, 32, 32)
    trace = capture(model, x, path=tmp_path / "trace", labels=[1, 2, 3, 4], source="noise", seed=7)
    with torch.no_grad():
        expected = model.eval()(x)
    np.testing.assert_array_equal(trace.outputs, expected.numpy())
    # float32 sums of up to 4096 terms in another order
    torch.testing.assert_close(recompute(trace, model), expected, rtol=1e-4, atol=1e-4)
    loaded = WorkloadTrace.load(tmp_path / "trace")
    assert loaded.layers == trace.layers and list(loaded.graph.edges) == list(trace.graph.edges)
    for layer in trace.layers:
        assert layer.row_images == 4
        for read in ("rows", "weights"):
            np.testing.assert_array_equal(
                getattr(loaded, read)(layer.name), getattr(trace, read)(layer.name)
            )
    conv2 = trace.layer("conv2").gemm
    assert (conv2.m, conv2.k, conv2.n) == (4 * 256, 1600, 64)
    assert (loaded.labels == [1, 2, 3, 4]).all()
    assert loaded.provenance["source"] == "noise" and loaded.provenance["seed"] == 7
    assert loaded.provenance["model"].endswith("CifarNet")
    assert loaded.provenance["versions"]["torch"] == torch.__version__
    assert os.listdir(tmp_path) == ["trace"]


def test_model_and_inputs_are_left_as_they_were():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.bn, self.fc = nn.Dropout(), nn.BatchNorm1d(8), nn.Linear(8, 2)

        def forward(self, x):
            return self.fc(self.bn(self.drop(x.relu_())))

    model, x = InPlace().train(), randn(5, 8)
    model.bn.eval()
    before, state = x.clone(), {k: v.clone() for k, v in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = torch.random.get_rng_state()
    trace = capture(model, x, seed=3)
    assert torch.equal(x, before) and (trace.inputs[0] == before.numpy()).all()
    assert torch.equal(torch.random.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert not nn.modules.module._global_forward_pre_hooks
    assert not nn.modules.module._global_forward_hooks


def test_seed_reproduces_random_operations():
    def model(x):
        return F.dropout(x, 0.5, training=True) @ x.T

    first, second = capture(model, randn(5, 8), seed=1), capture(model, randn(5, 8), seed=1)
    assert (first.rows("matmul") == second.rows("matmul")).all()
    assert (first.rows("matmul") != capture(model, randn(5, 8), seed=2).rows("matmul")).any()


def test_scratch_goes_with_the_trace():
    trace = capture(nn.Linear(8, 4), randn(5, 8))
    directory = Path(trace.files.directory)
    assert directory.is_dir()
    layers = trace.layers
    del trace
    gc.collect()
    assert not directory.exists() and layers


class Deep(nn.Module):
    """`depth` layers, each with `width` x `width` weights of its own and a new activation."""

    def __init__(self, depth: int, width: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(depth))
        self.live: list[int] = []

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).relu()
            own = {id(p) for p in self.parameters()}
            tensors = (t for t in gc.get_objects() if type(t) is torch.Tensor)
            seen = {t.untyped_storage().data_ptr(): t.nbytes for t in tensors if id(t) not in own}
            self.live.append(sum(seen.values()))
        return x


def test_memory_is_bounded_by_the_largest_layer():
    """30 layers of 1 MiB of activations: never more than a few are alive, in torch or numpy."""
    depth, width, length = 30, 64, 4096
    layer_bytes = 4 * width * length
    model, x = Deep(depth, width), randn(1, width, length)
    small = capture(Deep(1, 4), randn(1, 4, 8))
    small.rows(small.layers[0].name)  # what is imported and compiled at first use does not count
    gc.collect()
    tracemalloc.start()
    trace = capture(model, x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # inputs, the model's copy of them, input and result of the running layer and of relu
    assert max(model.live) - model.live[0] <= 2 * layer_bytes
    assert max(model.live) <= 6 * layer_bytes
    # numpy: the file of inputs and outputs (2 layers) is read whole, then parsed; as much again for
    # what other threads and first uses allocate meanwhile. All layers would be 30.
    assert peak < 8 * layer_bytes
    stored = sum(f.stat().st_size for f in trace.files.directory.rglob("*.safetensors"))
    assert stored > depth * layer_bytes  # and yet everything is there
    tracemalloc.start()
    for layer in trace.layers:
        trace.rows(layer.name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * layer_bytes


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite_values_name_the_layer(value, tmp_path):
    model, x = Residual(), randn(2, 3, 6, 6)
    x[0, 0, 0, 0] = value
    with pytest.raises(TraceError, match=r"layer 'side' must have a finite input, got . NaN and"):
        capture(model, x, path=tmp_path / "trace")
    assert os.listdir(tmp_path) == []
    with torch.no_grad():
        model.conv2.weight[0, 0, 0, 0] = value
    nans, infinities = (1, 0) if math.isnan(value) else (0, 1)
    with pytest.raises(
        TraceError,
        match=rf"layer 'conv2' must have a finite weight, got {nans} NaN and {infinities} infinite "
        r"of 144 values; check",
    ):
        capture(model, randn(2, 3, 6, 6))


def test_what_can_not_be_captured_is_refused(tmp_path):
    with pytest.raises(TraceError, match=r"model .*ReLU must compute a matrix product .*; use"):
        capture(nn.ReLU(), randn(2, 3))
    with pytest.raises(TraceError, match=r"must hold at least one input, got shape \(0, 8\)"):
        capture(nn.Linear(8, 2), torch.zeros(0, 8))
    with pytest.raises(TraceError, match=r"labels must be 5 numbers.*got shape"):
        capture(nn.Linear(8, 2), randn(5, 8), labels=[1, 2])
    (tmp_path / "mine").write_text("text")
    with pytest.raises(TraceError, match="must be a trace to be replaced"):
        capture(nn.Linear(8, 2), randn(5, 8), path=tmp_path, overwrite=True)
    path = tmp_path / "trace"
    capture(nn.Linear(8, 2), randn(5, 8), path=path)
    with pytest.raises(TraceError, match="pass overwrite=True"):
        capture(nn.Linear(8, 3), randn(5, 8), path=path)
    capture(nn.Linear(8, 3), randn(5, 8), path=path, overwrite=True)
    assert WorkloadTrace.load(path).layers[0].gemm.n == 3


def test_inputs_by_name_and_results_of_several_kinds(tmp_path):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.fc = nn.Embedding(10, 8), nn.Linear(8, 3)

        def forward(self, *, ids, mask):
            hidden = self.embed(ids) * mask[..., None]
            return {"hidden": hidden, "logits": self.fc(hidden)}

    ids, mask = torch.arange(6).reshape(2, 3), torch.ones(2, 3, dtype=torch.bool)
    trace = capture(Model(), {"ids": ids, "mask": mask})
    assert trace.provenance["input_names"] == ["ids", "mask"]
    assert trace.inputs[0].dtype == np.int64 and trace.inputs[1].dtype == np.bool_
    assert trace.outputs.shape == (2, 3, 3)
    assert trace.layer("fc").row_images == 2
    named = dict(zip(trace.provenance["input_names"], trace.inputs, strict=True))
    assert run_with(Model(), named, lambda call: None)["logits"].shape == (2, 3, 3)


def test_half_precision_is_stored_as_float32():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(36, 2)).bfloat16()
    trace = capture(model, randn(2, 3, 5, 5).bfloat16())
    assert trace.rows("0").dtype == trace.outputs.dtype == np.float32
    expected = model[0].weight.float().detach().reshape(4, 27).T
    np.testing.assert_array_equal(trace.weights("0")[0], expected)


def test_capture_under_inference_mode():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.Flatten(), nn.Linear(100, 2))
    x = randn(2, 3, 5, 5)
    plain = capture(model, x)
    with torch.inference_mode():
        trace = capture(model, x)
    assert trace.layers == plain.layers and list(trace.graph.edges) == [("0", "2")]
    np.testing.assert_array_equal(trace.rows("2"), plain.rows("2"))


def test_progress_goes_to_standard_error(capsys):
    capture(nn.Linear(8, 4), randn(5, 8), progress=True)
    printed = capsys.readouterr()
    assert printed.out == "" and "[1] linear: 1 x (5, 8) x (8, 4)" in printed.err


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("named", [False, True])
def test_a_trace_replays_in_the_types_it_was_captured_in(tmp_path, dtype, named):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 5)).to(dtype)
    inputs = randn(2, 3, 6, 6).to(dtype)
    trace = capture(model, {"input": inputs} if named else inputs, path=tmp_path / "trace")
    seen = []
    outputs = replay(trace, model, lambda call: seen.append(call.input.dtype))
    assert seen == [dtype, dtype]
    np.testing.assert_array_equal(outputs, trace.outputs)


def test_inputs_of_a_wrong_shape_are_refused_by_pytorch():
    for model in (nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(3, 4, 3)):
        with pytest.raises(RuntimeError, match=r"expected input\[2, 1, 6, 6\] to have 3 channels"):
            capture(model, randn(2, 1, 6, 6))
