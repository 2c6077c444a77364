"""Products that PyTorch hides in a kernel, a subclass or a program: seen, refused or named.

Expected multiply-accumulates are those of the products written out. Tolerance as in
`test_workloads_hook`; square roots of distances near 0 lose half the digits.
"""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch._subclasses import FakeTensorMode
from torch.nn.attention.flex_attention import flex_attention

from accelerators import ConfigError, preset
from simulator import NoReuse, decide, simulate
from simulator.running.captured import run_model
from workloads import TraceError, capture, run_with
from workloads.capturing.hook import run_hooked
from workloads.errors import NotCountedWarning
from workloads.models import load

X = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
HEADS = X.reshape(1, 2, 15, 8)
WIDE = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))
WORDS = torch.randn(40, 8, generator=torch.Generator().manual_seed(2))


class Model(nn.Module):
    """Runs a function of itself and its inputs, with the modules that it is given."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def recomputed(model, x=X):
    """Run with every product computed from its rows; check the output, return run and calls."""
    calls = []

    def answer(call):
        calls.append(call)
        return call.from_result(call.rows() @ call.weights())

    with torch.no_grad():
        run = run_hooked(model, x, answer)
        plain = model(x)
    torch.testing.assert_close(run.output, plain, rtol=1e-3, atol=2e-3)
    return run, calls


def ragged(x, layout=torch.jagged):
    return torch.nested.nested_tensor([x[:10], x[10:]], layout=layout)


def linear(outputs=8):
    torch.manual_seed(3)
    return nn.Linear(8, outputs)


def exported():
    return torch.export.export(nn.Sequential(linear(), nn.ReLU(), linear(4)).eval(), (X,)).module()


def looped(model, x):
    _, x = while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, model.l(x)), (torch.tensor(0), x))
    return x


def scanned(model, x):
    return scan(lambda c, y: (torch.tanh(model.l(c) + y), c.clone()), torch.zeros(8), x, dim=0)[1]


SEEN = {
    "distances": (lambda x: torch.cdist(x, WORDS), 30 * 8 * 40),
    "distances_of_batches": (lambda x: torch.cdist(x.reshape(2, 15, 8), WORDS), 30 * 8 * 40),
    "distances_forced": (
        lambda x: torch.cdist(x[:5], WORDS[:6], compute_mode="use_mm_for_euclid_dist"),
        5 * 8 * 6,
    ),
    "distances_kernel": (lambda x: torch.ops.aten._euclidean_dist(x, WORDS), 30 * 8 * 40),
    "jagged": (Model(lambda m, x: m.l(ragged(x)).values(), l=linear()), 30 * 64),
    "jagged_attention": (
        lambda x: (
            F.scaled_dot_product_attention(
                *[ragged(x).unflatten(-1, (2, 4)).transpose(1, 2)] * 3,
            )
            .transpose(1, 2)
            .values()
        ),
        2 * 2 * 2 * 20 * 20 * 4,  # two images of two heads, padded to 20 rows
    ),
    "nested": (
        Model(lambda m, x: m.l(ragged(x, torch.strided)).to_padded_tensor(0.0), l=linear()),
        30 * 64,
    ),
    "groups": (
        lambda x: torch._grouped_mm(
            x.bfloat16(),
            WIDE.bfloat16().repeat(3, 1, 1),
            offs=torch.tensor([10, 10, 30], dtype=torch.int32),
        ),
        30 * 64,
    ),
    "time_first_convolution": (
        lambda x: torch.conv_tbc(x.reshape(5, 6, 8), torch.ones(1, 8, 4), torch.zeros(4)),
        30 * 8 * 4,
    ),
    "with_out": (lambda x: torch.ops.aten.linear.out(x, WIDE, out=torch.empty(30, 8)), 30 * 64),
    "flex_attention": (lambda x: flex_attention(HEADS + x[0], HEADS, HEADS), 2 * 2 * 15 * 15 * 8),
    "flex_attention_with_scores_changed": (
        lambda x: flex_attention(
            HEADS + x[0], HEADS, HEADS, score_mod=lambda score, b, h, i, j: score + (i - j)
        ),
        2 * 2 * 15 * 15 * 8,
    ),
    "cond": (
        Model(lambda m, x: torch.cond(x.sum() > -1e9, m.l, lambda x: x, (x,)), l=linear()),
        30 * 64,
    ),
    "while_loop": (Model(looped, l=linear()), 3 * 30 * 64),
    "scan": (Model(scanned, l=linear()), 30 * 64),
    "vmap": (torch.vmap(lambda row: WIDE @ row), 30 * 64),
    "exported": (exported(), 30 * 8 * (8 + 4)),
    "compiled_whole": (
        nn.Sequential(torch.compile(linear(), fullgraph=True), nn.ReLU(), linear(4)),
        30 * 8 * (8 + 4),
    ),
}


@pytest.mark.parametrize("case", SEEN)
def test_products_are_seen(case):
    model, macs = SEEN[case]
    run, calls = recomputed(model)
    assert sum(call.layer.gemm.macs for call in calls) == macs
    assert not run.not_counted


@pytest.mark.parametrize("case", ["distances", "jagged", "flex_attention", "exported", "groups"])
def test_they_are_replayed(case):
    """Without reuse the answers are the model's own, and each layer is asked about."""
    model = Model(lambda m, x: SEEN[case][0](x).float().reshape(30, -1))
    trace = capture(model, X)
    run = decide(trace, NoReuse(), model=model)
    assert set(run.decisions) == {layer.name for layer in trace.layers}


def test_flex_attention_is_called_as_attention_is():
    _, calls = recomputed(SEEN["flex_attention"][0])
    assert [call.layer.kind for call in calls] == ["attention_scores", "attention_values"]


def test_edges_lead_through_kernels_subclasses_and_operators():
    model = Model(
        lambda m, x: m.c(
            torch.cond(x.sum() > -1e9, lambda x: m.b(ragged(m.a(x))).values(), lambda x: x, (x,))
        ),
        a=linear(),
        b=linear(),
        c=linear(),
    )
    run, _ = recomputed(model)
    assert run.edges == [("a", "b"), ("b", "c")]
    run, _ = recomputed(
        Model(lambda m, x: m.b(scanned(m.a, x)), a=Model(None, l=linear()), b=linear())
    )
    assert ("a.l#30", "b") in run.edges and ("a.l", "a.l#2") in run.edges


@pytest.mark.parametrize(
    "distances",
    [
        lambda x: torch.cdist(x[:25], WORDS[:25]),
        lambda x: torch.cdist(x, WORDS, compute_mode="donot_use_mm_for_euclid_dist"),
        lambda x: torch.cdist(x, WORDS, p=1),
        torch.pdist,
        lambda x: torch.outer(x[0], x[1]),
        lambda x: torch.fft.rfft(x).real,
        lambda x: F.embedding_bag((x > 0).long(), WORDS, mode="sum"),
    ],
)
def test_what_is_no_product_passes_without_a_word(distances):
    run, calls = recomputed(distances)
    assert not calls and not run.not_counted


LEFT_OUT = {
    "inverse": (lambda x: torch.linalg.inv(x[:8]), "aten::linalg_inv_ex"),
    "pseudo_inverse": (torch.linalg.pinv, "aten::_linalg_svd"),
    "embeddings": (
        lambda x: F.embedding_bag(
            torch.zeros(30, 8, dtype=torch.long), WORDS, per_sample_weights=x, mode="sum"
        ),
        "aten::_embedding_bag_forward_only",
    ),
    "integers": (lambda x: x.long() @ torch.ones(8, 2, dtype=torch.long), "aten::mm of integers"),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_work_that_is_no_product_of_layers_is_named(case):
    function, operation = LEFT_OUT[case]
    run, _ = recomputed(function)
    assert run.not_counted == {operation: 1}


def test_a_backward_pass_inside_the_model_is_named():
    layer = linear()

    def forces(x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(layer(x).square().sum(), x)[0]

    run = run_hooked(forces, X, lambda call: None)
    assert run.not_counted == {"aten::mm of a backward pass": 1}


def _in_numpy(a, b):
    return torch.from_numpy(a.numpy() @ b.numpy())


def _partly_in_numpy(a, b):
    return torch.from_numpy((a @ b).numpy() @ b.numpy())


def _into_a_buffer(a, b):
    made = torch.zeros_like(a @ b)
    np.matmul(a.numpy(), b.numpy(), out=made.numpy())
    return made


KERNELS = {
    "of_pytorch": (lambda a, b: a @ b, True),
    "linear": (F.linear, True),
    "in_numpy": (_in_numpy, False),
    "partly_in_numpy": (_partly_in_numpy, False),
    "into_a_buffer": (_into_a_buffer, False),
    "elementwise": (lambda a, b: a.relu() + b.sum(), False),  # it could hide one, for all we see
}


@pytest.mark.parametrize("case", KERNELS)
@pytest.mark.parametrize("inference", [True, False])
def test_custom_operations_come_apart_or_are_named(case, inference):
    kernel, comes_apart = KERNELS[case]
    name = f"test_opening::{case}_{inference}"
    operation = torch.library.custom_op(
        name, kernel, mutates_args=(), schema="(Tensor a, Tensor b) -> Tensor"
    )
    model = Model(lambda m, x: m.b(operation(m.a(x), WIDE)), a=linear(), b=linear(4))
    with torch.inference_mode(inference):
        run, calls = recomputed(model)
    assert [call.layer.name for call in calls if call.layer.name in "ab"] == ["a", "b"]
    assert run.not_counted == ({} if comes_apart else {name: 1})
    assert run.taken_apart == ({name: 1} if comes_apart else {})
    if comes_apart:
        assert sum(call.layer.gemm.macs for call in calls) == 30 * 8 * (8 + 8 + 4)
    else:
        assert ("a", "b") in run.edges or case.endswith(("numpy", "buffer"))


def test_custom_operations_that_write_to_an_argument_are_named():
    def kernel(a, b, out):
        np.matmul(a.numpy(), b.numpy(), out=out.numpy())

    schema = "(Tensor a, Tensor b, Tensor(a!) out) -> ()"
    torch.library.custom_op("test_opening::into", kernel, mutates_args=("out",), schema=schema)

    def model(x):
        out = torch.zeros_like(x)
        torch.ops.test_opening.into(x @ WIDE, WIDE, out)
        return out

    run, calls = recomputed(model)
    assert run.not_counted == {"test_opening::into": 1} and len(calls) == 1


def test_custom_operations_on_parameters_or_for_indices_are_not_named():
    pick = torch.library.custom_op(
        "test_opening::pick",
        lambda a: torch.from_numpy(a.numpy().argmax(-1)),
        mutates_args=(),
        schema="(Tensor a) -> Tensor",
    )
    square = torch.library.custom_op(
        "test_opening::square",
        lambda a: torch.from_numpy(a.detach().numpy() ** 2),
        mutates_args=(),
        schema="(Tensor a) -> Tensor",
    )
    model = Model(lambda m, x: x @ square(m.l.weight) + pick(x)[:, None], l=linear())
    run, calls = recomputed(model)
    assert len(calls) == 1 and not run.not_counted


def test_what_is_not_counted_is_told_everywhere(tmp_path):
    torch.library.custom_op(
        "test_opening::told", _in_numpy, mutates_args=(), schema="(Tensor a, Tensor b) -> Tensor"
    )
    model = Model(
        lambda m, x: torch.ops.test_opening.told(torch.ops.test_opening.told(m.l(x), WIDE), WIDE),
        l=linear(),
    )
    line = "Not counted: test_opening::told (2 calls)."
    with pytest.warns(
        NotCountedWarning, match=r"Not counted: test_opening::told \(2 calls\)\. They"
    ):
        trace = capture(model, X)
    assert trace.provenance["not_counted"] == {"test_opening::told": 2}
    report = simulate(trace, preset("reuse_16x16"), NoReuse())
    assert report.verdict.endswith(line)
    page = report.write_html(tmp_path / "page.html").read_text()
    assert line in page and "; not counted: test_opening::told (2 calls)" in page
    with pytest.raises(TraceError, match=r"got none.*Not counted: aten::linalg_qr \(1 call\)"):
        capture(lambda x: torch.linalg.qr(x)[1], X)


def test_a_whole_model_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotCountedWarning)
        trace = capture(nn.Sequential(linear(), nn.ReLU(), linear(4)), X)
    assert "not_counted" not in trace.provenance
    assert "Not counted" not in simulate(trace, preset("reuse_16x16"), NoReuse()).verdict


class Wrapper(torch.Tensor):
    """A subclass that computes on the tensor it wraps, products in numpy if it `hides` them."""

    hides = False

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        plain = [each.inner if isinstance(each, cls) else each for each in args]
        if cls.hides and func is torch.ops.aten.mm.default:
            return cls(_in_numpy(*plain))
        made = func(*plain, **(kwargs or {}))
        return cls(made) if isinstance(made, torch.Tensor) else made


class Hiding(Wrapper):
    hides = True


def test_subclasses_come_apart_or_are_named():
    run, calls = recomputed(lambda x: (Wrapper(x) @ WIDE).inner)
    assert len(calls) == 1 and not run.not_counted
    run, calls = recomputed(lambda x: (Hiding(x) @ WIDE).inner)
    assert not calls and run.not_counted == {"aten::mm of Hiding": 1}


class _Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Bilinear(8, 8, 2)

    def forward(self, x):
        return self.layer(x, x)


@pytest.mark.parametrize("form", [lambda m: m, torch.jit.script, torch.vmap])
def test_refusals_come_through_interpreters(form):
    with pytest.raises(TraceError, match=r"got aten\._trilinear\.default"):
        run_with(form(_Pair()), X, lambda call: None)


def test_refusals_come_through_code_that_catches():
    def model(x):
        try:
            return torch.ops.aten._trilinear(x, WIDE, x, [0], [0], [0], [0])
        except TraceError as error:
            raise RuntimeError("no") from error

    with pytest.raises(TraceError, match="_trilinear"):
        run_with(model, X, lambda call: None)


def test_an_exported_program_is_no_module():
    program = torch.export.export(nn.Sequential(linear()).eval(), (X,))
    with pytest.raises(TraceError, match=r"got an ExportedProgram; give what its module\(\)"):
        capture(program, X)


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt()])
@pytest.mark.parametrize("form", ["plain", "script", "exported", "catching"])
def test_what_on_gemm_raises_comes_out(form, error):
    layer = linear()

    def catching(x):
        try:
            return layer(x)
        except Exception:
            return x

    model = {
        "plain": layer,
        "script": torch.jit.script(layer),
        "exported": exported(),
        "catching": catching,
    }[form]

    def on_gemm(call):
        raise error

    with pytest.raises(type(error)):
        run_with(model, X, on_gemm)


def test_not_a_number_is_told_in_scripted_modules():
    with pytest.raises(TraceError, match="must have a finite input"):
        capture(torch.jit.script(linear()), torch.full((2, 8), float("nan")))


def test_an_error_of_the_model_stays_its_own():
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        run_with(lambda x: x[:, :3] @ WIDE, X, lambda call: None)
    with pytest.raises(KeyError, match="missing"):
        run_with(lambda x: {}["missing"], X, lambda call: None)


def test_an_error_that_the_hook_brings_is_one_message():
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()

    def model(x):
        nested = ragged(x, torch.strided)
        return attention(nested, nested, nested, need_weights=False)[0].to_padded_tensor(0.0)

    with torch.no_grad(), pytest.raises(TraceError, match="must run with every product seen, got"):
        run_with(model, X, lambda call: None)


def _on_meta():
    with torch.device("meta"):
        return nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 4)).eval(), torch.randn(2, 8)


def _fake():
    with FakeTensorMode():
        return nn.Linear(8, 4), torch.randn(2, 8)


@pytest.mark.parametrize("made", [_on_meta, _fake])
@pytest.mark.parametrize("which", ["model", "inputs", "both"])
def test_tensors_without_values_are_refused(made, which):
    model, x = made()
    model = linear(4) if which == "inputs" else model
    x = torch.randn(2, 8) if which == "model" else x
    runs = [lambda: capture(model, x)]
    if made is _fake or which == "model":
        runs.append(lambda: run_with(model, x, lambda call: None))
    for run in runs:
        with pytest.raises(TraceError, match=r"real values, got .*(meta|fake).*the CPU"):
            run()


def test_shapes_alone_are_counted_on_the_meta_device():
    model, x = _on_meta()
    layers = []
    run_with(model, x, lambda call: layers.append(call.layer.gemm))
    assert [(gemm.m, gemm.k, gemm.n) for gemm in layers] == [(2, 8, 4)]


def test_no_model_runs_under_a_fake_mode():
    model = linear()
    with FakeTensorMode(), pytest.raises(TraceError, match="outside FakeTensorMode"):
        capture(model, X)


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        (lambda: ragged(X), "a nested tensor"),
        (lambda: ragged(X, torch.strided), "a nested tensor"),
        (X.to_sparse, "layout torch.sparse_coo"),
        (X.to_mkldnn, "layout torch._mkldnn"),
        (lambda: Wrapper(X), "a Wrapper"),
    ],
)
def test_inputs_that_are_no_arrays_are_refused(inputs, kind):
    with pytest.raises(TraceError, match=rf"capture.inputs must be plain .*{kind}"):
        capture(linear(), inputs())


@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_nested_outputs_are_kept_as_their_values(layout):
    model = Model(lambda m, x: m.l(ragged(x, layout)), l=linear(4))
    trace = capture(model, X)
    np.testing.assert_allclose(trace.outputs, model.l(X).detach().numpy(), rtol=1e-5, atol=1e-5)


def test_optimised_torchscript_is_refused():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    optimised = torch.jit.optimize_for_inference(torch.jit.script(net))
    with pytest.raises(TraceError, match=r"before torch.jit.optimize_for_inference"):
        capture(optimised, X.reshape(1, 1, 30, 8))


def test_layers_in_other_threads_are_refused():
    layer = linear()

    def model(m, x):
        made = []
        thread = threading.Thread(target=lambda: made.append(m.l(x)))
        thread.start()
        thread.join()
        return m.l(x)

    previous, threading.excepthook = threading.excepthook, lambda _: None
    try:
        with pytest.raises(TraceError, match="layer 'l' must run in the thread"):
            run_with(Model(model, l=layer), X, lambda call: None)
    finally:
        threading.excepthook = previous


class _Frozen(nn.Linear):
    def train(self, mode=True):
        raise NotImplementedError("frozen")


class _Fitted(nn.Linear):
    def train(self, data, epochs):
        raise AssertionError


def test_modules_without_modes_run_as_they_are():
    model = Model(
        lambda m, x: m.d(m.c(m.e(m.b(m.a(x))))),
        a=_Frozen(8, 8),
        b=nn.Dropout(0.5),
        c=_Fitted(8, 8),
        d=nn.Dropout(0.5),
        e=exported(),
    )
    model.c = _Fitted(4, 8)
    modes = [module.training for module in model.modules()]
    output = run_with(model, X, lambda call: None)
    torch.testing.assert_close(output, model.c(model.e(model.a(X))))  # nothing dropped
    assert [module.training for module in model.modules()] == modes


def test_a_model_without_modes_is_loaded(tmp_path):
    """`load` gives models in evaluation mode; a program that torch.export made has but one."""
    file = tmp_path / "program.py"
    file.write_text(
        "import torch\nfrom torch import nn\n"
        "def made():\n"
        "    net = nn.Sequential(nn.Linear(8, 4)).eval()\n"
        "    return torch.export.export(net, (torch.zeros(2, 8),)).module()\n"
    )
    trace = capture(load(f"{file}:made"), torch.ones(2, 8))
    assert [layer.name for layer in trace.layers] == ["0"]


def test_a_model_that_chooses_rows_by_their_values_says_so_under_reuse():
    """As a mixture of experts does: other values go elsewhere."""
    model = Model(lambda m, x: m.b((m.a(x))[m.a(x)[:, 0] > 0]), a=linear(), b=linear(4))
    trace = capture(model, X)

    def answer(call):
        return torch.ones(30, 8) if call.layer.name.startswith("a") else None

    with pytest.raises(ConfigError, match=r"as many rows to layer 'b' .*got 30 instead of"):
        run_model(trace, model, answer)
