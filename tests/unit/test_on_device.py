"""Clusters as operations of PyTorch: they are those that policies decide, on every device here."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from accelerators import ConfigError
from simulator import LshReuse, NoReuse, PerLayer, ReusedForward
from simulator.policies.activations import Activations
from simulator.policies.looking import pixel_numbers
from simulator.policies.policy import clustering_of
from simulator.running import executor
from simulator.running.on_device.replacing import DeviceClustering, is_on_device
from workloads.capturing.calls import GemmCall
from workloads.capturing.hook import run_with

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ONCE = LshReuse(hashes=4, length=4, look_once=True)
POLICIES = {
    "image": ONCE,
    "batch": replace(ONCE, scope="batch", thresholds="zero", projection="int8"),
    "strips": replace(ONCE, scope="tile", tile_rows=10),
    "blocks": replace(ONCE, scope="tile", tile_rows=9, tile_shape="block", thresholds="mean"),
    "short_last": replace(ONCE, length=3, scope="tile", tile_rows=16),
    "whole_pixels": replace(ONCE, length=None, hashes=2),
    "many_bits": replace(ONCE, hashes=62, scope="tile", tile_rows=6),
}
LAYERS = {
    "3x3": lambda: nn.Conv2d(8, 5, 3, padding=1),
    "stride": lambda: nn.Conv2d(8, 5, 3, stride=2, padding=1),
    "groups": lambda: nn.Conv2d(8, 6, 3, padding=1, groups=2),
    "dilated": lambda: nn.Conv2d(8, 5, 3, padding=2, dilation=2),
    "unmet_pixels": lambda: nn.Conv2d(8, 5, 2, stride=3),
    "even": lambda: nn.Conv2d(8, 5, (2, 4), stride=(1, 2), padding=(1, 2)),
    "1x1": lambda: nn.Conv2d(8, 5, 1),
    "1x1_stride": lambda: nn.Conv2d(8, 5, 1, stride=2),
    "transposed": lambda: nn.ConvTranspose2d(8, 5, 3, stride=2, padding=1),
}


def maps(channels: int = 8, *, images: int = 2, seed: int = 0) -> Tensor:
    """Smooth maps in whole sixteenths, whose sums float32 holds exactly in any order."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(images, channels, 4, 5, generator=generator)
    fine = nn.functional.interpolate(coarse, (9, 11)) * 2
    noise = torch.randint(-1, 2, fine.shape, generator=generator)
    return ((fine * 16).round() + noise) / 16


def calls_of(network: nn.Module, given: Tensor) -> list[GemmCall]:
    """The products of a network, for a look."""
    found: list[GemmCall] = []
    run_with(network, given, found.append)
    return found


def both(policy: LshReuse, call: GemmCall):
    """What the executor decides and computes of a call, and what is replaced on the device."""
    layer, given = call.layer, Activations(call.layer, call.given())
    state = policy.calibrate(layer, given.rows) if policy.needs_calibration(layer) else {}
    made = executor.execute(
        policy, layer, given, state, None, call.weights, wants_result=True, centroids=False
    )
    clustering = clustering_of(policy, layer, state)
    assert clustering is not None
    assert is_on_device(clustering, layer, call.input.device)
    here = DeviceClustering(layer, clustering, call.input.device)
    return made, here, here.replaced(call.input)


def check_same(policy: LshReuse, call: GemmCall) -> None:
    """Ids, counts, elements and results are the executor's."""
    made, here, replaced = both(policy, call)
    shared, layer = made.decisions.rows, call.layer
    looks = shared.looks
    vectors, sub_matrices = replaced.ids.shape
    pixels = np.arange(vectors) if here.pixels is None else here.pixels.cpu().numpy()
    row_of = np.full(pixels.max() + 1, -1)
    row_of[pixels] = np.arange(vectors)
    numbers = pixel_numbers(layer) if layer.kind == "conv" else [np.arange(layer.gemm.m)]
    ids = replaced.ids.cpu().numpy().reshape(vectors, layer.gemm.count, looks.segments)
    assert sub_matrices == layer.gemm.count * looks.segments
    for gemm, view in np.ndindex(shared.ids.shape[:2]):
        kind, segment = divmod(view, looks.segments)
        tiles = looks.tile_numbers[kind]
        for tile in range(looks.tiles):
            places = np.flatnonzero(tiles == tile)
            found = ids[row_of[numbers[kind][places]], gemm, segment].tolist()
            order = {each: number for number, each in enumerate(dict.fromkeys(found))}
            assert [order[each] for each in found] == shared.ids[gemm, view, places].tolist()
            assert len(order) == shared.clusters[gemm, view, tile]
    assert len(np.unique(ids)) == shared.clusters.sum()
    assert shared.clusters.sum() < ids.size or policy.hashes == 62
    assert int(replaced.kept_elements) == made.decisions.macs // layer.gemm.n
    torch.testing.assert_close(
        call.on_input(replaced.values), call.from_result(made.result), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("policy", POLICIES)
def test_convolutions_have_the_clusters_that_are_decided(policy, layer, device):
    torch.manual_seed(0)
    network = LAYERS[layer]().to(device)
    (call,) = calls_of(network, maps().to(device))
    check_same(POLICIES[policy], call)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("policy", POLICIES)
def test_so_have_rows_of_matrices(policy, device):
    torch.manual_seed(0)
    (call,) = calls_of(nn.Linear(8, 3).to(device), maps().flatten(2).mT.to(device))
    check_same(POLICIES[policy], call)
    left, right = maps(4).flatten(2).to(device), torch.randn(2, 99, 5, device=device)
    (call,) = calls_of(lambda x: x @ right, left)  # a product for each image
    assert call.layer.gemm.count == 2
    check_same(replace(POLICIES[policy], hashes=1, length=3), call)


@pytest.mark.parametrize("dimensions", [1, 3])
def test_other_dimensions(dimensions):
    layer = {1: nn.Conv1d, 3: nn.Conv3d}[dimensions](8, 3, 3, stride=2, padding=1)
    given = maps().flatten(2) if dimensions == 1 else maps(images=1).reshape(1, 8, 9, 11, 1)
    (call,) = calls_of(layer, given)
    check_same(POLICIES["strips"], call)


@pytest.mark.parametrize("last", [False, True])
def test_memory_order_is_the_inputs(last):
    given = maps().contiguous(memory_format=torch.channels_last) if last else maps()
    (call,) = calls_of(nn.Conv2d(8, 3, 3, padding=1), given)
    _, _, replaced = both(ONCE, call)
    assert replaced.values.is_contiguous() != last
    check_same(ONCE, call)


def test_what_compiled_loops_decide():
    given = maps()
    for network, policy in (
        (nn.Conv2d(8, 3, 3), replace(ONCE, look_once=False)),
        (nn.Conv2d(8, 3, 1, padding=1), ONCE),  # rows of padding are rows
        (nn.Conv2d(8, 3, 1), replace(ONCE, representative="first")),
    ):
        (call,) = calls_of(network, given)
        state = policy.calibrate(call.layer, call.rows())
        clustering = clustering_of(policy, call.layer, state)
        assert not is_on_device(clustering, call.layer, given.device)
        with torch.no_grad():
            outputs = ReusedForward(policy)(network, given)
        made = executor.execute(
            policy, call.layer, Activations(call.layer, call.given()), state, None, call.weights,
            wants_result=True, centroids=False,
        )  # fmt: skip
        torch.testing.assert_close(outputs, call.from_result(made.result))


def test_values_that_are_none():
    given = maps()
    given[1, 2, 3, 4] = torch.nan
    with pytest.raises(ConfigError, match="activations of layer 'conv' must be finite"):
        ReusedForward(replace(ONCE, thresholds="zero"))(nn.Conv2d(8, 3, 3, padding=1), given)


class TestInAForwardPass:
    """As training runs it: gradients, modes, mixed precision."""

    @pytest.mark.parametrize("device", DEVICES)
    def test_gradients_are_those_of_the_dense_layer(self, device):
        torch.manual_seed(0)
        layer = nn.Conv2d(8, 3, 3, stride=2, padding=1).to(device)
        given = maps().to(device).requires_grad_()
        reused = ReusedForward(POLICIES["strips"])(layer, given)
        dense = layer(given)
        assert not torch.allclose(reused, dense)
        towards = torch.randn_like(dense)
        leaves = [given, layer.weight, layer.bias]
        ours = torch.autograd.grad(reused, leaves, towards)
        theirs = torch.autograd.grad(dense, leaves, towards)
        for mine, other in zip(ours, theirs, strict=True):
            assert torch.equal(mine, other)

    @pytest.mark.parametrize("device", DEVICES)
    def test_batches_of_other_sizes_and_layers_that_stay_dense(self, device):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3))
        network = network.to(device).eval()
        reuse = ReusedForward(PerLayer({"0": NoReuse()}, replace(ONCE, thresholds="zero")))
        given = maps(images=3).to(device)
        with torch.no_grad():
            whole = reuse(network, given)
            parts = torch.cat([reuse(network, given[:1]), reuse(network, given[1:])])
        torch.testing.assert_close(whole, parts)
        assert 0 < reuse.removed_fraction() < 1

    def test_normalisation_sees_what_reuse_gives_it(self):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(8, 4, 3, padding=1), nn.BatchNorm2d(4, momentum=1.0))
        policy = PerLayer({"0": POLICIES["strips"]})
        ReusedForward(policy)(network.train(), maps())
        seen = ReusedForward(PerLayer({"*": POLICIES["strips"]}))(network[:1], maps())
        torch.testing.assert_close(network[1].running_mean, seen.mean(dim=(0, 2, 3)))
        assert not torch.allclose(network[1].running_var, network[0](maps()).var(dim=(0, 2, 3)))

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
    def test_mixed_precision_decides_in_float32(self, device, kind):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(2), nn.Linear(99, 4))
        network = network.to(device)
        given = maps().to(device)  # few bits, which halves hold
        policy = PerLayer({"0": replace(ONCE, thresholds="zero")})
        exact, mixed = ReusedForward(policy), ReusedForward(policy)
        wanted = exact(network, given)
        with torch.autocast(device, dtype=kind):
            found = mixed(network, given)
        assert found.dtype == kind
        assert mixed.removed_fraction() == exact.removed_fraction()
        torch.testing.assert_close(found.float(), wanted, rtol=0.05, atol=0.05)
        found.float().sum().backward()
        assert all(each.grad.isfinite().all() for each in network.parameters())
