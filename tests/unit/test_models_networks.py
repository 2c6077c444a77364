"""Every network by name: parameters, operations, capture, and weights of other layouts.

Networks are counted on PyTorch's meta device, which holds no values: full size costs nothing there.
"""

import hashlib
import json
import math
from collections import OrderedDict
from importlib import resources
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from simulator import LshReuse, NoReuse, PerLayer, decide
from workloads import capture, run_with
from workloads.models import (
    MODELS,
    ModelError,
    load,
    load_weights,
    read_metadata,
    save_weights,
    weights_source,
)

SHIPPED = {
    "resnet18_camvid": "CamVid",
    "resnet18_camvid_reuse": "CamVid",
    "resnet18_w64_camvid": "CamVid",
    "vgg16_cifar10": "CIFAR-10",
}
VISION = ("swin_lanes", "swin_scenes", "swin_t", "vit_b_16", "vit_s_16")


def build(name, **arguments):
    if name in VISION:
        pytest.importorskip("transformers")
    if name == "efficientnet_lite0":
        pytest.importorskip("efficientnet_lite_pytorch")
    if name in SHIPPED:
        arguments["pretrained"] = False  # PyTorch warns of each weight that the meta device drops
    return load(name, **arguments)


def layers_of(model, inputs):
    """Every layer of a run, without its values."""
    layers = []
    with torch.no_grad():
        run_with(model, inputs, lambda call: layers.append(call.layer))
    return layers


def macs_of(name):
    with torch.device("meta"):
        model = build(name)
        layers = layers_of(model, torch.zeros(1, *model.input_shape))
    return sum(layer.gemm.macs for layer in layers)


def esp(inputs, outputs, side):
    """A reduction, five dilated 3x3 convolutions, batch normalisation and PReLU (ESPNet)."""
    width = outputs // 5
    first = outputs - 4 * width
    return side**2 * inputs * width + 9 * width * (first + 4 * width) + 3 * outputs


def espnet(classes):
    encoder = 27 * 16 + 48 + 3 * 19 + esp(19, 64, 3) + 2 * esp(64, 64, 1) + 3 * 131
    encoder += esp(131, 128, 3) + 8 * esp(128, 128, 1) + 3 * 256 + 256 * classes
    joined = 131 * classes + 2 * classes + 3 * 2 * classes + esp(2 * classes, classes, 1)
    doublings = 3 * 4 * classes**2 + 3 * classes
    return encoder + joined + doublings + 9 * (19 + classes) * classes + 3 * classes


def activated(inputs, outputs, side):
    """A convolution, batch normalisation and PReLU."""
    return side**2 * inputs * outputs + 3 * outputs


def twinlitenet():
    encoder = activated(3, 16, 3) + activated(19, 19, 3) + esp(19, 64, 3) + 2 * esp(64, 64, 1)
    encoder += activated(131, 131, 3) + esp(131, 128, 3) + 3 * esp(128, 128, 1)
    encoder += activated(256, 32, 3) + 2 * activated(32, 32, 3) + activated(32, 32, 1)
    attention = 2 * (32 * 4 + 4) + 32 * 32 + 32 + 1 + 1
    return (
        encoder + attention + 2 * (activated(32, 16, 2) + activated(16, 8, 2) + activated(8, 2, 2))
    )


def pixel_decoder(channels, width, classes):
    laterals = sum(count * width + width for count in channels)
    return laterals + 9 * width**2 + 2 * width + width * classes + classes


def resnet18_segmenter(classes, width=16):
    total, inputs = 27 * width + 2 * width, width
    channels = [width * 2**i for i in range(4)]
    for stage, outputs in enumerate(channels):
        total += 9 * inputs * outputs + 3 * 9 * outputs**2 + 4 * 2 * outputs
        total += inputs * outputs + 2 * outputs if stage else 0
        inputs = outputs
    return total + pixel_decoder(channels, 2 * width, classes)


def vgg16_cifar10(operations=False):
    """Parameters, or multiply-accumulates of a 32x32 image."""
    total, inputs = 512 * 10 + (0 if operations else 10), 3
    for stage, (width, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        for _ in range(depth):
            weights = 9 * inputs * width
            total += (32 >> stage) ** 2 * weights if operations else weights + 2 * width
            inputs = width
    return total


def swin_segmenter(classes, width=48):
    total = 48 * width + width + 2 * width  # patches and their normalisation
    total += 2 * 4 * width  # a last normalisation, which the backbone has and leaves out
    channels = [width * 2**i for i in range(3)]
    for stage, outputs in enumerate(channels):
        heads = outputs // 16
        attention = 4 * (outputs**2 + outputs) + 9**2 * heads  # a bias for each offset in a window
        mlp = 8 * outputs**2 + 5 * outputs
        total += 2 * (attention + mlp + 2 * 2 * outputs) + 2 * outputs
        total += 8 * outputs**2 + 8 * outputs if stage < 2 else 0  # merging patches
    return total + pixel_decoder(channels, width, classes)


def resnet38(classes, width=64, positions=None):
    """Parameters, or multiply-accumulates where B1's and the other stages' positions are given.

    Of the convolutions, in multiples of width^2: B2 to B4 have a first unit, a shortcut and units
    that keep their width; B5's units go by way of 8; B6 and B7 are bottlenecks.
    """
    w, squares = width, width**2
    convolutions = {
        "b1": 27 * w,
        "b2": (9 * 2 + 2 + 5 * 9 * 2 * 2) * squares,
        "b3": (9 * 2 * 4 + 2 * 4 + 5 * 9 * 4 * 4) * squares,
        "b4": (9 * 4 * 8 + 4 * 8 + 11 * 9 * 8 * 8) * squares,
        "b5": (9 * 8 * 8 + 8 * 16 + 5 * 9 * 8 * 16) * squares,
        "b6": (16 * 8 + 9 * 8 * 16 + 16 * 32 + 16 * 32) * squares,
        "b7": (32 * 16 + 9 * 16 * 32 + 32 * 64 + 32 * 64) * squares,
        "head": 9 * 64 * 8 * squares + 9 * 8 * w * classes,
    }
    if positions is not None:
        places = {"b1": positions[0], "b2": positions[1], "b3": positions[2]}
        return sum(count * places.get(name, positions[3]) for name, count in convolutions.items())
    # Normalised: what enters a convolution of a unit, and the last sum; the head's 8 w.
    entering = {
        "b2": 1 + 5 * 2,
        "b3": 2 + 5 * 4,
        "b4": 4 + 11 * 8,
        "b5": 8 + 2 * 16 + 3 * 8,
        "b6": 16 + 8 + 16,
        "b7": 32 + 16 + 32,
        "head": 64 + 8,
    }
    return sum(convolutions.values()) + 2 * w * sum(entering.values()) + classes


def psanet(classes, width, size):
    """Of images of `size`: features of an eighth of it, attention on half of these."""
    height, across = ((((side - 1) // 8 + 1) - 1) // 2 + 1 for side in size)
    w, displacements = width, (2 * height - 1) * (2 * across - 1)
    total, inputs = 147 * w + 2 * w, w
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner, outputs = w << stage, 4 * w << stage
        total += inputs * inner + inputs * outputs + 2 * outputs
        total += (blocks - 1) * outputs * inner
        total += blocks * (9 * inner**2 + inner * outputs + 2 * (2 * inner + outputs))
        inputs = outputs
    branch = 32 * w * 8 * w + 16 * w + (8 * w) ** 2 + 16 * w + 8 * w * displacements
    projection = 16 * w * 32 * w + 64 * w
    head = 9 * 64 * w * 8 * w + 16 * w + 8 * w * classes + classes
    return total + 2 * branch + projection + head


def resnest_segmenter(classes, width=8):
    w, half = width, width // 2
    total, inputs = 27 * half + 9 * half**2 + 9 * half * w + 4 * half + 2 * w, w
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner, outputs = w << stage, 4 * w << stage
        squeezed = max(inner // 2, 32)
        attention = inner * squeezed + squeezed + 2 * squeezed
        attention += squeezed * 2 * inner + 2 * inner
        # Two groups halve each 3x3 product of twice the width.
        block = 9 * inner**2 + 4 * inner + attention + inner * outputs + 2 * (inner + outputs)
        total += blocks * block + (blocks - 1) * outputs * inner
        total += inputs * inner + inputs * outputs + 2 * outputs
        inputs = outputs
    return total + pixel_decoder([4 * w << stage for stage in range(4)], 4 * w, classes)


# Published: torchvision's documentation for its networks; the papers for ViT-S (DeiT), ResNeSt-50
# and the rest. torchvision says 25,557,032 for ResNet-50; He et al. say 0.27 M and 0.85 M for
# ResNet-20 and 56, whose exact numbers follow from
#   27*16 + 32 + 2n*(9*16^2 + 32) + (9*16*32 + 64) + (2n-1)*(9*32^2 + 64) + (9*32*64 + 128)
#   + (2n-1)*(9*64^2 + 128) + 650, n = 3 and 9.
# PSANet50: ResNet-50's 23,508,032 without its classifier; per branch 2048*512 + 512^2 + 2*2*512
# and 512*59^2; projection 1024*2048 + 2*2048; head 9*4096*512 + 2*512 + 512*21 + 21.
PARAMETERS = {
    "alexnet": 61_100_840,
    "espnet": espnet(12),
    "mobilenet_v2": 3_504_872,
    "psanet50": 23_508_032
    + 2 * (2048 * 512 + 512**2 + 2048 + 512 * 59**2)
    + (1024 * 2048 + 4096)
    + (9 * 4096 * 512 + 1024 + 512 * 21 + 21),
    "psanet_scenes": psanet(11, 8, (120, 160)),
    "resnest50": 27_483_240,
    "resnest_lanes": resnest_segmenter(2),
    "resnet18": 11_689_512,
    "resnet18_camvid": resnet18_segmenter(11),
    "resnet18_camvid_reuse": resnet18_segmenter(11),
    "resnet18_lanes": resnet18_segmenter(2),
    "resnet18_scenes": resnet18_segmenter(11),
    "resnet18_w64_camvid": resnet18_segmenter(11, width=64),
    "octave_resnet20": 269_722,  # paths divide the plain network's weights
    "octave_resnet20_a125": 269_722,
    "octave_resnet20_a25": 269_722,
    "octave_resnet20_a75": 269_722,
    "resnet20": 269_722,
    # Gates of (C + 1) x n: six of 17 x 16, 17 x 32, five of 33 x 32, 33 x 64, five of 65 x 64.
    "resnet20_boosted": 269_722 + 6 * 272 + 544 + 5 * 1056 + 2112 + 5 * 4160,
    "resnet38": resnet38(11),
    "resnet38_scenes": resnet38(11, width=4),
    "resnet50": 25_557_032,
    "resnet56": 853_018,
    "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496,
    "swin_lanes": swin_segmenter(2),
    "swin_scenes": swin_segmenter(11),
    "swin_t": 28_288_354,
    "twinlitenet": twinlitenet(),
    "vgg16_cifar10": vgg16_cifar10(),
    "vgg19": 143_667_240,
    "vit_b_16": 86_567_656,
    "vit_s_16": 22_050_664,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_published(name):
    with torch.device("meta"):
        model = build(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


def test_every_network_is_counted():
    # CifarNet and EfficientNet-Lite0 have tests of their own.
    assert {*PARAMETERS, "cifarnet", "efficientnet_lite0"} == set(MODELS)


@pytest.mark.parametrize(("blocks", "name"), [(3, "resnet20"), (9, "resnet56")])
def test_parameters_of_cifar_resnets_follow_from_their_table(blocks, name):
    total = 27 * 16 + 32 + 64 * 10 + 10
    for inputs, width in ((16, 16), (16, 32), (32, 64)):
        total += 9 * inputs * width + (2 * blocks - 1) * 9 * width**2 + 2 * blocks * 2 * width
    assert total == PARAMETERS[name]


def fire(size, inputs, squeezed, expanded):
    return size**2 * squeezed * (inputs + expanded + 9 * expanded)


def residual_bottlenecks(*, strided=True):
    """ResNet-50's stages: width, blocks, size; the size stays 1/8 where not `strided`."""
    total, inputs, before = 0, 64, 56
    if not strided:
        before = 119
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        size = 56 >> stage if strided else (119 if stage == 0 else 60)
        total += before**2 * inputs * width  # the 3x3 convolution has the stride
        total += size**2 * (9 * width**2 + 4 * width**2 + 4 * width * inputs)
        total += (blocks - 1) * size**2 * (4 + 9 + 4) * width**2
        inputs, before = 4 * width, size
    return total


def split_attention_bottlenecks():
    """ResNeSt-50's stages; two groups halve each 3x3 product of twice the width."""
    total, inputs, before = 0, 64, 56
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        size = 56 >> stage
        attention = width * (width // 2) + (width // 2) * 2 * width
        for block in range(blocks):
            entered = before if block == 0 else size  # averaging comes after the 3x3 convolution
            entering = inputs if block == 0 else 4 * width
            total += entered**2 * (entering * width + 9 * width**2) + attention
            total += size**2 * 4 * width**2
        total += size**2 * inputs * 4 * width
        inputs, before = 4 * width, size
    return total


def plain_convolutions(sizes):
    """3x3 convolutions given as (size, inputs, outputs)."""
    return sum(size**2 * 9 * inputs * outputs for size, inputs, outputs in sizes)


def vgg19():
    total, inputs = 0, 3
    for stage, (width, depth) in enumerate(((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))):
        for _ in range(depth):
            total += (224 >> stage) ** 2 * 9 * inputs * width
            inputs = width
    return total + 25088 * 4096 + 4096**2 + 4096 * 1000


def resnet18():
    total = 112**2 * 147 * 64 + 4 * 56**2 * 9 * 64**2
    for size, width in ((28, 128), (14, 256), (7, 512)):
        total += size**2 * width**2 * (4.5 + 3 * 9 + 0.5)  # the first sees half the width; shortcut
    return total + 512 * 1000


def wide_segmenter():
    """ResNet-18's stages and the decoder on 240x320: the finest features have 120x160 positions."""
    positions, width = [120 * 160 >> 2 * stage for stage in range(4)], 64
    total = positions[0] * (27 * width + 4 * 9 * width**2)
    for stage in (1, 2, 3):
        outputs = width << stage  # of which the first convolution and the shortcut see half
        total += positions[stage] * outputs**2 * (4.5 + 3 * 9 + 0.5)
    total += sum(size * (width << i) * 2 * width for i, size in enumerate(positions))  # laterals
    return total + positions[0] * (9 * (2 * width) ** 2 + 2 * width * 11)


def cifar_resnet(blocks):
    total = 32**2 * 27 * 16 + 2 * blocks * 32**2 * 9 * 16**2 + 64 * 10
    for size, width in ((16, 32), (8, 64)):
        total += size**2 * 9 * width**2 * (2 * blocks - 0.5)  # the first sees half the channels
    return total


def mobilenet_v2():
    total, inputs, size = 112**2 * 27 * 32, 32, 112
    for expansion, width, blocks, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for block in range(blocks):
            hidden = expansion * inputs
            total += size**2 * inputs * hidden if expansion > 1 else 0
            size //= stride if block == 0 else 1
            total += size**2 * hidden * (9 + width)
            inputs = width
    return total + 7**2 * 320 * 1280 + 1280 * 1000


def transformer(tokens, width):
    """A block: q, k, v and output projections, two products of attention, two of the MLP."""
    return tokens * 12 * width**2 + 2 * tokens**2 * width


def vit(width):
    return 196 * 768 * width + 12 * transformer(197, width) + width * 1000


def swin_t():
    total = 56**2 * 48 * 96
    for stage, blocks in enumerate((2, 2, 6, 2)):
        width, windows = 96 << stage, (8 >> stage) ** 2
        total += blocks * windows * transformer(49, width)
        if stage < 3:
            total += (28 >> stage) ** 2 * 4 * width * 2 * width  # merging patches
    return total + 768 * 1000


def psanet50():
    # 473 pixels: 237 after the first convolution, 119 after the pool, 60 from the second stage on;
    # attention works on 30 x 30 = 900 positions, with 59 x 59 displacements.
    branch = 60**2 * 2048 * 512 + 900 * (512**2 + 512 * 59**2) + 900**2 * 512
    head = 60**2 * (9 * 4096 * 512 + 512 * 21)
    backbone = 237**2 * 147 * 64 + residual_bottlenecks(strided=False)
    return backbone + 2 * branch + 900 * 1024 * 2048 + head


DERIVED_MACS = {
    # name: (derived, published in 10^9)
    "alexnet": (
        55**2 * 363 * 64
        + 27**2 * 1600 * 192
        + plain_convolutions([(13, 192, 384), (13, 384, 256), (13, 256, 256)])
        + 9216 * 4096 + 4096**2 + 4096 * 1000,
        0.71,
    ),
    "mobilenet_v2": (mobilenet_v2(), 0.30),
    "psanet50": (psanet50(), None),  # none published for this size
    "resnest50": (
        112**2 * (27 * 32 + 9 * 32 * 32 + 9 * 32 * 64)
        + split_attention_bottlenecks() + 2048 * 1000,
        5.39,
    ),
    "resnet18": (resnet18(), 1.81),
    "resnet18_w64_camvid": (wide_segmenter(), None),
    "resnet20": (cifar_resnet(3), 0.041),
    "resnet38": (
        resnet38(11, positions=[480 * 640 >> 2 * stage for stage in range(4)]),
        None,  # the paper gives times and memory
    ),
    "resnet38_scenes": (resnet38(11, 4, [120 * 160 >> 2 * stage for stage in range(4)]), None),
    "resnet50": (112**2 * 147 * 64 + residual_bottlenecks() + 2048 * 1000, 4.09),
    "resnet56": (cifar_resnet(9), 0.126),
    "squeezenet1_0": (
        109**2 * 147 * 96
        + fire(54, 96, 16, 64) + fire(54, 128, 16, 64) + fire(54, 128, 32, 128)
        + fire(27, 256, 32, 128) + fire(27, 256, 48, 192) + fire(27, 384, 48, 192)
        + fire(27, 384, 64, 256) + fire(13, 512, 64, 256) + 13**2 * 512 * 1000,
        0.82,
    ),
    "squeezenet1_1": (
        111**2 * 27 * 64
        + fire(55, 64, 16, 64) + fire(55, 128, 16, 64)
        + fire(27, 128, 32, 128) + fire(27, 256, 32, 128)
        + fire(13, 256, 48, 192) + fire(13, 384, 48, 192) + fire(13, 384, 64, 256)
        + fire(13, 512, 64, 256) + 13**2 * 512 * 1000,
        0.35,
    ),
    "swin_t": (swin_t(), 4.49),
    "vgg16_cifar10": (vgg16_cifar10(operations=True), 0.31),
    "vgg19": (vgg19(), 19.63),
    "vit_b_16": (vit(768), 17.56),
    "vit_s_16": (vit(384), 4.60),
}  # fmt: skip


@pytest.mark.parametrize("name", DERIVED_MACS)
def test_operations_are_those_of_the_architecture(name):
    derived, published = DERIVED_MACS[name]
    assert macs_of(name) == derived
    # Published figures are rounded, and may count a few operations that are no products.
    assert published is None or derived / 1e9 == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize("published", [{"espnet": 0.355e6}, {"twinlitenet": 0.44e6}])
def test_small_segmenters_have_the_published_size(published):
    # The size of the authors' CamVid file without statistics; TwinLiteNet's table 1.
    ((name, parameters),) = published.items()
    assert PARAMETERS[name] == pytest.approx(parameters, rel=0.02)


def test_resnet38_has_the_published_size():
    # 124 million, with the two convolutions of the head and PASCAL VOC's 21 classes.
    assert resnet38(21) == pytest.approx(124e6, rel=0.005)


def test_a_wide_psanet_is_the_papers():
    assert psanet(21, 64, (473, 473)) == PARAMETERS["psanet50"]


def test_resnet38_is_as_deep_as_its_name_says():
    with torch.device("meta"):
        layers = layers_of(build("resnet38_scenes"), torch.zeros(1, 3, 40, 56))
    on_the_way = [layer for layer in layers if not layer.name.endswith("shortcut")]
    # 37 up to B7; the head's two stand for the classifier.
    assert len(on_the_way) == 37 + 2
    dilations = {
        layer.name: layer.convolution.dilation[0]
        for layer in layers
        if layer.convolution.dilation != (1, 1)
    }
    assert [*dilations.values()] == [2] * 5 + [4, 4] + [12, 12]
    assert next(iter(dilations)) == "b5.0.convs.1"
    assert {layer.output_shape[2:] for layer in layers if layer.name.startswith("b4.")} == {(5, 7)}


def test_resnet38_activates_before_its_convolutions():
    model = build("resnet38_scenes")
    unit = model.b2[1].eval()
    features = torch.randn(1, 8, 5, 6)
    with torch.no_grad():
        first = functional.conv2d(
            torch.relu(unit.norms[0](features)), unit.convs[0].weight, padding=1
        )
        second = functional.conv2d(
            torch.relu(unit.norms[1](first)), unit.convs[1].weight, padding=1
        )
        torch.testing.assert_close(unit(features), features + second)
        # A projected shortcut sees the activated features.
        entering = model.b2[0]
        activated = torch.relu(entering.norms[0](torch.ones(1, 4, 6, 6)))
        nn.init.zeros_(entering.convs[1].weight)
        torch.testing.assert_close(entering(torch.ones(1, 4, 6, 6)), entering.shortcut(activated))


@pytest.mark.parametrize(
    "name",
    ["espnet", "resnest_lanes", "resnet18_scenes", "resnet38_scenes", "swin_scenes", "twinlitenet"],
)
def test_segmenters_answer_each_pixel(name):
    classes = {"espnet": 12, "resnest_lanes": 2, "twinlitenet": 2}.get(name, 11)
    with torch.no_grad():
        assert build(name)(torch.zeros(1, 3, 80, 96)).shape == (1, classes, 80, 96)


@pytest.mark.parametrize("name", ["resnet18", "swin"])
def test_lanes_take_the_network_of_scenes_with_two_classes(name):
    scenes, lanes = build(f"{name}_scenes"), build(f"{name}_lanes")
    differing = {
        key
        for key, tensor in lanes.state_dict().items()
        if tensor.shape != scenes.state_dict()[key].shape
    }
    assert differing == {"decoder.classifier.weight", "decoder.classifier.bias"}
    assert lanes.input_shape == (3, 128, 256)


class TestShippedWeights:
    FILES = resources.files("workloads.models") / "data"

    @pytest.mark.parametrize("name", SHIPPED)
    def test_come_by_name_unless_others_are_given(self, tmp_path, name):
        shipped = load(name)
        assert not shipped.training
        assert weights_source(shipped) == f"{SHIPPED[name]} weights of this project"
        drawn = load(name, seed=3, pretrained=False)
        assert weights_source(drawn) == "random weights, seed 3"
        save_weights(drawn, tmp_path / "drawn.safetensors")
        given = load(name, tmp_path / "drawn.safetensors")
        for key, tensor in drawn.state_dict().items():
            assert torch.equal(tensor, given.state_dict()[key])
        differing = [
            key
            for key, tensor in shipped.state_dict().items()
            if not torch.equal(tensor, given.state_dict()[key])
        ]
        assert {key for key, tensor in given.named_parameters() if tensor.ndim > 1} <= {*differing}

    def test_answer_as_many_classes_as_they_learned(self):
        assert load("resnet18_camvid", num_classes=11).class_names[0] == "sky"
        assert load("vgg16_cifar10").class_names[9] == "truck"
        with pytest.raises(ModelError, match=r"shape \(11,.*the model \(2,"):
            load("resnet18_camvid", num_classes=2)

    @pytest.mark.parametrize("name", ["resnet18_camvid", "resnet18_camvid_reuse"])
    def test_card_is_of_these_weights(self, name):
        file = self.FILES / f"{name}.safetensors"
        content = file.read_bytes()
        assert len(content) < 4_000_000  # 8 MB for both
        card = (self.FILES / "resnet18_camvid.md").read_text()
        assert hashlib.sha256(content).hexdigest() in card
        assert "CC BY-NC 4.0" in card
        plan = json.loads(read_metadata(file)["plan"])
        for option in ("epochs", "optimizer", "learning_rate", "schedule", "batch"):
            assert f"--{option.replace('_', '-')} {plan[option]}" in card

    @pytest.mark.parametrize(
        ("name", "bits", "licence"),
        [("resnet18_w64_camvid", 8, "CC BY-NC 4.0"), ("vgg16_cifar10", 7, "Krizhevsky")],
    )
    def test_few_bits_are_those_on_the_card(self, name, bits, licence):
        content = (self.FILES / f"{name}.safetensors.gz").read_bytes()
        assert len(content) < 11_500_000  # 22 MB for both
        card = (self.FILES / f"{name}.md").read_text()
        assert hashlib.sha256(content).hexdigest() in card
        assert f"{bits} bits" in card and licence in card
        assert f"{PARAMETERS[name] / 1e6:.1f} M parameters" in card
        for key, weight in load(name).named_parameters():
            if weight.ndim > 1:
                step = weight.flatten(1).abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
                whole = weight.flatten(1) / step
                assert (whole - whole.round()).abs().max() < 1e-3, key


def test_espnet_needs_a_channel_for_each_dilation():
    with pytest.raises(ModelError, match="num_classes must be at least 5, got 2"):
        load("espnet", num_classes=2)
    assert load("espnet", num_classes=5)(torch.zeros(1, 3, 8, 8)).shape == (1, 5, 8, 8)


def test_espnet_takes_the_layout_of_the_authors_checkpoint(tmp_path):
    # Names and shapes as listed from espnet_p_2_q_8_camvid.pth (MIT), with drawn values; a
    # block's names follow from the first of its kind.
    pyramid = {
        "c1": (12, 19, 3, 3),
        "d1": (16, 12, 3, 3),
        "d2": (12, 12, 3, 3),
        "d16": (12, 12, 3, 3),
    }
    shapes = {
        "encoder.level1.conv.weight": (16, 3, 3, 3),
        "encoder.b1.act.weight": (19,),
        **{f"encoder.level2_0.{name}.conv.weight": shape for name, shape in pyramid.items()},
        "encoder.level2_0.bn.running_mean": (64,),
        "encoder.level2.1.bn.bn.weight": (64,),
        "encoder.level3.7.d8.conv.weight": (25, 25, 3, 3),
        "encoder.classifier.conv.weight": (12, 256, 1, 1),
        "level3_C.conv.weight": (12, 131, 1, 1),
        "br.weight": (12,),
        "conv.conv.weight": (12, 31, 3, 3),
        "up_l3.0.weight": (12, 12, 2, 2),
        "combine_l2_l3.0.bn.weight": (24,),
        "combine_l2_l3.1.bn.act.weight": (12,),
        "up_l2.1.act.weight": (12,),
        "classifier.weight": (12, 12, 2, 2),
    }
    model = load("espnet")
    state = model.state_dict()
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert len([name for name in state if not name.endswith("num_batches_tracked")]) == 189
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "a.pth")
    other = load("espnet", seed=1)
    load_weights(other, tmp_path / "a.pth")
    assert torch.equal(other.classifier.weight, model.classifier.weight)


def test_espnet_of_cityscapes_joins_other_features():
    with torch.device("meta"):
        model = load("espnet", num_classes=20, joins_input=False)
    assert model.conv.conv.weight.shape == (20, 36, 3, 3)


@pytest.mark.parametrize("name", ["espnet", "twinlitenet"])
def test_sizes_that_do_not_halve_are_refused(name):
    with pytest.raises(ModelError, match=r"multiples of 8, got \(1, 3, 60, 64\); resize"):
        build(name)(torch.zeros(1, 3, 60, 64))


def test_twinlitenet_has_two_parts():
    images = noise(1, 32)
    with torch.no_grad():
        lanes, drivable = (load("twinlitenet", part=part)(images) for part in ("lanes", "drivable"))
    assert lanes.shape == drivable.shape and not torch.equal(lanes, drivable)
    with pytest.raises(ModelError, match="part must be one of lanes, drivable, got 'sky'"):
        load("twinlitenet", part="sky")


def test_subnormal_weights_become_zero(tmp_path):
    model = nn.Linear(2, 1)
    torch.save(
        {"weight": torch.tensor([[1e-40, 0.5]]), "bias": torch.tensor([-1e-39])}, tmp_path / "w.pt"
    )
    load_weights(model, tmp_path / "w.pt")
    assert model.weight.tolist() == [[0.0, 0.5]] and model.bias.tolist() == [0.0]


def test_alexnet_is_the_one_of_deep_reuse_table_2():
    with torch.device("meta"):
        layers = layers_of(load("alexnet"), torch.zeros(1, 3, 224, 224))
    assert [(layer.gemm.k, layer.gemm.n) for layer in layers[:2]] == [(363, 64), (1600, 192)]


def test_vgg19_has_sixteen_convolutions():
    with torch.device("meta"):
        layers = layers_of(load("vgg19"), torch.zeros(1, 3, 224, 224))
    assert [layer.kind for layer in layers] == ["conv"] * 16 + ["linear"] * 3


# Sizes at which a network has all its layers and runs in a moment.
CAPTURED = {
    "espnet": (64, {"p": 1, "q": 1}),
    "mobilenet_v2": (64, {"num_classes": 10}),
    "psanet50": (33, {"image_size": 33}),
    "psanet_scenes": (40, {"input_size": (40, 40)}),
    "resnest50": (64, {}),
    "resnest_lanes": (64, {}),
    "resnet18_scenes": (64, {}),
    "resnet20": (32, {}),
    "resnet38_scenes": (48, {}),
    "resnet50": (64, {}),
    "resnet56": (32, {}),
    "squeezenet1_0": (64, {}),
    "squeezenet1_1": (64, {}),
    "swin_scenes": (80, {}),
    "swin_t": (224, {"depths": (2, 2, 2, 2), "num_classes": 10}),
    "twinlitenet": (64, {}),
    "vit_s_16": (64, {"image_size": 64, "depth": 2}),
}


def noise(images, size):
    return torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CAPTURED)
def test_network_is_captured_and_replayed(name):
    size, arguments = CAPTURED[name]
    check_capture(build(name, **arguments), noise(2, size))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet", "resnet18", "vgg19", "vit_b_16"])
def test_large_network_is_captured_and_replayed(name):
    check_capture(build(name), noise(2, 224))


def check_capture(model, images):
    """The trace knows every layer, and gives the model's answer back."""
    with torch.no_grad():
        expected = model(images).numpy()
    trace = capture(model, images)
    np.testing.assert_array_equal(trace.outputs, expected)
    assert trace.provenance["weights"] == "random weights, seed 0"
    names = [layer.name for layer in trace.layers]
    assert len(names) == len(set(names))
    assert all(layer.row_images in (1, 2) for layer in trace.layers)
    products = [layer for layer in trace.layers if not layer.weights_are_parameters]
    assert all(layer.kind.startswith(("attention", "batched")) for layer in products)

    dense = decide(trace, NoReuse(), model=model)
    assert dense.output_mse == 0
    seen = set()

    def by_hand(call):
        seen.add(call.layer.name)
        return call.from_result(np.matmul(call.rows(), call.weights()))

    with torch.no_grad():
        rebuilt = run_with(model, images, by_hand).numpy()
    assert seen == set(names)
    # Products in float32 with their sums in another order, through the whole network.
    assert np.abs(rebuilt - expected).max() <= 2e-3 * np.abs(expected).max()


class TestAttentionLayers:
    BLOCK = (
        "q_proj k_proj v_proj scores values o_proj".split()  # noqa: SIM905
    )

    def test_names_and_shapes_of_vit(self):
        with torch.device("meta"):
            model = build("vit_b_16", depth=2)
            layers = layers_of(model, torch.zeros(3, 3, 224, 224))
        names = [layer.name for layer in layers]
        blocks = [
            f"vit.layers.{block}.{part}"
            for block in (0, 1)
            for part in (*(f"attention.{each}" for each in self.BLOCK), "mlp.fc1", "mlp.fc2")
        ]
        assert names == ["vit.embeddings.patch_embeddings.projection", *blocks, "classifier"]
        shapes = {layer.name.removeprefix("vit.layers.0."): layer.gemm for layer in layers[1:9]}
        # 12 heads of 64 for each of 3 images; 197 tokens. A head's queries are rows of `scores`.
        for name, expected in {
            "attention.q_proj": (1, 3 * 197, 768, 768),
            "attention.scores": (36, 197, 64, 197),
            "attention.values": (36, 197, 197, 64),
            "mlp.fc1": (1, 3 * 197, 768, 3072),
        }.items():
            gemm = shapes[name]
            assert (gemm.count, gemm.m, gemm.k, gemm.n) == expected

    def test_queries_keys_values_and_heads_are_chosen_by_pattern(self):
        model = build("vit_s_16", image_size=64, depth=2)
        trace = capture(model, noise(2, 64))
        lsh = LshReuse(hashes=8, length=16)
        patterns = {"*.[qkv]_proj": lsh, "*.attention.scores": lsh, "*.mlp.fc1": lsh}
        run = decide(trace, PerLayer(patterns, NoReuse()), model=model)
        chosen = {name for name, made in run.decisions.items() if made is not None}
        assert chosen == {
            f"vit.layers.{block}.{part}"
            for block in (0, 1)
            for part in (*(f"attention.{x}_proj" for x in "qkv"), "attention.scores", "mlp.fc1")
        }
        scores = run.decisions["vit.layers.1.attention.scores"]
        assert scores.rows.ids.shape == (2 * 6, 4, 17)  # each head of each image is clustered alone

    def test_swin_shifts_every_second_window(self):
        model = build("swin_t", depths=(2, 2, 2, 2), num_classes=10)
        blocks = [block for stage in model.swin.encoder.layers for block in stage.blocks]
        with torch.no_grad():
            model(noise(1, 224))
        # The last stage is one window, where there is nothing to shift to.
        assert [block.shift_size for block in blocks] == [0, 3, 0, 3, 0, 3, 0, 0]


def test_shared_module_is_a_layer_for_each_call():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = nn.Conv2d(3, 3, 3, padding=1)
            self.alias = self.shared

        def forward(self, x):
            return self.alias(torch.relu(self.shared(torch.relu(self.shared(x)))))

    model, images = Twice(), noise(2, 6)
    trace = capture(model, images)
    names = ["shared", "shared#2", "shared#3"]
    assert [layer.name for layer in trace.layers] == names
    assert list(trace.graph.edges) == list(pairwise(names))
    policy = PerLayer({"shared#2": LshReuse(hashes=4, length=9)}, NoReuse())
    made = decide(trace, policy, model=model).decisions
    assert [made[name] is not None for name in names] == [False, True, False]


class TestPSANet:
    def test_attention_by_its_definition(self):
        from workloads.models.psanet import PointwiseSpatialAttention

        height, across, width = 3, 2, 4
        torch.manual_seed(0)
        block = PointwiseSpatialAttention(6, width, (height, across)).eval()
        features = torch.randn(1, 6, height, across)
        with torch.no_grad():
            result = block(features)
            collected, given = block.reduce(features)[0], block.reduce_p(features)[0]
            collect = block.attention(collected[None])[0]
            distribute = block.attention_p(given[None])[0]
            both = torch.zeros(2 * width, height, across)
            places = [(y, x) for y in range(height) for x in range(across)]
            for y, x in places:
                # Channel of a displacement (dy, dx): (dy + 2) * 3 + dx + 1.
                to = [collect[(v - y + 2) * 3 + u - x + 1, y, x] for v, u in places]
                by = [distribute[(y - v + 2) * 3 + x - u + 1, v, u] for v, u in places]
                for half, weights, values in ((0, to, collected), (1, by, given)):
                    shares = torch.stack(weights).softmax(0)
                    both[half * width : (half + 1) * width, y, x] = values.flatten(1) @ shares
            expected = block.proj(both[None])
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)

    def test_sizes_that_do_not_fit_are_refused(self):
        with pytest.raises(ModelError, match=r"image_size must be 8 k \+ 1.*got 480; use 481"):
            load("psanet50", image_size=480)
        with torch.device("meta"):
            model = load("psanet50", image_size=33)
            with pytest.raises(ModelError, match=r"shape \(n, 3, 33, 33\), got \(1, 3, 41, 41\)"):
                model(torch.zeros(1, 3, 41, 41))
        with pytest.raises(
            ModelError, match=r"PSANet input_size must be at least 9.*got \(8, 40\)"
        ):
            load("psanet_scenes", input_size=(8, 40))

    def test_a_small_one_takes_images_of_its_size(self):
        model = load("psanet_scenes")
        with torch.no_grad():
            assert model(torch.zeros(1, 3, 120, 160)).shape == (1, 11, 120, 160)
        assert model.psa.size == (8, 10)  # half of 15 x 20


def test_cifar_shortcut_takes_every_second_position_and_pads_channels():
    from workloads.models.resnet_cifar import CifarBlock

    block = CifarBlock(2, 4, 2).eval()
    nn.init.zeros_(block.conv2.weight)  # leaves the shortcut
    features = torch.rand(1, 2, 4, 4)
    with torch.no_grad():
        result = block(features)
    assert torch.equal(result[:, 1:3], features[:, :, ::2, ::2])
    assert not result[:, [0, 3]].any()


def test_split_attention_by_its_definition():
    from workloads.models.resnest import SplitAttention

    torch.manual_seed(0)
    block = SplitAttention(4).eval()
    features = torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        halves = torch.cat(
            [
                functional.conv2d(features[:, :2], block.conv.weight[:4], padding=1),
                functional.conv2d(features[:, 2:], block.conv.weight[4:], padding=1),
            ],
            dim=1,
        )
        first, second = torch.relu(block.bn0(halves)).chunk(2, dim=1)
        pooled = (first + second).mean((2, 3), keepdim=True)
        scores = block.fc2(torch.relu(block.bn1(block.fc1(pooled))))
        share = torch.sigmoid(scores[:, :4] - scores[:, 4:])  # a softmax over two
        expected = share * first + (1 - share) * second
        torch.testing.assert_close(block(features), expected, rtol=1e-5, atol=1e-6)


# Weights of other layouts, made up here; references compute from the fused tensors themselves.


def drawn(shapes):
    generator = torch.Generator().manual_seed(0)
    return {
        name: 0.2 * torch.randn(shape, generator=generator) + (".norm" in name or "ln_" in name)
        for name, shape in shapes.items()
    }


def transformer_shapes(block, width, names):
    norm1, qkv_weight, qkv_bias, proj, norm2, fc1, fc2 = (f"{block}.{name}" for name in names)
    both = {norm1: (width,), norm2: (width,), proj: (width, width)}
    both |= {fc1: (4 * width, width), fc2: (width, 4 * width)}
    shapes = {qkv_weight: (3 * width, width), qkv_bias: (3 * width,)}
    for name, shape in both.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


TIMM = ("norm1", "attn.qkv.weight", "attn.qkv.bias", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
TORCHVISION_VIT = (
    "ln_1", "self_attention.in_proj_weight", "self_attention.in_proj_bias",
    "self_attention.out_proj", "ln_2", "mlp.0", "mlp.3",
)  # fmt: skip
TORCHVISION_SWIN = (
    "norm1", "attn.qkv.weight", "attn.qkv.bias", "attn.proj", "norm2", "mlp.0", "mlp.3",
)  # fmt: skip


def reference_block(x, tensors, block, names, heads, *, eps, bias=0.0):
    """A block on `(n, tokens, width)`, with q, k and v from one fused product."""
    norm1, qkv_weight, qkv_bias, proj, norm2, fc1, fc2 = (f"{block}.{name}" for name in names)
    parts = lambda name: (tensors[f"{name}.weight"], tensors[f"{name}.bias"])  # noqa: E731
    n, tokens, width = x.shape
    attended = functional.layer_norm(x, (width,), *parts(norm1), eps)
    attended, undo = bias.windows(attended) if bias else (attended, lambda y: y)
    fused = functional.linear(attended, tensors[qkv_weight], tensors[qkv_bias])
    fused = fused.reshape(*attended.shape[:2], 3, heads, width // heads)
    q, k, v = fused.permute(2, 0, 3, 1, 4)
    scores = q @ k.mT / math.sqrt(width // heads)
    shares = (bias.added(scores) if bias else scores).softmax(-1)
    mixed = (shares @ v).transpose(1, 2).reshape(attended.shape)
    x = x + undo(functional.linear(mixed, *parts(proj))).reshape(n, tokens, width)
    hidden = functional.layer_norm(x, (width,), *parts(norm2), eps)
    hidden = functional.gelu(functional.linear(hidden, *parts(fc1)))
    return x + functional.linear(hidden, *parts(fc2))


def vit_checkpoint(layout, width=384, classes=5, tokens=5):
    if layout == "timm":
        start, end = ("cls_token", "pos_embed", "patch_embed.proj"), ("norm", "head")
        blocks, names = [f"blocks.{i}" for i in (0, 1)], TIMM
    else:
        start = ("class_token", "encoder.pos_embedding", "conv_proj")
        end = ("encoder.ln", "heads.head")
        blocks = [f"encoder.layers.encoder_layer_{i}" for i in (0, 1)]
        names = TORCHVISION_VIT
    shapes = {start[0]: (1, 1, width), start[1]: (1, tokens, width)}
    for name, shape in {
        start[2]: (width, 3, 16, 16), end[0]: (width,), end[1]: (classes, width)
    }.items():  # fmt: skip
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for block in blocks:
        shapes |= transformer_shapes(block, width, names)
    return drawn(shapes), start, end, blocks, names


@pytest.mark.parametrize("layout", ["timm", "torchvision"])
def test_vit_answers_as_its_fused_checkpoint(layout, tmp_path):
    tensors, start, end, blocks, names = vit_checkpoint(layout)
    path = tmp_path / "vit.pth"
    torch.save(tensors, path)
    model = build("vit_s_16", weights=path, num_classes=5, image_size=32, depth=2)
    images = noise(2, 32)
    patches = functional.conv2d(
        images, tensors[f"{start[2]}.weight"], tensors[f"{start[2]}.bias"], stride=16
    )
    x = torch.cat([tensors[start[0]].expand(2, 1, 384), patches.flatten(2).mT], dim=1)
    x = x + tensors[start[1]]
    for block in blocks:
        x = reference_block(x, tensors, block, names, 6, eps=1e-6)
    x = functional.layer_norm(
        x, (384,), tensors[f"{end[0]}.weight"], tensors[f"{end[0]}.bias"], 1e-6
    )
    expected = functional.linear(x[:, 0], tensors[f"{end[1]}.weight"], tensors[f"{end[1]}.bias"])
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
    assert weights_source(model).startswith("vit.pth, SHA-256 ")


class Windows:
    """Windows of 7x7 of a square image, shifted by 3 or not, with their relative position bias."""

    def __init__(self, table, side, shift):
        self.side, self.shift = side, shift
        places = torch.stack(torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij"))
        places = places.flatten(1)
        steps = places[:, :, None] - places[:, None, :] + 6
        self.bias = table[steps[0] * 13 + steps[1]].permute(2, 0, 1)

    def _cut(self, x):
        count = self.side // 7
        x = x.reshape(len(x), count, 7, count, 7, -1).transpose(2, 3)
        return x.reshape(-1, 49, x.shape[-1])

    def windows(self, x):
        image = x.reshape(len(x), self.side, self.side, -1)
        cut = self._cut(image.roll((-self.shift, -self.shift), (1, 2)))

        def undo(y):
            count = self.side // 7
            y = y.reshape(len(x), count, count, 7, 7, -1).transpose(2, 3)
            y = y.reshape(len(x), self.side, self.side, -1)
            return y.roll((self.shift, self.shift), (1, 2))

        return cut, undo

    def added(self, scores):
        # Positions that the shift wrapped around lie in another part of the image.
        wrapped = (torch.arange(self.side) >= self.side - self.shift).long()
        part = (wrapped[:, None] * 2 + wrapped[None, :]).reshape(1, self.side, self.side, 1)
        part = self._cut(part)[..., 0]
        apart = (part[:, :, None] != part[:, None, :]) * -100.0
        return scores + self.bias + apart.repeat(len(scores) // len(apart), 1, 1)[:, None]


def swin_checkpoint(layout, classes=5):
    """Names of a Swin with two blocks in each stage, by layout."""
    torchvision = layout == "torchvision"
    names = TORCHVISION_SWIN if torchvision else TIMM
    patch, norm, head = (
        ("features.0.0", "features.0.2", "head")
        if torchvision
        else ("patch_embed.proj", "patch_embed.norm", "head.fc" if layout == "timm" else "head")
    )
    blocks = [
        [f"features.{2 * s + 1}.{b}" if torchvision else f"layers.{s}.blocks.{b}" for b in (0, 1)]
        for s in range(4)
    ]
    merges = [
        f"features.{2 * s + 2}"
        if torchvision
        else f"layers.{s + (layout == 'timm')}.downsample"  # later timm merges first
        for s in range(3)
    ]
    shapes = {}
    for name, shape in {
        patch: (96, 3, 4, 4), norm: (96,), "norm": (768,), head: (classes, 768)
    }.items():  # fmt: skip
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for stage, pair in enumerate(blocks):
        width = 96 << stage
        for block in pair:
            shapes |= transformer_shapes(block, width, names)
            shapes[f"{block}.attn.relative_position_bias_table"] = (169, 3 << stage)
            shapes[f"{block}.attn.relative_position_index"] = (49, 49)  # a constant, not read
        if stage < 3:
            shapes |= {f"{merges[stage]}.norm.{x}": (4 * width,) for x in ("weight", "bias")}
            shapes[f"{merges[stage]}.reduction.weight"] = (2 * width, 4 * width)
    return drawn(shapes), patch, norm, head, blocks, merges, names


@pytest.mark.parametrize("layout", ["timm", "torchvision", "authors"])
def test_swin_answers_as_its_fused_checkpoint(layout, tmp_path):
    tensors, patch, norm, head, blocks, merges, names = swin_checkpoint(layout)
    path = tmp_path / "swin.pth"
    torch.save({"model": OrderedDict(tensors), "epoch": 300}, path)
    model = build("swin_t", weights=path, num_classes=5, depths=(2, 2, 2, 2)).double()
    # The mean over positions hides much of a wrong shift, so that rounding must be out of the way.
    tensors = {name: tensor.double() for name, tensor in tensors.items()}
    images = noise(1, 224).double()
    parts = lambda name: (tensors[f"{name}.weight"], tensors[f"{name}.bias"])  # noqa: E731
    x = functional.conv2d(images, *parts(patch), stride=4).flatten(2).mT
    x = functional.layer_norm(x, (96,), *parts(norm))
    for stage in range(4):
        side, width = 56 >> stage, 96 << stage
        for index, block in enumerate(blocks[stage]):
            table = tensors[f"{block}.attn.relative_position_bias_table"]
            windows = Windows(table, side, 3 * index if side > 7 else 0)
            x = reference_block(x, tensors, block, names, 3 << stage, eps=1e-5, bias=windows)
        if stage < 3:
            image = x.reshape(1, side, side, width)
            corners = [image[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
            x = torch.cat(corners, dim=-1).reshape(1, -1, 4 * width)
            x = functional.layer_norm(x, (4 * width,), *parts(f"{merges[stage]}.norm"))
            x = functional.linear(x, tensors[f"{merges[stage]}.reduction.weight"])
    x = functional.layer_norm(x, (768,), *parts("norm")).mean(1)
    with torch.no_grad():
        torch.testing.assert_close(
            model(images), functional.linear(x, *parts(head)), rtol=1e-9, atol=1e-9
        )


class TestCheckpoints:
    def test_data_parallel_checkpoint_without_counters(self, tmp_path):
        # As the CIFAR-10 checkpoints are: nested, 'module.', from before PyTorch counted batches.
        model = load("resnet20", seed=3)
        tensors = {
            f"module.{name}": value
            for name, value in model.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
        path = tmp_path / "resnet20.th"
        torch.save({"state_dict": OrderedDict(tensors), "best_prec1": 91.7}, path)
        loaded = load("resnet20", path)
        assert torch.equal(loaded(noise(1, 32)), model(noise(1, 32)))

    def test_misfits_name_the_file_and_what_is_there(self, tmp_path):
        tensors, *_ = vit_checkpoint("timm")
        tensors["blocks.0.attn.qkv.weight"] = torch.zeros(3 * 384, 10)
        del tensors["norm.bias"]
        tensors["dist_token"] = torch.zeros(1, 1, 384)
        path = tmp_path / "vit.pth"
        torch.save(tensors, path)
        with pytest.raises(ModelError) as told:
            build("vit_s_16", weights=path, num_classes=5, image_size=32, depth=2)
        message = str(told.value)
        assert message.startswith(f"weights {path} must fit ViTS16, but: ")
        assert (
            "vit.layers.0.attention.q_proj.weight (of blocks.0.attn.qkv.weight) has shape "
            "(384, 10), the model (384, 384)" in message
        )
        assert "vit.layernorm.bias is missing" in message
        assert "dist_token is not in the model" in message

    def test_pickled_objects_are_refused_unrun(self, tmp_path):
        path, ran = tmp_path / "w.pth", tmp_path / "ran"

        class Malicious:
            def __reduce__(self):
                return ran.touch, ()

        torch.save({"weight": Malicious()}, path)
        with pytest.raises(ModelError, match=r"w\.pth are not readable as PyTorch's tensors"):
            load_weights(nn.Linear(2, 3), path)
        assert not ran.exists()

    @pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04 cut"])
    def test_damaged_files(self, tmp_path, content):
        path = tmp_path / "w.pt"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"w\.pt are not readable as PyTorch's tensors"):
            load_weights(nn.Linear(2, 3), path)

    @pytest.mark.parametrize(
        ("content", "told"), [([1, 2], "list"), ({"epoch": 3}, "other things named epoch")]
    )
    def test_files_without_tensors(self, tmp_path, content, told):
        path = tmp_path / "w.pth"
        torch.save(content, path)
        with pytest.raises(ModelError, match=f"must hold tensors by name.*got {told}"):
            load_weights(nn.Linear(2, 3), path)


class TestWhereWeightsComeFrom:
    def test_random_weights_say_so_with_their_seed(self):
        assert weights_source(load("squeezenet1_1", seed=5)) == "random weights, seed 5"
        mine = load("torch.nn:Linear", in_features=2, out_features=2)
        assert weights_source(mine) == "as torch.nn:Linear sets them, seed 0"

    def test_it_is_in_the_provenance(self):
        trace = capture(load("resnet20"), noise(1, 32))
        assert trace.provenance["weights"] == "random weights, seed 0"
        unknown = capture(nn.Linear(3, 2), torch.ones(1, 3))
        assert unknown.provenance["weights"] is None

    def test_training_and_loading_change_it(self, tmp_path):
        from workloads.streams import ImageSet
        from workloads.training import train_classifier

        model = load("resnet20")
        few = ImageSet(
            images=noise(4, 32),
            labels=torch.tensor([0, 1, 0, 1]),
            classes=("a", "b"),
            source="noise",
        )
        train_classifier(model, few, few, epochs=1)
        assert weights_source(model) == "trained 1 epochs on noise, seed 0"
        path = tmp_path / "w.pth"
        torch.save(model.state_dict(), path)
        loaded = load("resnet20", path)
        assert weights_source(loaded).startswith("w.pth, SHA-256 ")

    def test_missing_transformers_says_what_to_install(self, monkeypatch):
        import sys

        monkeypatch.delitem(sys.modules, "workloads.models.vision_transformers", raising=False)
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ModelError, match=r"ViTS16 needs.*similarity-codesign\[transformers\]"):
            load("vit_s_16")


def test_random_activations_keep_their_size():
    # VGG-19's convolutions, narrow: He's weights keep the size, PyTorch's own shrink it by 1e-6.
    from workloads.models.initial import he_normal

    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()) for _ in range(16)]
    model = nn.Sequential(*layers)
    he_normal(model)
    with torch.no_grad():
        result = model(torch.randn(1, 32, 32, 32))
    assert 0.05 < result.std() < 5
