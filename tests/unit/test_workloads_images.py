"""How many images a model was given."""

import pytest
import torch
from torch import nn

from workloads import TraceError, capture


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, pictures):
        return self.conv(torch.stack(list(pictures)))


class Embedded(nn.Module):
    def __init__(self, *, linear=False):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.between = nn.Linear(8, 8) if linear else nn.Identity()
        self.rnn = nn.GRU(8, 8)

    def forward(self, tokens):
        return self.rnn(self.between(self.embed(tokens)))[0]


class Stepped(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(8, 8)

    def forward(self, sequence):
        state = None
        for step in sequence:
            state = self.cell(step, state)
        return state[0]


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.queries = nn.Linear(8, 8)

    def forward(self, x):
        q = self.queries(x).unflatten(-1, (2, 4)).transpose(-3, -2)
        return nn.functional.scaled_dot_product_attention(q, q, q)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(8, 4)

    def forward(self, other, x):
        return self.conv(x) if x.ndim == 4 else self.linear(x)


PICTURES = [randn(3, 10, 10) for _ in range(2)]
COUNTS = {
    "batch": (nn.Conv2d(3, 4, 3), randn(2, 3, 8, 8), 2),
    "picture": (nn.Conv2d(3, 4, 3), randn(3, 8, 8), 1),
    "signal": (nn.Conv1d(4, 8, 3), randn(4, 20), 1),
    "volume": (nn.Conv3d(2, 4, 3), randn(2, 6, 6, 6), 1),
    "transposed": (nn.ConvTranspose2d(3, 4, 3), randn(3, 8, 8), 1),
    "list of pictures": (Detector(), (PICTURES,), 2),
    "pictures by name": (Detector(), {"pictures": PICTURES}, 2),
    "vector": (nn.Linear(8, 4), randn(8), 1),
    "rows": (nn.Linear(8, 4), randn(6, 8), 6),
    "time first": (nn.LSTM(8, 4), randn(5, 3, 8), 3),
    "time first, as many": (nn.LSTM(8, 4), randn(3, 3, 8), 3),
    "time first, one": (nn.LSTM(8, 4), randn(5, 1, 8), 1),
    "batch first": (nn.LSTM(8, 4, batch_first=True), randn(5, 3, 8), 5),
    "one sequence": (nn.LSTM(8, 4, batch_first=True), randn(5, 8), 1),
    "tokens, time first": (Embedded(), torch.arange(12).reshape(6, 2), 2),
    "step by step": (Stepped(), randn(6, 3, 8), 3),
    "encoder, time first": (nn.TransformerEncoderLayer(8, 2, 16), randn(5, 3, 8), 3),
    "encoder, one sequence": (nn.TransformerEncoderLayer(8, 2, 16), randn(5, 8), 1),
    "encoder": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), randn(5, 3, 8), 5),
    "transformer": (nn.Transformer(8, 2, 1, 1, 16), (randn(5, 3, 8), randn(7, 3, 8)), 3),
    "scalar first": (Named(), {"other": torch.tensor(2.0), "x": randn(2, 8)}, 2),
    "positions first": (Named(), {"other": torch.arange(7), "x": randn(2, 3, 8, 8)}, 2),
    "mask first": (Named(), {"other": torch.ones(5, 5), "x": randn(2, 5, 8)}, 2),
    "sizes settled": (Named(), {"other": torch.ones(5, 6), "x": randn(2, 3, 8, 8)}, 2),
}


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("case", COUNTS)
def test_images_are_counted_as_the_layers_see_them(case):
    model, inputs, images = COUNTS[case]
    trace = capture(model.eval(), inputs)
    assert trace.images == images
    assert {layer.images for layer in trace.layers} == {images}


def test_rows_of_a_sequence_belong_to_their_image():
    model = nn.LSTM(4, 4)
    sequences = randn(3, 3, 4)  # as many steps as sequences, so that only the layer tells
    trace = capture(model, sequences)
    inputs = next(layer for layer in trace.layers if layer.gemm.m == 9)
    assert inputs.row_images == 3
    rows = torch.tensor(trace.rows(inputs.name)[0]).reshape(3, 3, 4)
    torch.testing.assert_close(rows, sequences.transpose(0, 1))


@pytest.mark.parametrize(
    ("model", "inputs", "images", "message"),
    [
        (Embedded(linear=True), torch.arange(12).reshape(6, 2), None, "GRU saw a batch of 2"),
        (Attending(), randn(5, 8), None, "attention in .* rows attend to each other"),
        (Named(), {"other": torch.ones(5, 6), "x": randn(2, 5, 8)}, None, "got 5 and 2"),
        (nn.Conv2d(3, 4, 3), randn(8, 3, 8, 8), 3, "got 3, but convolution .* batch of 8"),
        (nn.Conv2d(3, 4, 3), randn(3, 8, 8), 3, "got 3, but convolution .* batch of 1"),
        (nn.Conv2d(3, 4, 3), randn(8, 3, 8, 8), 5, "got 5, which divides no"),
        (nn.Linear(8, 4), randn(6, 8), 8, "got 8, which divides no"),
        (Detector(), PICTURES, None, r"got 2 by position.*list of pictures as \(\[...\],\)"),
        *(
            (
                nn.Linear(8, 4),
                randn(6, 8),
                images,
                "images must be a whole number of at least 1, got",
            )
            for images in (0, -1, True, 2.0, "2")
        ),
    ],
)
def test_contradictions_are_refused(model, inputs, images, message):
    with pytest.raises(TraceError, match=message):
        capture(model, inputs, images=images)


@pytest.mark.parametrize(
    ("model", "inputs", "images"),
    [
        (Embedded(linear=True), torch.arange(12).reshape(6, 2), 2),
        (Attending(), randn(5, 8), 1),
        (Named(), {"other": torch.ones(5, 6), "x": randn(2, 5, 8)}, 2),
        (nn.Conv2d(3, 4, 3), randn(8, 3, 8, 8), 4),
    ],
)
def test_what_is_asked_for_is_taken(model, inputs, images):
    assert capture(model, inputs, images=images).images == images
