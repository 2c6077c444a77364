"""Which output is judged, by what, and whether a model answers the same each time."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import dropout

from accelerators import ConfigError, preset
from simulator import LshReuse, NoReuse, decide, simulate
from workloads import ImageSet, TraceError, WorkloadTrace, capture, train_classifier
from workloads.capturing.replaying import replay
from workloads.traces.scores import score
from workloads.training import TrainingError


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


INPUTS = randn(20, 8)
REUSE = LshReuse(hashes=4, length=4, scope="batch")


class Heads(nn.Module):
    """Boxes and classes, put together as `made` says."""

    def __init__(self, made):
        super().__init__()
        torch.manual_seed(0)
        self.boxes, self.classes = nn.Linear(8, 4), nn.Linear(8, 10)
        self.made = made

    def forward(self, x):
        return self.made(self.boxes(x), self.classes(x))


class Then(nn.Module):
    """A linear layer, and what `then` makes of it."""

    def __init__(self, then=lambda y: y, width=8):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(8, width)
        self.then = then

    def forward(self, x):
        return self.then(self.head(x))


def detected(boxes, classes):
    return [{"boxes": boxes[i : i + 1], "scores": classes[i]} for i in range(len(boxes))]


@pytest.mark.parametrize(
    ("made", "output", "judged", "shape", "agrees"),
    [
        (lambda b, c: {"boxes": b, "logits": c}, None, "logits", (20, 10), True),
        (lambda b, c: {"boxes": b, "logits": c}, "boxes", "boxes", (20, 4), False),
        (lambda b, c: {"boxes": b, "other": c}, None, "boxes", (20, 4), False),
        (lambda b, c: (b, c), None, "0", (20, 4), False),
        (lambda b, c: (b, c), 1, "1", (20, 10), True),
        (lambda b, c: (b, c), -1, "1", (20, 10), True),
        (lambda b, c: [{"head": {"cls": c}}, b], "0.head.cls", "0.head.cls", (20, 10), True),
        (detected, None, "boxes", (20, 4), False),
        (detected, "3.scores", "3.scores", (10,), False),
    ],
)
def test_the_judged_output_is_named(made, output, judged, shape, agrees):
    model = Heads(made)
    report = simulate(
        trace := capture(model, INPUTS, output=output), preset("reuse_16x16"), REUSE, model=model
    )
    assert trace.outputs.shape == shape
    assert f"judged: output {judged!r} of 2" in report.verdict
    assert report.to_dict()["judged"] == f"output {judged!r} of 2"
    assert (report.agreement is not None) == agrees
    assert agrees or (report.output_error > 0 and "outputs are off by" in report.verdict)


def test_labels_choose_the_output_that_they_fit():
    model = Heads(lambda boxes, classes: (boxes, classes))
    trace = capture(model, INPUTS, labels=torch.arange(20) % 10)
    assert trace.outputs.shape == (20, 10)
    with pytest.raises(TraceError, match="output must say which of 2 outputs the labels are of"):
        capture(model, INPUTS, labels=torch.arange(20) % 4)
    with pytest.raises(TraceError, match="output must be one of '0', '1', got 'logits'"):
        capture(model, INPUTS, output="logits")


def test_labels_of_padding_do_not_count():
    model, inputs = Then(width=300), randn(4, 5, 8)
    words = Then(width=300)(inputs).argmax(dim=-1)
    words[:, 3:] = -100
    run = decide(capture(model, inputs, classes_dimension=-1, labels=words), NoReuse(), model=model)
    assert run.dense_accuracy == run.accuracy == 1
    pixels = np.array([[[0, 1, -100], [255, 1, 1]]])
    answers = np.array([[[0, 0, 1], [1, 1, 1]]])
    assert score("accuracy", answers, pixels, 2) == 3 / 4
    assert score("miou", answers, pixels, 2) == (1 / 2 + 2 / 3) / 2


def test_rows_of_labels_of_several_lengths_are_refused():
    with pytest.raises(TraceError, match="labels must be an array of numbers"):
        capture(Then(), randn(2, 8), labels=[[1, 2], [3]])


def test_the_only_output_needs_no_name():
    with pytest.raises(TraceError, match="must be left out where the model returns one tensor"):
        capture(Then(), INPUTS, output=5)


def test_a_function_scores_the_output(tmp_path):
    def near(outputs, labels):
        return float(np.exp(-np.abs(outputs - labels).mean()))

    model = Heads(lambda boxes, classes: {"boxes": boxes, "logits": classes})
    asked = {"output": "boxes", "score": near}
    run = decide(capture(model, INPUTS, **asked, path=tmp_path / "t"), REUSE, model=model)
    assert run.dense_accuracy == 1 > run.accuracy  # without labels: beside the dense outputs
    expected = np.zeros((20, 4))
    trace = capture(model, INPUTS, labels=expected, **asked)
    assert decide(trace, REUSE, model=model).dense_accuracy == near(trace.outputs, expected)
    saved = WorkloadTrace.load(tmp_path / "t")
    unknown = decide(saved, REUSE, model=model)
    assert unknown.accuracy is None and "does not hold" in unknown.unjudged
    assert decide(saved.with_score(near, "near"), REUSE, model=model).accuracy == run.accuracy
    with pytest.raises(TraceError, match=r"must return a number of 0 to 1.*got 7"):
        decide(saved.with_score(lambda _outputs, _labels: 7, "seven"), REUSE, model=model)


@pytest.mark.parametrize(
    ("then", "width", "reason"),
    [
        (lambda y: y, 1, "single column"),
        (lambda y: y[:, 0], 8, "no known dimension"),
        (torch.fft.fft, 8, "complex"),
    ],
)
def test_what_holds_no_classes_is_judged_by_its_error(then, width, reason):
    model = Then(then, width)
    report = simulate(capture(model, INPUTS), preset("reuse_16x16"), REUSE, model=model)
    assert report.agreement is None and report.output_error > 0
    assert reason in report.verdict and "not run" not in report.verdict


def test_whole_numbers_are_compared_as_they_are():
    model = Then(lambda y: y.argmax(dim=-1))
    run = decide(capture(model, INPUTS, labels=torch.zeros(20).long()), REUSE, model=model)
    dense = Then()(INPUTS).argmax(dim=-1).numpy()
    assert run.dense_accuracy == (dense == 0).mean()
    assert run.agreement == (run.answers == dense).mean() < 1


def test_classes_lie_where_the_user_says():
    model, inputs = Then(width=300), randn(4, 5, 8)
    labels = torch.full((4, 5), 255)  # among more than 255 classes one of them
    trace = capture(model, inputs, classes_dimension=-1, labels=labels)
    run = decide(trace, REUSE, model=model)
    assert run.answers.shape == (4, 5)
    dense = trace.outputs.argmax(axis=-1)
    assert run.agreement == (run.answers == dense).mean()
    assert run.dense_accuracy == (dense == 255).mean()
    images = capture(model, inputs, classes_dimension=-1, labels=[0, 1, 2, 3])
    run = decide(images, REUSE, model=model)
    assert run.accuracy is None and "labels are one an image" in run.unjudged
    assert run.agreement is not None
    none = decide(capture(model, inputs, classes_dimension="none"), REUSE, model=model)
    assert none.agreement is None and none.output_error > 0
    with pytest.raises(TraceError, match="classes_dimension must be a dimension"):
        capture(model, inputs, classes_dimension=3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.full((20,), float("nan")), "whole numbers, got float32 with NaN"),
        (torch.zeros(20), "whole numbers, got float32;"),
        (-torch.ones(20).long(), "0 to 7, the model's classes, got -1 to -1"),
        (torch.full((20,), 8), "0 to 7, the model's classes, got 8 to 8"),
        (torch.zeros(20, 2).long(), r"of shape \(20,\), got shape \(20, 2\)"),
        (np.array(["a"] * 20), "must be numbers"),
    ],
)
def test_labels_that_name_no_class_are_refused(labels, message):
    with pytest.raises(TraceError, match=message):
        capture(Then(), INPUTS, labels=labels)


RANDOM = {
    "dropout": lambda y: dropout(y, 0.5, training=True),
    "Python": lambda y: y * random.random(),
    "numpy": lambda y: y + float(np.random.rand()),
    "depth": lambda y: y if random.random() < 0.99 else 2 * y,
}


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("case", RANDOM)
def test_random_models_need_a_seed(case, saved, tmp_path):
    model = Then(RANDOM[case])
    traces = [capture(model, INPUTS, seed=seed, path=tmp_path / str(seed)) for seed in (None, 5)]
    if saved:
        traces = [WorkloadTrace.load(tmp_path / str(seed)) for seed in (None, 5)]
        model = Then(RANDOM[case])
    with pytest.raises(ConfigError, match=r"draws random numbers .* seed=0"):
        decide(traces[0], NoReuse(), model=model)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    run = decide(traces[1], NoReuse(), model=model)
    assert run.agreement == 1 and run.output_mse == 0
    assert torch.equal(state[0], torch.get_rng_state()) and state[1] == random.getstate()
    assert state[2] == np.random.get_state()[1].tolist()


class Keeps(Then):
    """A count of calls in a buffer, or in a plain list that it does not show."""

    def __init__(self, shown):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.shown, self.hidden = shown, [0]

    def forward(self, x):
        self.hidden[0] += 1
        if self.shown:
            self.count += 1
        return super().forward(x) * self.hidden[0]


@pytest.mark.parametrize("saved", [False, True])
def test_models_that_keep_state_are_told(saved, tmp_path):
    model = Keeps(shown=True)
    trace = capture(model, INPUTS, path=tmp_path / "trace")
    if saved:
        trace, model = WorkloadTrace.load(tmp_path / "trace"), Keeps(shown=True)
    with pytest.raises(ConfigError, match=r"keeps state from call to call.*It changes.*: count"):
        decide(trace, NoReuse(), model=model)


def test_state_that_nothing_shows_is_met_by_a_second_answer():
    model = Keeps(shown=False)
    with pytest.raises(ConfigError, match="must answer the same each time"):
        decide(capture(model, INPUTS), NoReuse(), model=model)


def test_a_model_is_run_once_more_for_all_its_traces():
    model = Then()
    calls = []
    model.register_forward_hook(lambda _module, inputs, _output: calls.append(len(inputs[0])))
    traces = [capture(model, randn(20, 8)) for _ in range(3)]
    for trace in traces:
        decide(trace, NoReuse(), model=model)
    assert calls == [20, 20, 20, 1, 20, 20, 20]  # three captures; one image; three replays


def test_a_model_that_seeds_itself_repeats():
    def seeded(y):
        torch.manual_seed(7)
        return dropout(y, 0.5, training=True)

    model = Then(seeded)
    assert decide(capture(model, INPUTS), NoReuse(), model=model).agreement == 1


def test_another_precision_is_named():
    trace = capture(Then().bfloat16(), INPUTS.bfloat16())
    other = replace(trace, provenance={**trace.provenance, "input_dtypes": ["float32"]})
    torch.manual_seed(1)
    with pytest.raises(ConfigError, match="layers in float32 where they were in bfloat16"):
        decide(other, NoReuse(), model=Other())


class Other(Then):
    def __init__(self):
        super().__init__()
        nn.init.normal_(self.head.weight)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_outputs_must_be_finite(value):
    model = Then()
    model.head.bias.data[0] = value
    with pytest.raises(TraceError, match="layer 'head' must have a finite bias"):
        capture(model, INPUTS)
    with pytest.raises(TraceError, match=r"the output of model .* must be finite, got"):
        capture(Then(lambda y: y * value), INPUTS)
    good = capture(Then(), INPUTS)
    damaged = replace(good, outputs=np.full_like(good.outputs, value))
    with pytest.raises(TraceError, match="must be finite"):
        decide(damaged, NoReuse(), model=Then())


def test_outputs_that_overflow_under_reuse_are_wrong_answers():
    model = Then()
    trace = capture(model, INPUTS, labels=Then()(INPUTS).argmax(dim=1))
    calls = []

    def overflowing(y):
        calls.append(1)
        return y / 0 if len(calls) > 1 else y  # after the check on the first image

    model.then = overflowing
    report = simulate(trace, preset("reuse_16x16"), REUSE, model=model)
    assert report.agreement == report.accuracy == 0 and report.dense_accuracy == 1
    assert "160 of 160 outputs are NaN or infinite under reuse" in report.unjudged
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_run_under_reuse(dtype):
    model, inputs = Then().to(dtype), INPUTS.to(dtype)
    trace = capture(model, inputs, labels=torch.arange(20) % 8)
    for asked in ({}, {"calibrate_under_reuse": True}):
        run = decide(trace, REUSE, model=model, **asked)
        assert run.agreement is not None and 0 < run.relative_mse["head"] < 2
    assert decide(trace, NoReuse(), model=model).output_mse == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits_are_not_trained(dtype):
    images = ImageSet(
        images=randn(4, 3, 2, 2), labels=torch.arange(4) % 2, classes=("a", "b"), source="noise"
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(TrainingError, match=r"float32 or float64 .*call model.float\(\) first"):
        train_classifier(model.to(dtype), images, images, epochs=1)
    train_classifier(model.double(), images, images, epochs=1)


def test_calls_of_lists_and_plain_values_are_replayed():
    class Scaled(Then):
        def forward(self, pictures, *, scale=1.0, flags=None):
            assert flags == {"on": True}
            return super().forward(torch.stack(pictures)) * scale

    model = Scaled()
    inputs = {"pictures": list(INPUTS), "scale": 3.0, "flags": {"on": True}}
    trace = capture(model, inputs, images=20)
    assert (replay(trace, model, lambda _: None) == trace.outputs).all()
