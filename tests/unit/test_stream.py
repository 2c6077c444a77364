"""Clusters kept over a stream, against Algorithm 1 of Deep Reuse in plain Python."""

import json
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from accelerators import REPLACEMENTS, ConfigError, preset
from simulator import (
    ClusterCache,
    LshReuse,
    NoReuse,
    PerLayer,
    ReuseRun,
    StreamMemory,
    decide,
    decide_stream,
    load_memory,
    save_memory,
    simulate,
)
from simulator.kernels.tables import POLYNOMIALS, set_index
from simulator.pages.roofline import roofline
from simulator.running.product import product
from simulator.timing.passes import passes
from simulator.timing.pipeline import layer_timing
from simulator.timing.remaining import Remaining
from tests.builders import buffer, even_decisions, matrix_layer, roomy_design
from workloads import Gemm, WorkloadTrace, capture

relaxed = settings(deadline=None, suppress_health_check=list(HealthCheck))
PLAIN = LshReuse(hashes=12, length=4, scope="stream", thresholds="zero", projection="int8")


def placed(signature, sets):
    """The remainder by a polynomial over GF(2) for 2^b sets; by the number for others."""
    bits = max(0, sets.bit_length() - 1)
    if not bits or sets != 2**bits:
        return signature % sets if sets else 0
    for at in range(63, bits - 1, -1):
        if signature >> at & 1:
            signature ^= POLYNOMIALS[bits] << (at - bits)
    return signature


class ReferenceTable:
    """One table: sets of entries, each with what it stands for."""

    def __init__(self, cache, set_of=placed):
        self.cache, self.sets, self.now, self.random, self.batch = cache, {}, 0, 1, 0
        self.set_of = set_of

    def serve(self, signatures, vectors):
        """The batch's clusters, in the order of first use, and the number of each row's."""
        met, numbers = [], []
        for signature, vector in zip(signatures, vectors, strict=True):
            entry = self.access(signature)
            entry.uses += 1
            if entry.batch == self.batch:
                entry.rows.append(vector)
            # By identity: a forgotten signature that comes again is another entry.
            number = next((i for i, each in enumerate(met) if each is entry), len(met))
            met[number:] = met[number:] or [entry]
            numbers.append(number)
        for entry in met:
            if entry.batch == self.batch:
                entry.mean = np.mean(entry.rows, axis=0)
        fresh = [entry.batch == self.batch for entry in met]
        self.batch += 1
        return met, numbers, fresh

    def access(self, signature):
        self.now += 1
        cache = self.cache
        entries = self.sets.setdefault(self.set_of(signature, cache.sets), [])
        at = next((i for i, e in enumerate(entries) if e.signature == signature), None)
        new = SimpleNamespace(
            signature=signature, uses=0, rows=[], batch=self.batch, made=self.now, touched=self.now
        )
        if at is not None:
            entry = entries[at]
            entry.touched = self.now
            worn = cache.refresh_after is not None and entry.uses >= cache.refresh_after
            untrusted = self.batch < cache.warm_up_batches and entry.batch < self.batch
            if not worn and not untrusted:
                return entry
            new.made = entry.made
        elif not cache.entries or len(entries) < cache.set_ways:
            at = len(entries)
            entries.append(new)
        elif cache.replacement == "none":
            return new
        elif cache.replacement == "random":
            self.random = (6364136223846793005 * self.random + 1442695040888963407) % 2**64
            at = (self.random >> 33) % len(entries)
        else:
            age = "touched" if cache.replacement == "lru" else "made"
            at = min(range(len(entries)), key=lambda i: getattr(entries[i], age))
        entries[at] = new
        return new


@st.composite
def cluster_caches(draw):
    """Tables of every kind, most of them too small."""
    finite = draw(st.booleans())
    ways = draw(st.sampled_from([None, 1, 2, 3]))
    return ClusterCache(
        entries=(ways or 1) * draw(st.sampled_from([1, 2, 5, 16])) if finite else None,
        ways=ways if finite else None,
        replacement=draw(st.sampled_from(REPLACEMENTS)),
        refresh_after=draw(st.sampled_from([None, None, 1, 3, 10])),
        warm_up_batches=draw(st.integers(0, 2)),
    )


def batches_of_kinds(rng, kinds, sizes, count=1, k=10):
    """Batches of rows of a few kinds. Eighths, which float32 sums exactly."""
    distinct = rng.integers(-16, 16, (kinds, k)) / 8
    return [distinct[rng.integers(0, kinds, (count, m))].astype(np.float32) for m in sizes]


def signatures_of(policy, layer, rows):
    """`(s, m)` signatures of one GEMM's rows, as Python integers."""
    projections = policy.projections(layer.name).astype(np.float64)
    found = []
    for first in range(0, rows.shape[1], policy.length):
        part = rows[:, first : first + policy.length].astype(np.float64)
        bits = part @ projections[:, : part.shape[1]].T > 0
        found.append([sum(1 << h for h in np.flatnonzero(row).tolist()) for row in bits])
    return found


@given(
    cluster_caches(),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
    st.integers(1, 25),
    st.integers(1, 2),
)
@settings(relaxed, max_examples=150)
def test_every_batch_is_served_as_algorithm_1_says(cache, seed, sizes, kinds, count):
    policy = replace(PLAIN, cache=cache)
    batches = batches_of_kinds(np.random.default_rng(seed), kinds, sizes, count)
    tables = [[ReferenceTable(cache) for _ in range(3)] for _ in range(count)]
    memory = None
    for rows in batches:
        gemm = Gemm(m=rows.shape[1], n=2, k=10, count=count)
        layer = replace(matrix_layer("fc", rows.shape[1], 2, 10), gemm=gemm)
        decisions, memory = policy.decide_next(layer, rows, {}, memory)
        ages, means, signatures, kept, taken = [], [], [], [], []
        for i, j in np.ndindex(count, 3):
            part = rows[i][:, 4 * j : 4 * j + 4]
            met, numbers, new = tables[i][j].serve(signatures_of(policy, layer, rows[i])[j], part)
            assert decisions.rows.ids[i, j].tolist() == numbers
            assert decisions.rows.clusters[i, j, 0] == len(met)
            assert decisions.rows.new_clusters[i, j, 0] == sum(new)
            assert decisions.rows.new_cluster_rows[i, j, 0] == sum(new[each] for each in numbers)
            age = [tables[i][j].batch - 1 - entry.batch for entry in met]
            assert [each == 0 for each in age] == new
            ages += age
            taken += [age[each] for each in numbers]
            signatures += [entry.signature for entry in met]
            means += [np.pad(entry.mean, (0, 4 - part.shape[1])) for entry in met]
            held = [entry for entries in tables[i][j].sets.values() for entry in entries]
            kept += sorted((entry.signature, entry.uses) for entry in held)
            assert memory["kept"][i, j] == len(held)
        assert decisions.rows.ages.tolist() == ages
        assert decisions.rows.age_counts.tolist() == np.bincount(taken).tolist()
        fresh = decisions.rows.fresh.tolist()
        assert decisions.evidence.values.tolist() == signatures
        # A float32 sum of eighths is exact; the reciprocal of the size is rounded.
        np.testing.assert_allclose(decisions.rows.centroids, means, rtol=1e-6)
        assert decisions.rows.total_clusters == sum(fresh)
        assert decisions.rows.cluster_reuse_rate == pytest.approx(1 - np.mean(fresh))
        widths = np.tile([4, 4, 2], count)
        assert decisions.macs == 2 * int((decisions.rows.new_clusters.ravel() * widths).sum())
        ends = np.cumsum(memory["kept"].ravel())
        stored = list(zip(memory["signatures"].tolist(), memory["uses"].tolist(), strict=True))
        starts = np.concatenate([[0], ends[:-1]])
        found = [sorted(stored[a:b]) for a, b in zip(starts, ends, strict=True)]
        assert [pair for table in found for pair in table] == kept


@given(st.integers(0, 2**62 - 1), st.integers(0, 16))
@settings(relaxed)
def test_the_set_and_the_high_bits_tell_a_signature(signature, bits):
    sets = 2**bits
    assert set_index(np.uint64(signature), sets) == placed(signature, sets)
    # A tag of the bits above the lowest is enough: those are the set, XOR the tag's.
    tag = signature - signature % sets
    low = set_index(np.uint64(signature), sets) ^ set_index(np.uint64(tag), sets)
    assert tag + low == signature


@pytest.mark.parametrize("degree", range(1, len(POLYNOMIALS)))
def test_polynomials_are_primitive(degree):
    # The powers of x then take all 2^degree - 1 remainders but 0: only the last is 1.
    polynomial, order = POLYNOMIALS[degree], 2**degree - 1
    assert polynomial.bit_length() == degree + 1

    def times(a, b):
        product = 0
        for at in range(degree):
            product ^= (b >> at & 1) * (a << at)
        for at in range(2 * degree, degree - 1, -1):
            product ^= (product >> at & 1) * (polynomial << (at - degree))
        return product

    def power(exponent):
        found, square = 1, placed(2, 2**degree)
        while exponent:
            found = times(found, square) if exponent & 1 else found
            square, exponent = times(square, square), exponent >> 1
        return found

    primes = [p for p in range(2, 2**12) if order % p == 0 and all(p % q for q in range(2, p))]
    # What is left of the order is 1 or a single prime.
    rest = order
    for prime in primes:
        while rest % prime == 0:
            rest //= prime
    assert rest < 2**24
    assert power(order) == 1
    assert all(power(order // prime) != 1 for prime in {*primes, rest} - {1, order})


def test_sets_spread_the_signatures_of_images():
    import torch

    from workloads import CifarNet, digits

    torch.manual_seed(0)
    model, images = CifarNet().eval(), digits("test").images[:30]
    traces = [capture(model, batch) for batch in images.split(10)]
    cache = ClusterCache(entries=512, ways=2)
    policy = LshReuse(hashes=15, length=5, scope="stream", thresholds="mean")
    endless, finite = (
        [run.decisions["conv1"] for run in decide_stream(traces, PerLayer({"conv1": each}))]
        for each in (policy, replace(policy, cache=cache))
    )
    # The first sub-matrix: far fewer signatures than entries. Their low 8 bits alone, a short
    # sub-vector's sides of 8 of the 15 hyperplanes, crowd them into few sets.
    streams = [made.evidence.values[made.rows.ids[0, 0]].tolist() for made in endless]
    assert len(set().union(*streams)) < 512 / 4
    tables = [ReferenceTable(cache, each) for each in (int.__mod__, placed)]
    nothing = np.zeros((len(streams[0]), 1))
    for made, stream in zip(finite, streams, strict=True):
        low, spread = (reused(*table.serve(stream, nothing)[1:]) for table in tables)
        assert spread == pytest.approx(
            reused(made.rows.ids[0, 0], made.rows.fresh[: made.rows.clusters[0, 0, 0]])
        )
    assert low < 0.8 and spread > 0.99
    assert finite[-1].rows.reuse_rate > endless[-1].rows.reuse_rate - 0.001


def reused(ids, fresh):
    """R of one table, from each row's cluster and which of them are new."""
    return 1 - np.mean(np.array(fresh)[ids])


def served(policy, batches, memory=None, layer=None):
    """Decisions on batches, one after the other, and the last memory."""
    made = []
    for rows in batches:
        on = layer or matrix_layer("fc", rows.shape[1], 3, rows.shape[2])
        decisions, memory = policy.decide_next(on, rows, {}, memory)
        made.append(decisions)
    return made, memory


def same(found, expected, but=()):
    """Two lists of decisions agree in every array."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        for name in {"ids", "clusters", "centroids", "ages"} - set(but):
            np.testing.assert_array_equal(getattr(a.rows, name), getattr(b.rows, name), name)
        np.testing.assert_array_equal(a.evidence.values, b.evidence.values)


@pytest.mark.parametrize("replacement", REPLACEMENTS)
def test_a_table_that_is_large_enough_is_the_papers(replacement):
    batches = batches_of_kinds(np.random.default_rng(0), 40, [30, 50, 50])
    endless, _ = served(PLAIN, batches)
    # No more than 40 signatures, in a single set of 40 ways.
    cache = ClusterCache(entries=40, replacement=replacement)
    finite, _ = served(replace(PLAIN, cache=cache), batches)
    same(finite, endless)


def test_the_first_batch_is_clustered_as_a_batch_alone():
    rows = np.random.default_rng(1).standard_normal((2, 700, 10)).astype(np.float32)
    layer = replace(matrix_layer("fc", 700, 3, 10), gemm=Gemm(m=700, n=3, k=10, count=2))
    alone = replace(PLAIN, scope="batch").decide(layer, rows, {})
    first = PLAIN.decide(layer, rows, {})
    same([first], [alone], but=["ages", "centroids"])
    # Sums of at most 700 float32 values below 5, in another order.
    np.testing.assert_allclose(
        first.rows.centroids, alone.rows.centroids, rtol=0, atol=700 * 5 * 6e-8
    )
    assert PLAIN.decide(layer, rows, {}).macs == alone.macs
    assert alone.rows.reuse_rate == 0
    np.testing.assert_array_equal(alone.rows.new_clusters, alone.rows.clusters)


def test_a_frame_that_does_not_change_costs_no_multiplication():
    rows = np.random.default_rng(2).standard_normal((1, 60, 10)).astype(np.float32)
    weights = np.random.default_rng(3).standard_normal((1, 10, 3)).astype(np.float32)
    (first, second), _ = served(PLAIN, [rows, rows])
    assert first.rows.reuse_rate == 0 and second.rows.reuse_rate == 1
    assert second.macs == second.rows.total_clusters == second.remaining_ratio == 0
    np.testing.assert_array_equal(product(second, rows, weights), product(first, rows, weights))


def test_old_clusters_keep_their_representative():
    # Multiples of one vector share a signature; their mean would be another.
    layer = matrix_layer("fc", 2, 1, 4)
    frames = [np.full((1, 2, 4), value, np.float32) for value in (1.0, 5.0)]
    (first, second), memory = served(PLAIN, frames, layer=layer)
    assert product(second, frames[1], np.ones((1, 4, 1), np.float32)).tolist() == [[[4.0], [4.0]]]
    assert memory["representatives"].tolist() == first.rows.centroids.tolist() == [[1.0] * 4]


def test_a_stale_cluster_is_computed_anew():
    rows = np.ones((1, 10, 4), np.float32)
    policy = replace(PLAIN, cache=ClusterCache(refresh_after=4))
    # Of 10 equal rows, 4 + 4 + 2 share; then 2 more take the last result, and 4 + 4 new ones.
    (first, second), memory = served(policy, [rows, 3 * rows])
    assert first.rows.ids[0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert second.rows.ids[0, 0].tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert second.rows.fresh.tolist() == [False, True, True]
    assert second.rows.centroids[:, 0].tolist() == [1, 3, 3]
    assert second.rows.reuse_rate == pytest.approx(0.2)
    assert memory["uses"].tolist() == [4]
    # 8 rows take results of their own batch, or of the batch before.
    assert first.rows.age_counts.tolist() == [10]
    assert second.rows.age_counts.tolist() == [8, 2]
    assert memory["made"].tolist() == [1]


def test_warm_up_batches_only_fill_the_table():
    batches = batches_of_kinds(np.random.default_rng(4), 9, [20, 20, 20, 20])
    policy = replace(PLAIN, cache=ClusterCache(warm_up_batches=2))
    warmed, _ = served(policy, [*batches[:2], batches[0]])
    alone = [
        replace(PLAIN, scope="batch").decide(matrix_layer("fc", 20, 3, 10), rows, {})
        for rows in batches[:2]
    ]
    same(warmed[:2], alone, but=["ages"])
    assert [each.rows.reuse_rate for each in warmed] == [0, 0, 1]


def test_a_single_row_finds_the_frame_before():
    layer = matrix_layer("head", 1, 3, 10)
    rows = np.ones((1, 1, 10), np.float32)
    (_, second), _ = served(PLAIN, [rows, rows], layer=layer)
    assert second.rows.reuse_rate == 1


@given(cluster_caches(), st.integers(0, 2**32 - 1))
@settings(relaxed, max_examples=40)
def test_a_resumed_stream_goes_on_as_if_never_stopped(tmp_path_factory, cache, seed):
    policy = replace(PLAIN, cache=cache)
    batches = batches_of_kinds(np.random.default_rng(seed), 30, [12, 40, 7, 25])
    whole, last = served(policy, batches)
    path = tmp_path_factory.mktemp("memory") / "stream.safetensors"
    parts, memory = [], None
    for rows in batches:  # stopped after every batch
        made, memory = served(policy, [rows], memory)
        parts += made
        tables = {"fc": memory}
        save_memory(StreamMemory(policy=policy.describe(), states={}, tables=tables), path)
        before = {name: array.copy() for name, array in memory.items()}
        memory = load_memory(path).tables["fc"]
        assert before.keys() == memory.keys()
        for name, array in before.items():
            np.testing.assert_array_equal(memory[name], array)
            assert memory[name].dtype == array.dtype and memory[name].shape == array.shape
    same(parts, whole)
    for name, array in last.items():
        np.testing.assert_array_equal(memory[name], array)


def test_memory_that_is_given_is_not_changed():
    policy = replace(PLAIN, cache=ClusterCache(entries=4, ways=2, replacement="random"))
    batches = batches_of_kinds(np.random.default_rng(5), 30, [40, 40])
    _, memory = served(policy, batches[:1])
    before = {name: array.copy() for name, array in memory.items()}
    again = [served(policy, batches[1:], memory)[0] for _ in range(2)]
    same(*again)
    for name, array in before.items():
        np.testing.assert_array_equal(memory[name], array)


@pytest.fixture(scope="module")
def digits_stream():
    """A small network on batches of handwritten digits, captured one at a time."""
    import torch

    from workloads.streams import digits

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, padding=1),
        torch.nn.Flatten(),
        torch.nn.LazyLinear(10),
    ).eval()
    data = digits("train")
    images = data.images[:240, :1, ::2, ::2].contiguous()
    with torch.no_grad():
        model(images)
    return model, [
        capture(model, images[i : i + 40], labels=data.labels[i : i + 40])
        for i in range(0, 240, 40)
    ]


ON_CONVOLUTIONS = PerLayer({"[02]": LshReuse(hashes=8, length=9, scope="stream")})


def test_the_reuse_rate_rises_over_a_stream(digits_stream):
    model, traces = digits_stream
    runs = list(decide_stream(iter(traces), ON_CONVOLUTIONS, model=model))
    for layer in ("0", "2"):
        rates = [run.decisions[layer].rows.reuse_rate for run in runs]
        assert rates[0] == 0 and rates[-1] > 0.9
        assert runs[-1].decisions[layer].rows.cluster_reuse_rate > 0.9
        macs = [run.decisions[layer].macs for run in runs]
        assert macs[-1] < macs[0] / 5
        # The signatures of a table without end only grow in number.
        kept = [run.memory.tables[layer]["kept"] for run in runs]
        assert all((a <= b).all() for a, b in pairwise(kept))
    assert runs[0].decisions["4"] is None
    assert all(run.accuracy is not None for run in runs)


def test_a_stream_is_resumed_from_a_file(digits_stream, tmp_path):
    model, traces = digits_stream
    cache = ClusterCache(entries=32, ways=2, replacement="random", refresh_after=300)
    policy = PerLayer({"[02]": LshReuse(hashes=8, length=9, scope="stream", cache=cache)})
    whole = list(decide_stream(traces[:4], policy, model=model))
    first = list(decide_stream(traces[:2], policy, model=model))
    save_memory(first[-1].memory, tmp_path / "m")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    rest = list(decide_stream(traces[2:4], policy, model=model, memory=load_memory(tmp_path / "m")))
    for found, expected in zip([*first, *rest], whole, strict=True):
        assert found.output_mse == expected.output_mse
        for layer in ("0", "2"):
            same([found.decisions[layer]], [expected.decisions[layer]], but=["centroids"])


def test_the_designs_own_cache_decides_and_is_timed(digits_stream):
    model, traces = digits_stream
    design = preset("reuse_16x16")
    policy = PerLayer(
        {"[02]": LshReuse(hashes=8, length=9, scope="stream", cache=ClusterCache.of(design.cache))}
    )
    first, second = decide_stream([traces[0]] * 2, policy, model=model)
    assert [first.decisions[name].rows.reuse_rate for name in "02"] == [0, 0]
    assert second.decisions["0"].macs == 0
    reports = [simulate(traces[0], design, run) for run in (first, second)]
    assert reports[1].reuse.cycles < reports[0].reuse.cycles
    event = simulate(traces[0], design, second, engine="event")
    assert event.to_dict() == reports[1].to_dict()
    with pytest.raises(ConfigError, match=r"can't hold clusters without end.*ClusterCache\.of"):
        simulate(traces[0], design, ON_CONVOLUTIONS)
    small = replace(design, cache=replace(design.cache, replacement="fifo"))
    with pytest.raises(ConfigError, match=r"\(entries, ways, replacement\) must be those"):
        simulate(traces[0], small, first)


def test_a_report_of_a_stream_has_no_point_without_work(tmp_path):
    trace = WorkloadTrace.from_gemms([("fc", Gemm(m=256, n=64, k=160))])
    layer, design = trace.layers[0], preset("reuse_16x16")
    decisions = stream_decisions(layer, design, [0] * 16)
    run = ReuseRun(
        policy={}, images=trace.images, decisions={"fc": decisions}, relative_mse={"fc": 0.0}
    )
    report = simulate(trace, design, run)
    assert report.reuse.layers[0].timing.macs == report.reuse.utilization == 0
    described = {"reuse": report.reuse.to_dict()}
    layout = roofline(described).layout
    assert np.isfinite([*layout.xaxis.range, *layout.yaxis.range]).all()
    report.write_html(tmp_path / "report.html")


def stream_decisions(layer, design, new):
    """20 clusters in each of 16 sub-matrices of length 10; `new[j]` of them are new."""
    fresh = np.concatenate([np.arange(20) < count for count in new])
    made = even_decisions(layer, length=10, clusters=20)
    return replace(
        made,
        rows=replace(made.rows, ages=(~fresh).astype(np.int64)),
        evidence=replace(made.evidence, cache=ClusterCache.of(design.cache)),
    )


def test_a_tile_pays_for_its_table_and_its_new_clusters():
    layer, design = matrix_layer("fc", 256, 64, 160), roomy_design()
    decisions = stream_decisions(layer, design, new=[5] * 15 + [0])
    timing = layer_timing(layer, decisions, design)
    # Rows are met in turn: 13 rows of clusters 0 to 15, 12 of 16 to 19; 5 x 13 of 256 are new.
    assert decisions.rows.reuse_rate == 1 - 15 * 5 * 13 / (16 * 256)
    assert timing.macs == 15 * 5 * 10 * 64
    # Four folds of n; a fold takes 2 x 16 + 16 + 5 - 2 = 51 cycles; none for the last tile.
    assert timing.busy_cycles["array"] == 15 * 4 * 51
    # The tags of 128 sets change places, 256 are looked up, 5 centroids handed on.
    assert timing.busy_cycles["cache"] == 16 * (128 + 256) + 15 * 5
    assert timing.dram_bytes["weights"] == 15 * 10 * 64
    # Each entry has 10 - 7 bits of tag (128 sets), a valid bit and 3 bits of age. Old results come
    # in, new ones go out, four bytes each.
    assert timing.dram_bytes["spilled_results"] == 16 * (2 * 1024 * 7 // 8 + 20 * 64 * 4)
    # And all results of the entries, of 64 columns, were the table full.
    assert timing.kept_bytes == 16 * (1024 * 7 // 8 + 1024 * 64 * 4)
    actions = timing.actions
    assert actions["cache", "lookup"] == 16 * (256 + 2 * 128)
    assert actions["cache", "write_row"] == 15 * 5 * 13
    assert actions["cache", "accumulate"] == 15 * 5 * (13 - 1) * 10
    assert actions["cache", "clear_entry"] == 0
    table = replace(decisions.evidence.cache, refresh_after=1000)
    uses = replace(decisions, evidence=replace(decisions.evidence, cache=table))
    counted = layer_timing(layer, uses, design).dram_bytes["spilled_results"]
    assert counted - timing.dram_bytes["spilled_results"] == 16 * 2 * 1024 * 10 // 8


@pytest.mark.parametrize(("centroid_bytes", "stays"), [(2**12, False), (2**20, True)])
def test_results_that_are_kept_anyway_are_stored_once(centroid_bytes, stays):
    # Half of the output buffer holds 64 rows of sums: found first, results are gathered in four
    # passes. All 16 x 20 of 256 bytes fit half of a large centroid buffer only.
    layer = matrix_layer("fc", 256, 64, 160)
    design = roomy_design(output_buffer=buffer(2**15), centroid_buffer=buffer(centroid_bytes))
    results, ids, table = 16 * 20 * 256, 16 * 256, 16 * 1024 * 7 // 8
    for new in (0, 5, 20):
        decisions = stream_decisions(layer, design, [new] * 16)
        left = Remaining.of(layer, decisions)
        cut_by = next(each for each in passes(left, design) if each.results_first)
        moved = {
            (each.buffer, each.stored): each.moved_bytes.sum()
            for each in cut_by.tiles(left, design).transfers
            if each.kind == "spilled_results"
        }
        stored = results * new // 20
        assert moved["centroid_buffer", True] == stored + ids * (not stays)
        assert moved["centroid_buffer", False] == (results - stored if stays else 4 * results + ids)
        assert moved[None, False] == moved[None, True] == table


def test_a_memory_of_something_else_is_refused(digits_stream, tmp_path):
    model, traces = digits_stream
    run = decide(traces[0], ON_CONVOLUTIONS, model=model)
    other = PerLayer({"[02]": LshReuse(hashes=9, length=9, scope="stream")})
    with pytest.raises(ConfigError, match=r"memory must come from the same policy.*'hashes': 9"):
        decide(traces[1], other, memory=run.memory)
    with pytest.raises(ConfigError, match="calibration must not be given with memory"):
        decide(traces[1], ON_CONVOLUTIONS, calibration=traces[0], memory=run.memory)
    half = replace(run.memory, tables={"0": run.memory.tables["0"]})
    with pytest.raises(ConfigError, match=r"memory must hold layer '2', got only 0"):
        decide(traces[1], ON_CONVOLUTIONS, memory=half)
    swapped = replace(run.memory, tables=dict.fromkeys("02", run.memory.tables["0"]))
    message = r"memory of layer '2' must be of \(count, k, L\) = \(1, 72, 9\), got \(1, 9, 9\)"
    with pytest.raises(ConfigError, match=message):
        decide(traces[1], ON_CONVOLUTIONS, memory=swapped)
    assert decide(traces[0], NoReuse()).memory is None


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    _, memory = served(PLAIN, [np.ones((1, 3, 4), np.float32)])
    save_memory(StreamMemory(policy={"policy": "x"}, states={}, tables={"fc": memory}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ConfigError, match="must have the CRC-32"):
        load_memory(path)
    path.write_bytes(whole[:-9])
    with pytest.raises(ConfigError, match="must be a file that save_memory wrote"):
        load_memory(path)
    with pytest.raises(ConfigError, match="must be a file that save_memory wrote"):
        load_memory(tmp_path / "absent")
    save_file({"a": np.ones(1)}, path)
    with pytest.raises(ConfigError, match="must be a similarity-codesign stream memory, got None"):
        load_memory(path)
    path.write_bytes(whole)
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["description"])
    save_file({"a": np.ones(1)}, path, {"description": json.dumps(header | {"format_version": 9})})
    with pytest.raises(ConfigError, match="must have format_version 2, got 9"):
        load_memory(path)


def test_every_broken_rule_of_a_table_is_named():
    with pytest.raises(ConfigError) as caught:
        ClusterCache(entries=0, ways=1.5, replacement="mru", refresh_after=0, warm_up_batches=-1)
    assert [message.split(",")[0] for message in caught.value.violations] == [
        "ClusterCache.entries must be an integer from 1 to 16777216",
        "ClusterCache.ways must be an integer from 1 to 16777216",
        "ClusterCache.replacement must be one of 'lru'",
        f"ClusterCache.refresh_after must be an integer from 1 to {2**62}",
        f"ClusterCache.warm_up_batches must be an integer from 0 to {2**62}",
    ]
    with pytest.raises(ConfigError, match=r"ways must divide entries=100, got 8; use 4"):
        ClusterCache(entries=100, ways=8)
    with pytest.raises(ConfigError, match=r"ways must be None with entries=None, got 4"):
        ClusterCache(ways=4)
    with pytest.raises(ConfigError, match=r"LshReuse\.cache must be None with scope='image'"):
        LshReuse(hashes=4, length=4, cache=ClusterCache())
    with pytest.raises(ConfigError, match=r"LshReuse\.cache must be None or a ClusterCache"):
        LshReuse(hashes=4, length=4, scope="stream", cache=1024)


def test_results_are_not_kept_where_weights_change():
    layer = replace(matrix_layer("attn.scores", 8, 8, 4), weights_are_parameters=False)
    with pytest.raises(ConfigError, match=r"got 'stream' for attn\.scores"):
        PLAIN.check_layers([layer])
    replace(PLAIN, scope="batch").check_layers([layer])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_activations_that_are_not_finite_name_the_layer(value):
    rows = np.ones((1, 3, 4), np.float32)
    _, memory = served(PLAIN, [rows])
    rows[0, 1, 2] = value  # the signature may be a known one
    with pytest.raises(ConfigError, match="layer 'fc' must be finite"):
        served(PLAIN, [rows], memory)


def test_a_trace_without_model_can_be_a_stream():
    trace = WorkloadTrace.from_gemms([("fc", Gemm(m=8, n=2, k=8))])
    assert list(decide_stream([trace, trace], NoReuse()))[1].memory is None
