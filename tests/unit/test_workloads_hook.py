"""Every operation is seen as the product it is: rows @ weights is its dense result.

Tolerance: float32 products summed in another order, up to k = 400 terms of size 1, differ by less
than 1e-4 (k * 2^-24 * a few).
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from workloads import GemmCall, TraceError, run_with

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def calls_of(model, inputs, **options) -> list[GemmCall]:
    """Run a model with every product recomputed from its rows; check each, and the output."""
    calls: list[GemmCall] = []

    def recompute(call: GemmCall) -> torch.Tensor:
        gemm, dense = call.layer.gemm, call.dense()
        for order in ("channels_first", "channels_last"):
            rows, weights = call.rows(order=order), call.weights(order=order)
            assert rows.shape == (gemm.count, gemm.m, gemm.k)
            assert weights.shape == (gemm.count, gemm.k, gemm.n)
            assert rows.dtype == weights.dtype == "float32"
            assert rows.transpose(0, 2, 1).flags.c_contiguous
            product = rows @ weights
            result = call.from_result(product)
            assert result.shape == dense.shape == call.layer.output_shape
            torch.testing.assert_close(result, dense, check_dtype=False, **TOLERANCE)
            by_column = np.asfortranarray(product[0])[None] if gemm.count == 1 else product
            assert torch.equal(call.from_result(by_column), result)
        calls.append(call)
        return result

    with torch.no_grad():
        output = run_with(model, inputs, recompute, **options)
        was = getattr(model, "training", None)
        if was is not None:
            model.eval()
        args = inputs if isinstance(inputs, tuple) else (inputs,)
        plain = model(*args)
        if was is not None:
            model.train(was)
    assert type(output) is type(plain)
    torch.testing.assert_close(output, plain, **TOLERANCE)
    assert calls
    return calls


CONVOLUTIONS = {
    "1d": (nn.Conv1d(3, 4, 3), (2, 3, 9)),
    "1d_stride_padding": (nn.Conv1d(3, 4, 4, stride=2, padding=3), (2, 3, 11)),
    "2d": (nn.Conv2d(3, 4, 3), (2, 3, 7, 6)),
    "2d_one_image": (nn.Conv2d(3, 4, 3), (1, 3, 7, 6)),
    "2d_no_bias": (nn.Conv2d(3, 4, 3, bias=False), (2, 3, 7, 6)),
    "2d_pointwise": (nn.Conv2d(8, 4, 1), (2, 8, 5, 5)),
    "2d_all": (nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (2, 3), groups=2), (3, 4, 11, 12)),
    "2d_same": (nn.Conv2d(3, 4, 5, padding="same"), (2, 3, 8, 8)),
    "2d_same_even": (nn.Conv2d(3, 4, 4, padding="same"), (2, 3, 8, 8)),
    "2d_reflect": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 8, 8)),
    "2d_depthwise": (nn.Conv2d(6, 6, 3, padding=1, groups=6), (2, 6, 8, 8)),
    "2d_depthwise_double": (nn.Conv2d(6, 12, 3, padding=1, groups=6), (2, 6, 8, 8)),
    "2d_patches": (nn.Conv2d(3, 8, 4, stride=4), (2, 3, 16, 16)),
    "2d_stride_skips": (nn.Conv2d(3, 4, 1, stride=3), (2, 3, 8, 8)),
    "2d_kernel_in_padding": (nn.Conv2d(1, 2, 5, padding=4), (1, 1, 2, 2)),
    "3d": (nn.Conv3d(2, 3, (2, 3, 3), (1, 2, 1), (1, 1, 0), (1, 1, 2)), (2, 2, 5, 6, 7)),
    "transposed_1d": (nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, groups=2), (2, 4, 5)),
    "transposed_2d": (nn.ConvTranspose2d(4, 3, 3, 2, 1, 1), (2, 4, 5, 6)),
    "transposed_2d_all": (
        nn.ConvTranspose2d(4, 6, (3, 2), (2, 3), (1, 0), (1, 2), groups=2, dilation=(2, 3)),
        (2, 4, 5, 6),
    ),
    "transposed_3d": (nn.ConvTranspose3d(2, 3, 2, 2), (2, 2, 3, 4, 2)),
    "unbatched": (nn.Conv2d(3, 4, 3), (3, 7, 7)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution(case):
    model, shape = CONVOLUTIONS[case]
    x = randn(*shape)
    (call,) = calls_of(model, x)
    layer = call.layer
    assert layer.kind == ("conv_transpose" if "transposed" in case else "conv")
    assert layer.weights_are_parameters
    if case == "unbatched":  # its three channels are no images
        assert (layer.images, layer.row_images) == (1, 1)
    else:
        assert layer.images == layer.row_images == shape[0]
    dense = model(x)
    if "transposed" not in case:
        taps = model.weight[0].numel()
        assert layer.gemm.macs == dense.numel() * taps


def test_convolution_layer_says_the_geometry():
    model, shape = CONVOLUTIONS["2d_all"]
    (call,) = calls_of(nn.Sequential(model), randn(*shape))
    geometry = call.layer.convolution
    assert call.layer.name == "0"
    assert geometry.kernel == (3, 2) and geometry.stride == (2, 1)
    assert geometry.padding == (1, 2) and geometry.dilation == (2, 3) and geometry.groups == 2
    # Height (11 + 2 - 2*2 - 1)//2 + 1 = 5, width (12 + 4 - 3*1 - 1) + 1 = 13.
    assert call.layer.output_shape == (3, 6, 5, 13)
    gemm = call.layer.gemm
    assert (gemm.count, gemm.m, gemm.k, gemm.n) == (2, 3 * 5 * 13, 2 * 3 * 2, 3)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8), (2, 3, 4, 8), (8,)])
def test_linear(shape, bias):
    (call,) = calls_of(nn.Linear(8, 4, bias=bias), randn(*shape))
    layer = call.layer
    assert layer.kind == "linear" and layer.weights_are_parameters
    assert (layer.gemm.m, layer.gemm.k, layer.gemm.n) == (max(1, randn(*shape).numel() // 8), 8, 4)
    if len(shape) > 1:
        assert layer.row_images == shape[0]


W, EXPERTS, WIDE, NARROW, KERNEL = (
    randn(4, 8),
    randn(3, 8, 2),
    randn(8, 3),
    randn(8, 2),
    randn(2, 3, 3, 3),
)
BIAS, SMALL = randn(4), randn(2, 3)
PRODUCTS = {
    "matmul_weight": (lambda x: x @ W.T, (2, 5, 8), "linear"),
    "weight_matmul": (lambda x: W @ x, (8, 6), "linear"),
    "weight_matmul_batch": (lambda x: W @ x, (3, 8, 6), "linear"),
    "matmul_activations": (lambda x: x @ (2 * x).T, (5, 8), "matmul"),
    "bmm": (lambda x: torch.bmm(x, x.mT), (3, 5, 8), "batched_matmul"),
    "bmm_weights": (lambda x: torch.bmm(x, EXPERTS), (3, 5, 8), "batched_matmul"),
    "matmul_heads": (lambda x: x @ x.mT, (2, 3, 5, 8), "batched_matmul"),
    "addmm": (lambda x: torch.addmm(randn(5, 4), x, W.T, beta=2, alpha=0.5), (5, 8), "linear"),
    "addmm_no_beta": (
        lambda x: torch.addmm(torch.full((4,), torch.nan), x, W.T, beta=0),
        (5, 8),
        "linear",
    ),
    "baddbmm": (
        lambda x: torch.baddbmm(randn(3, 1, 5), x, x.mT, beta=0.5, alpha=2),
        (3, 5, 8),
        "batched_matmul",
    ),
    "addbmm": (lambda x: torch.addbmm(randn(5, 5), x, x.mT, alpha=2), (3, 5, 8), "matmul"),
    "mv": (lambda x: torch.mv(W, x), (8,), "linear"),
    "addmv": (lambda x: torch.addmv(randn(4), W, x, alpha=3), (8,), "linear"),
    "dot": (lambda x: torch.dot(x, x), (8,), "matmul"),
    "einsum_weight": (lambda x: torch.einsum("bti,oi->bto", x, W), (2, 5, 8), "linear"),
    "einsum_weight_first": (lambda x: torch.einsum("oi,bti->bot", W, x), (2, 5, 8), "linear"),
    "einsum_activations": (
        lambda x: torch.einsum("bid,bjd->bij", x, x + 1),
        (2, 5, 8),
        "batched_matmul",
    ),
    "einsum_heads": (
        lambda x: torch.einsum("bthd,hde->bthe", x, EXPERTS),
        (2, 5, 3, 8),
        "batched_matmul",
    ),
    "tensordot": (lambda x: torch.tensordot(x, WIDE, 1), (2, 5, 8), "linear"),
    "linear_out": (lambda x: torch.mm(x, W.T, out=torch.empty(0)), (5, 8), "linear"),
    "addmm_in_place": (lambda x: randn(5, 4).addmm_(x, W.T), (5, 8), "linear"),
    "transposed_linear": (lambda x: F.linear(x.transpose(0, 1), W, randn(4)), (2, 5, 8), "linear"),
    "conv_function": (lambda x: F.conv2d(x, KERNEL), (2, 3, 5, 5), "conv"),
}


@pytest.mark.parametrize("case", PRODUCTS)
def test_product(case):
    function, shape, kind = PRODUCTS[case]
    (call,) = calls_of(function, randn(*shape))
    assert call.layer.kind == kind
    assert call.layer.weights_are_parameters == (
        kind in ("linear", "conv") or "weights" in case or case == "einsum_heads"
    )


def test_resident_left_matrix_changes_sides():
    """W @ x has the columns of x as rows; a batch of them is one product, not three."""
    (call,) = calls_of(lambda x: W @ x, randn(3, 8, 6))
    gemm = call.layer.gemm
    assert (gemm.count, gemm.m, gemm.k, gemm.n) == (1, 3 * 6, 8, 4)
    assert call.layer.row_images == 3


def test_rows_of_an_image_are_contiguous_when_time_comes_first():
    """(T, B, K) activations: row t*B + b becomes row b*T + t."""
    x = randn(2, 5, 8)
    for model in (
        lambda x: F.linear(x.transpose(0, 1), W),
        lambda x: F.linear(x.transpose(0, 1).contiguous().relu(), W, randn(4)),
        lambda x: F.linear(x.transpose(0, 1).reshape(10, 8), W, randn(4)),
    ):
        (call,) = calls_of(model, x)
        assert call.layer.row_images == 2
        expected = (
            x if torch.equal(torch.from_numpy(call.rows()[0].copy()), x.view(10, 8)) else (x.relu())
        )
        torch.testing.assert_close(torch.from_numpy(call.rows()[0].copy()), expected.view(10, 8))


def test_frames_folded_into_the_batch_stay_with_their_image():
    """(T, B) frames in one dimension of a convolution, either way round."""
    conv = nn.Conv2d(3, 4, 3)
    x = randn(2, 5, 3, 6, 6)
    (plain,) = calls_of(lambda x: conv(x.flatten(0, 1)), x)
    (swapped,) = calls_of(lambda x: conv(x.transpose(0, 1).flatten(0, 1)), x)
    assert plain.layer.row_images == swapped.layer.row_images == 2
    assert (plain.rows() == swapped.rows()).all()


ATTENTION = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "bool_mask": {"attn_mask": torch.ones(6, 7, dtype=torch.bool).tril(2)},
    "additive_mask": {"attn_mask": randn(6, 7)},
    "head_mask": {"attn_mask": randn(2, 4, 6, 7)},
    "all_masked_row": {"attn_mask": torch.ones(6, 7, dtype=torch.bool).triu(1)},
}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("case", ATTENTION)
def test_scaled_dot_product_attention(case, fused):
    q, k, v = randn(2, 4, 6, 8), randn(2, 4, 7, 8), randn(2, 4, 7, 8 if fused else 5)
    options = ATTENTION[case]
    if case == "causal":
        k, v = k[:, :, :6], v[:, :, :6]
    scores, values = calls_of(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options), (q, k, v)
    )
    assert scores.layer.kind == "attention_scores" and values.layer.kind == "attention_values"
    assert scores.layer.name == "attention.scores" and values.layer.name == "attention.values"
    s = scores.layer.gemm
    assert (s.count, s.m, s.k, s.n) == (8, 6, 8, k.shape[2])
    assert scores.layer.row_images == 1 and not scores.layer.weights_are_parameters


def test_attention_with_grouped_queries():
    q, k, v = randn(2, 4, 6, 8), randn(2, 2, 7, 8), randn(2, 2, 7, 8) + 1
    scores, values = calls_of(
        lambda *x: F.scaled_dot_product_attention(*x, enable_gqa=True), (q, k, v)
    )
    assert scores.layer.gemm.count == values.layer.gemm.count == 8


def test_attention_that_drops_weights_comes_apart_by_itself():
    """Dropout can't be compared, but both products are seen."""
    kinds = []
    q = randn(2, 4, 6, 8)
    run_with(
        lambda q: F.scaled_dot_product_attention(q, q, q, dropout_p=0.5),
        q,
        lambda call: kinds.append(call.layer.kind),
    )
    assert kinds == ["attention_scores", "attention_values"]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention(batch_first, need_weights):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.MultiheadAttention(8, 2, batch_first=batch_first)

        def forward(self, x):
            x = x if batch_first else x.transpose(0, 1)
            return self.attn(x, x, x, need_weights=need_weights)[0]

    calls = calls_of(Block(), randn(3, 5, 8))
    assert [call.layer.name for call in calls] == [
        "attn",
        "attn.scores",
        "attn.values",
        "attn.out_proj",
    ]
    assert [call.layer.row_images for call in calls] == [3, 1, 1, 3]
    assert [call.layer.gemm.count for call in calls] == [1, 6, 6, 1]
    rows = torch.from_numpy(calls[0].rows()[0].copy())
    torch.testing.assert_close(rows, randn(3, 5, 8).view(15, 8))  # image by image


def test_cross_attention_names_its_projections():
    attn = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True)
    calls = calls_of(
        lambda q, k, v: attn(q, k, v)[0], (randn(2, 5, 8), randn(2, 7, 6), randn(2, 7, 4))
    )
    assert [c.layer.kind for c in calls] == [
        *["linear"] * 3,
        "attention_scores",
        "attention_values",
        "linear",
    ]


@pytest.mark.parametrize("grad", [True, False])
def test_transformer_encoder_layer(grad):
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False
    )
    with torch.set_grad_enabled(grad):
        calls = calls_of(model, randn(3, 5, 8))
    assert [call.layer.name for call in calls[:6]] == [
        "layers.0.self_attn",
        "layers.0.self_attn.scores",
        "layers.0.self_attn.values",
        "layers.0.self_attn.out_proj",
        "layers.0.linear1",
        "layers.0.linear2",
    ]
    assert len(calls) == 12


def test_repeated_and_shared_modules_are_numbered():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True))
            self.tied = nn.Linear(8, 8)
            self.tied.weight = self.block[0].weight

        def forward(self, x):
            return self.tied(self.block(self.block(x)))

    calls = calls_of(Model(), randn(5, 8))
    assert [call.layer.name for call in calls] == ["block.0", "block.0#2", "tied"]
    assert all(call.layer.weights_are_parameters for call in calls)


def test_function_in_a_module_has_its_path():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(randn(4, 8))

        def forward(self, x):
            return F.linear(x, self.weight)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def forward(self, x):
            x = self.inner(x)
            return F.linear(x, self.inner.weight.T) @ NARROW

    names = [call.layer.name for call in calls_of(Outer(), randn(5, 8))]
    assert names == ["inner", "inner#2", "linear"]


def test_inference_mode_inside_the_model():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding="same")
            self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
            self.lstm = nn.LSTM(8, 4, batch_first=True)
            self.fc = nn.Linear(4, 2)

        @torch.inference_mode()
        def forward(self, x):
            x = self.conv(x).relu_().flatten(2).transpose(1, 2)
            x = F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0]
            return self.fc(self.lstm(self.attn(x, x, x)[0])[0]).matmul(SMALL)

    calls = calls_of(Model(), randn(2, 3, 3, 3))
    names = [call.layer.name for call in calls]
    assert names[:7] == [
        "conv",
        "attention.scores",
        "attention.values",
        "attn",
        "attn.scores",
        "attn.values",
        "attn.out_proj",
    ]
    assert names[7:] == ["lstm", *(f"lstm#{i}" for i in range(2, 11)), "fc", "linear"]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_come_apart_into_time_steps(kind):
    """One product for all inputs, one per step for the state: 1 + 5, per layer and direction."""
    enabled = torch.backends.mkldnn.enabled
    calls = calls_of(kind(8, 4, num_layers=2, bidirectional=True, batch_first=True), randn(3, 5, 8))
    assert len(calls) == 4 * (1 + 5)
    assert calls[0].layer.gemm.m == 15 and calls[0].layer.row_images == 3
    assert torch.backends.mkldnn.enabled == enabled


def test_hidden_products_are_refused_with_a_fix():
    with pytest.raises(
        TraceError, match=r"layer 'inner' must .* got aten._trilinear.default.*; write"
    ):
        run_with(_Twice(nn.Bilinear(4, 4, 2)), randn(3, 4), lambda call: None)
    with pytest.raises(TraceError, match="use dense, real tensors"):
        run_with(lambda x: x @ x.T, randn(3, 4).to(torch.complex64), lambda call: None)
    sparse = randn(4, 8).to_sparse()
    with pytest.raises(TraceError, match="dense"):
        run_with(lambda x: torch.sparse.mm(sparse, x), randn(8, 3), lambda call: None)


class _Twice(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x, x)


def test_integer_and_empty_products_pass():
    def model(x):
        counts = torch.ones(2, 2, dtype=torch.long) @ torch.ones(2, 2, dtype=torch.long)
        return x @ W.T + counts.sum() + (x[:0] @ W.T).sum()

    assert len(calls_of(model, randn(5, 8))) == 1


def test_products_of_parameters_alone_pass():
    """A spectral norm multiplies its weight and buffers by each other: no work of the inputs'."""
    model = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 4))
    assert [call.layer.name for call in calls_of(model, randn(3, 8))] == ["linear"]


def test_values_that_left_pytorch_are_still_asked_about():
    def model(x):
        return torch.from_numpy(x.numpy() * 2) @ W.T

    (call,) = calls_of(model, randn(3, 8))
    assert call.layer.kind == "linear"


@pytest.mark.parametrize("kind", ["script", "trace", "freeze", "compile"])
def test_models_in_other_forms(kind):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)).eval()
    x = randn(2, 3, 5, 5)
    made = {
        "script": lambda: torch.jit.script(model),
        "trace": lambda: torch.jit.trace(model, x),
        "freeze": lambda: torch.jit.freeze(torch.jit.script(model)),
        "compile": lambda: torch.compile(model, backend="eager"),
    }[kind]()
    calls = calls_of(made, x)
    assert [call.layer.kind for call in calls] == ["conv", "linear"]
    if kind != "freeze":
        assert [call.layer.name for call in calls] == ["0", "3"]


def test_quantised_models_are_refused():
    quantised = torch.ao.quantization.quantize_dynamic(
        nn.Sequential(nn.Linear(8, 8)), {nn.Linear}, dtype=torch.qint8
    )
    with pytest.raises(TraceError, match=r"layer '0' must .*capture the floating-point model"):
        run_with(quantised, randn(3, 8), lambda call: None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types(dtype):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(36, 2)).to(dtype)
    x = randn(2, 3, 5, 5).to(dtype)
    seen = []

    def recompute(call):
        result = call.from_result(call.rows() @ call.weights())
        seen.append(call.layer.name)
        torch.testing.assert_close(result, call.dense(), rtol=2e-2, atol=2e-2)
        return result

    assert run_with(model, x, recompute).dtype == dtype
    assert seen == ["0", "2"]


def test_autocast():
    model = nn.Linear(8, 4)
    with torch.autocast("cpu", torch.bfloat16):
        output = run_with(model, randn(5, 8), lambda c: c.from_result(c.rows() @ c.weights()))
    assert output.dtype == torch.bfloat16


def test_channels_last_memory():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    x = randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    first, second = calls_of(model.to(memory_format=torch.channels_last), x)
    assert first.layer.row_images == second.layer.row_images == 2


def test_float32_operands_are_not_copied():
    shared = []

    def look(call):
        shared.append(call.weights().__array_interface__["data"][0] == call.weight.data_ptr())
        with pytest.raises(ValueError, match="read-only"):
            call.weights()[:] = 0

    run_with(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(36, 2)), randn(2, 3, 5, 5), look
    )
    assert shared == [True, True]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        y = F.relu(self.bn(self.conv1(x)), inplace=True)
        y = F.relu_(self.conv2(y) + y)
        return self.fc(y.mean((2, 3)))


def test_training_step_has_the_dense_gradients():
    """None keeps the dense gradients; a changed result still has some (straight-through)."""
    torch.manual_seed(0)
    model, x = Residual(), randn(3, 4, 6, 6)
    target = torch.tensor([0, 1, 1])
    gradients = {}
    for case in ("plain", "dense", "changed"):
        copied = copy.deepcopy(model)
        if case == "plain":
            output = copied.train()(x)
        elif case == "dense":
            output = run_with(copied, x, lambda call: None, training=True)
        else:
            output = run_with(copied, x, lambda call: 0.9 * call.dense(), training=True)
        F.cross_entropy(output, target).backward()
        gradients[case] = {name: p.grad for name, p in copied.named_parameters()}
        assert copied.bn.num_batches_tracked == 1
    for name, gradient in gradients["plain"].items():
        torch.testing.assert_close(gradients["dense"][name], gradient, rtol=0, atol=0)
        assert gradients["changed"][name].abs().sum() > 0
    # The last layer's weight gradient is delta^T @ input: changed results change its input.
    assert not torch.equal(gradients["changed"]["fc.weight"], gradients["plain"]["fc.weight"])


def test_straight_through_input_gradient_is_the_weights():
    """y = 0 whatever x is, and yet dy/dx = W: below autograd the product is still the product."""
    x = randn(3, 8).requires_grad_()
    output = run_with(lambda x: x @ W.T, x, lambda call: torch.zeros(3, 4))
    assert output.eq(0).all()
    output.sum().backward()
    torch.testing.assert_close(x.grad, W.sum(0).expand(3, 8))


def test_attention_in_training_has_the_dense_gradients():
    q = randn(2, 2, 5, 8)
    grads = []
    for on_gemm in (None, lambda call: None, lambda call: 0.5 * call.dense()):
        x = q.clone().requires_grad_()

        def model(x):
            return F.scaled_dot_product_attention(x, x, x)

        (model(x) if on_gemm is None else run_with(model, x, on_gemm)).square().sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=0)
    assert grads[2].abs().sum() > 0


def test_replacing_scores_alone_or_values_alone():
    q = randn(2, 2, 5, 8)

    def model(x):
        return F.scaled_dot_product_attention(x, x, x)

    flat = run_with(
        model, q, lambda c: torch.zeros(c.layer.output_shape) if "scores" in c.layer.kind else None
    )
    # All scores equal: every output is the mean of the values.
    torch.testing.assert_close(flat, q.mean(2, keepdim=True).expand_as(q))
    none = run_with(
        model, q, lambda c: torch.zeros(c.layer.output_shape) if "values" in c.layer.kind else None
    )
    assert none.eq(0).all()


def test_model_is_left_as_it_was():
    model = Residual().train()
    model.bn.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(RuntimeError, match="stop"):
        run_with(model, randn(3, 4, 6, 6), _stop)
    run_with(model, randn(3, 4, 6, 6), lambda call: None)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert not nn.modules.module._global_forward_hooks
    assert not nn.modules.module._global_forward_pre_hooks
    assert torch.backends.mha.get_fastpath_enabled() == fast


def _stop(call):
    if call.layer.name == "conv2":
        raise RuntimeError("stop")


@pytest.mark.parametrize(("result", "given"), [(torch.zeros(3, 5), r"\(3, 5\)"), ([1.0], "list")])
def test_wrong_results_are_refused(result, given):
    with pytest.raises(
        TraceError, match=rf"on_gemm of layer 'linear' .*\(3, 4\).*got {given}; use"
    ):
        run_with(lambda x: x @ W.T, randn(3, 8), lambda call: result)
    with pytest.raises(TraceError, match=r"from_result of layer 'linear' must get .*\(1, 3, 4\)"):
        run_with(lambda x: x @ W.T, randn(3, 8), lambda call: call.from_result(call.rows()))


def test_result_that_aliases_an_operand_is_copied():
    x = randn(4, 4)
    run_with(lambda x: (x @ randn(4, 4)).zero_(), x, lambda call: call.input[0])
    assert x.abs().sum() > 0


def test_inputs_by_name_and_as_arrays():
    def model(*, left, right):
        return left @ right.T

    named = {"left": randn(3, 8).numpy(), "right": randn(4, 8)}
    torch.testing.assert_close(run_with(model, named, lambda call: None), randn(3, 8) @ W.T)


@pytest.mark.parametrize("inputs", [(), torch.zeros(0, 8)])
def test_empty_inputs_are_refused(inputs):
    with pytest.raises(TraceError, match=r"run_with.inputs must hold .*; pass"):
        run_with(lambda x: x, inputs, lambda call: None)
