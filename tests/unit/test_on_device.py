"""Clusters as operations of PyTorch: they are those that policies decide, on every device here."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from accelerators import ConfigError
from simulator import (
    LeaderReuse,
    LshReuse,
    NeighbourReuse,
    NoReuse,
    PerLayer,
    ReusedForward,
    ReusePolicy,
)
from simulator.policies.activations import Activations
from simulator.policies.looking import pixel_numbers
from simulator.policies.policy import clustering_of
from simulator.running import executor
from simulator.running.on_device import replacing
from simulator.running.on_device.replacing import (
    DeviceClustering,
    has_vectors_as_input,
    is_on_device,
)
from workloads.capturing.calls import GemmCall
from workloads.capturing.hook import run_with

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ONCE = LshReuse(hashes=4, length=4, look_once=True)
LEADERS = LeaderReuse(tolerance=0.3, length=4, look_once=True)
NEIGHBOURS = NeighbourReuse(threshold=0.9, length=4, look_once=True)
POLICIES = {
    "image": ONCE,
    "batch": replace(ONCE, scope="batch", thresholds="zero", projection="int8"),
    "strips": replace(ONCE, scope="tile", tile_rows=10),
    "blocks": replace(ONCE, scope="tile", tile_rows=9, tile_shape="block", thresholds="mean"),
    "short_last": replace(ONCE, length=3, scope="tile", tile_rows=16),
    "whole_pixels": replace(ONCE, length=None, hashes=2),
    "many_bits": replace(ONCE, hashes=62, scope="tile", tile_rows=6),
    "leaders": LEADERS,
    "few_leaders": replace(LEADERS, entries=2, scope="tile", tile_rows=10, tolerance=0.1),
    "leaders_of_blocks": replace(LEADERS, scope="tile", tile_rows=9, tile_shape="block"),
    "leaders_themselves": replace(LEADERS, representative="first", scope="batch", length=3),
    "leaders_of_mean_length": replace(LEADERS, distance="absolute", tolerance=0.05, entries=3),
    "neighbours": NEIGHBOURS,
    "neighbours_in_tiles": replace(NEIGHBOURS, scope="tile", tile_rows=40, length=3),
    "neighbours_in_windows": replace(
        NEIGHBOURS, neighbourhood="window", length_ratio=0.8, block_columns=3
    ),
    "neighbours_over_frames": replace(
        NEIGHBOURS, scope="batch", block_frames=2, representative="first", length=None,
        threshold=0.7,
    ),
}  # fmt: skip
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


def both(policy: ReusePolicy, call: GemmCall):
    """What the executor decides and computes of a call, and what is replaced on the device."""
    layer, given = call.layer, Activations(call.layer, call.given())
    state = policy.calibrate(layer, given.rows) if policy.needs_calibration(layer) else {}
    made = executor.execute(
        policy, layer, given, state, None, call.weights, wants_result=True, centroids=False
    )
    clustering = clustering_of(policy, layer, state)
    assert clustering is not None
    assert has_vectors_as_input(clustering, layer)
    here = DeviceClustering(layer, clustering, call.input.device)
    return made, here, here.replaced(call.input)


def check_same(policy: ReusePolicy, call: GemmCall, *, shares: bool = True) -> None:
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
    assert shared.clusters.sum() < ids.size or not shares
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
    check_same(POLICIES[policy], call, shares=layer == "3x3" and policy != "many_bits")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("policy", POLICIES)
def test_so_have_rows_of_matrices(policy, device):
    torch.manual_seed(0)
    (call,) = calls_of(nn.Linear(8, 3).to(device), maps().flatten(2).mT.to(device))
    check_same(POLICIES[policy], call, shares=False)
    left, right = maps(4).flatten(2).to(device), torch.randn(2, 99, 5, device=device)
    (call,) = calls_of(lambda x: x @ right, left)  # a product for each image
    assert call.layer.gemm.count == 2
    coarse = {"hashes": 1} if isinstance(POLICIES[policy], LshReuse) else {}
    check_same(replace(POLICIES[policy], length=3, **coarse), call, shares=bool(coarse))


@pytest.mark.parametrize("dimensions", [1, 3])
def test_other_dimensions(dimensions):
    layer = {1: nn.Conv1d, 3: nn.Conv3d}[dimensions](8, 3, 3, stride=2, padding=1)
    given = maps().flatten(2) if dimensions == 1 else maps(images=1).reshape(1, 8, 9, 11, 1)
    (call,) = calls_of(layer, given)
    check_same(POLICIES["strips"], call)


@pytest.mark.parametrize("seed", range(12))
def test_leaders_and_neighbours_of_any_shape_with_ties_and_zeros(seed):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    kernel, stride = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    images, size = int(rng.integers(1, 4)), rng.integers(5, 14, 2).tolist()
    padding = kernel // 2
    network = nn.Conv2d(6, 4, kernel, stride=stride, padding=padding)
    # Of three values, so that many vectors are zeros or equal, and most distances tie.
    given = torch.randint(0, 3, (images, 6, *size)).float() * (torch.rand(images, 1, *size) < 0.8)
    (call,) = calls_of(network, given)
    tile = {
        "scope": "tile",
        "tile_rows": int(rng.integers(2, 60)),
        "tile_shape": str(rng.choice(["strip", "block"])),
        "length": int(rng.integers(1, 7)),
        "look_once": True,
    }
    entries = int(rng.integers(1, 9))
    for tolerance, distance in ((0.0, "relative"), (0.4, "relative"), (0.4, "absolute")):
        policy = LeaderReuse(tolerance=tolerance, distance=distance, entries=entries, **tile)
        if clustering_of(policy, call.layer, policy.calibrate(call.layer, call.rows())):
            check_same(policy, call, shares=False)
    neighbours = NeighbourReuse(threshold=0.8, length_ratio=0.5, **tile)
    if clustering_of(neighbours, call.layer, {}):
        check_same(neighbours, call, shares=False)


def test_leaders_differ_from_the_compiled_loop_only_where_rounding_decides():
    rng = np.random.default_rng(0)
    elements = rng.standard_normal(24).astype(np.float32)
    # Orders of the same elements are equally far from a constant, but for the order of the sum.
    orders = np.stack([rng.permutation(elements) for _ in range(150)])
    constants = np.repeat(rng.standard_normal((150, 1)).astype(np.float32), 24, axis=1)
    rows = rng.permutation(np.concatenate([orders, constants])).astype(np.float32)
    policy = LeaderReuse(tolerance=1.2, length=24, entries=8)
    (call,) = calls_of(nn.Linear(24, 2), torch.from_numpy(rows)[None])
    made, _, replaced = both(policy, call)
    ids = replaced.ids.flatten().tolist()
    order = {each: number for number, each in enumerate(dict.fromkeys(ids))}
    ours, theirs = [order[each] for each in ids], made.decisions.rows.ids.ravel().tolist()
    same = next((i for i in range(300) if ours[i] != theirs[i]), 300)
    if same == 300:
        return
    # Up to there both hold the same leaders.
    leaders: list[int] = []
    for place in range(same):
        if theirs[place] == len(leaders):
            leaders.append(place)
    exact = rows.astype(np.float64)
    held = leaders[-8:]
    distances = np.square(exact[held] - exact[same]).sum(axis=1)
    reach = 1.2 * np.square(exact[same]).sum()
    by_leader = dict(zip((leaders.index(each) for each in held), distances, strict=True))
    chosen = [by_leader.get(each[same], reach) for each in (ours, theirs)]
    assert chosen[0] == pytest.approx(chosen[1], rel=1e-5)
    assert min(chosen) == pytest.approx(min(distances.min(), reach), rel=1e-5)


class NothingLeaves(TorchDispatchMode):
    """Fails where the host would wait for a value, or a tensor changes its device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").split(".")[0]
        assert name not in ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal"), name
        assert name != "_to_copy" or "device" not in (kwargs or {}), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("policy", POLICIES)
def test_no_value_leaves_the_device(policy, monkeypatch):
    (call,) = calls_of(nn.Conv2d(8, 5, 3, stride=2, padding=1), maps())
    layer, state = call.layer, POLICIES[policy].calibrate(call.layer, call.rows())
    here = DeviceClustering(layer, clustering_of(POLICIES[policy], layer, state), call.input.device)

    def leaves(*_: object, **__: object) -> None:
        raise AssertionError("a tensor is read on the host")

    for name in ("numpy", "cpu", "item", "tolist", "__array__", "__bool__", "__int__", "__float__"):
        monkeypatch.setattr(Tensor, name, leaves)
    with NothingLeaves():
        if here.follows:
            here.follow(here.take_in(call.input, None))
        call.on_input(here.replaced(call.input).values)


@pytest.fixture
def operations_decide(monkeypatch):
    """Leaders and neighbours are found by operations of PyTorch on the CPU too."""
    monkeypatch.setattr(
        replacing,
        "is_on_device",
        lambda clustering, layer, _: has_vectors_as_input(clustering, layer),
    )


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

    @pytest.mark.usefixtures("operations_decide")
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("policy", ["strips", "few_leaders", "neighbours"])
    def test_gradients_are_those_of_the_dense_layer(self, policy, device):
        torch.manual_seed(0)
        layer = nn.Conv2d(8, 3, 3, stride=2, padding=1).to(device)
        given = maps().to(device).requires_grad_()
        reused = ReusedForward(POLICIES[policy])(layer, given)
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

    @pytest.mark.parametrize("decides", ["operations", "loops"])
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("reuse", [replace(ONCE, thresholds="zero"), LEADERS, NEIGHBOURS])
    def test_mixed_precision_decides_in_float32(self, reuse, device, kind, decides, request):
        if decides == "operations":
            request.getfixturevalue("operations_decide")
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(2), nn.Linear(99, 4))
        network = network.to(device)
        given = maps().to(device)  # few bits, which halves hold
        policy = PerLayer({"0": reuse})
        exact, mixed = ReusedForward(policy), ReusedForward(policy)
        wanted = exact(network, given)
        with torch.autocast(device, dtype=kind):
            found = mixed(network, given)
        assert found.dtype == kind
        assert mixed.removed_fraction() == exact.removed_fraction()
        torch.testing.assert_close(found.float(), wanted, rtol=0.05, atol=0.05)
        found.float().sum().backward()
        assert all(each.grad.isfinite().all() for each in network.parameters())


class TestThresholdsFollow:
    """As batch normalisation's estimates: in training, not in evaluation."""

    POLICY = replace(ONCE, scope="tile", tile_rows=20)

    def test_running_mean_and_deviation(self):
        torch.manual_seed(0)
        network = nn.Conv2d(8, 3, 3, stride=2, padding=1)
        policy = replace(self.POLICY, thresholds="mean")
        reuse = ReusedForward(policy)
        batches = [maps(seed=seed) * (1 + seed) for seed in range(3)]
        for each in batches:
            reuse(network.train(), each)
        ((name, state),) = reuse.states.items()
        found = state["thresholds"]
        planes = policy.projections(name, 4)
        wanted = np.zeros(found.shape)
        for number, each in enumerate(batches):
            pixels = np.moveaxis(each.numpy(), 1, -1)
            kinds = [pixels[:, y::2, x::2] for y, x in ((1, 1), (1, 0), (0, 1), (0, 0))]
            means = np.stack(
                [
                    kind.reshape(-1, 2, 4)[:, segment].mean(axis=0) @ planes.T
                    for kind in kinds
                    for segment in range(2)
                ]
            )
            wanted += (means - wanted) * (1.0 if number == 0 else 0.1)
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-4, atol=1e-4)

    def test_evaluation_keeps_them_and_decides_as_the_simulator_does(self):
        torch.manual_seed(0)
        network, reuse = nn.Conv2d(8, 3, 3, padding=1), ReusedForward(self.POLICY)
        for seed in range(3):
            reuse(network.train(), maps(seed=seed) * (1 + seed))
        states = reuse.states
        reuse.recalibrate()
        given = maps(images=3, seed=9)
        with torch.no_grad():
            outputs = reuse(network.eval(), given)
        ((name, state),) = reuse.states.items()
        assert np.array_equal(state["thresholds"], states[name]["thresholds"])
        (call,) = calls_of(network, given)
        made = executor.execute(
            self.POLICY, call.layer, Activations(call.layer, call.given()), state, None,
            call.weights, wants_result=True, centroids=False,
        )  # fmt: skip
        assert reuse.removed_fraction() == 1 - made.decisions.macs / call.layer.gemm.macs
        torch.testing.assert_close(outputs, call.from_result(made.result), rtol=1e-4, atol=1e-5)

    def test_they_go_on_from_a_checkpoint(self):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 3, 1)).train()
        first, second = ReusedForward(self.POLICY), ReusedForward(self.POLICY)
        for seed in range(2):
            first(network, maps(seed=seed))
        second.load_state_dict({name: each.clone() for name, each in first.state_dict().items()})
        first.recalibrate()
        for seed in range(2, 4):
            given = maps(seed=seed) * 2
            assert torch.equal(first(network, given), second(network, given))
        assert first.removed_fraction() == second.removed_fraction()
        ours, theirs = first.state_dict(), second.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    @pytest.mark.parametrize("other", [{"thresholds": "zero"}, {"learning": "task"}])
    def test_others_have_none_to_follow(self, other):
        network, reuse = nn.Conv2d(8, 3, 3, padding=1), ReusedForward(replace(self.POLICY, **other))
        reuse(network.train(), maps())
        assert not reuse.state_dict()
