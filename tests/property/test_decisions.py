"""Decisions of every kind, and of several at once, mean what plain loops make of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators import ConfigError
from simulator import Decisions, FilledRows, KeptRows, Looks, SharedRows
from simulator.decisions.columns import DROPPED, ColumnDecisions
from simulator.decisions.depth import DepthDecisions
from simulator.decisions.frames import KEEP, RUN, FrameDecisions
from simulator.decisions.tokens import TokenPlan
from simulator.running.product import product
from simulator.testing.reference import reference_macs, reference_product
from workloads.traces.layer import Gemm


def shared_rows(rng, gemm, groups):
    length = int(rng.integers(1, gemm.k + 1))
    shape = (gemm.count, -(-gemm.k // length), groups)
    rows = gemm.m // groups
    clusters = rng.integers(1, rows + 1, shape).astype(np.int32)
    ids = np.stack([rng.permutation(np.arange(rows) % size) for size in clusters.ravel()])
    centroids = rng.standard_normal((int(clusters.sum()), length)).astype(np.float32)
    if short := gemm.k % length:
        ends = np.cumsum(clusters.sum(axis=2).ravel()).reshape(gemm.count, -1)
        for end, size in zip(ends[:, -1], clusters[:, -1].sum(axis=1), strict=True):
            centroids[end - size : end, short:] = 0
    return SharedRows(
        gemm=gemm,
        looks=Looks(gemm=gemm, sub_vector_length=length, tiles=groups),
        ids=ids.reshape(*shape[:2], gemm.m).astype(np.int32),
        clusters=clusters,
        centroids=centroids,
        ages=rng.integers(0, 2, len(centroids)),
        column_order=rng.permutation(gemm.k),
    )


def filled_rows(rng, gemm, images):
    positions = gemm.m // images
    computed = np.sort(rng.choice(positions, rng.integers(1, positions + 1), replace=False))
    taps = rng.integers(0, len(computed), (positions, 3)).astype(np.int32)
    weights = rng.standard_normal(taps.shape).astype(np.float32)
    return FilledRows(gemm=gemm, images=images, computed=computed, taps=taps, weights=weights)


def kept_rows(rng, gemm):
    results = rng.standard_normal((gemm.count, gemm.m, gemm.n)).astype(np.float32)
    return KeptRows(gemm=gemm, kept=rng.random((gemm.count, gemm.m)) < 0.5, results=results)


def columns_of(rng, gemm, groups):
    sources = np.tile(np.arange(gemm.n), (groups, 1))
    for own in sources:
        gone = rng.random(gemm.n) < 0.5
        kept = [*np.flatnonzero(~gone), DROPPED]
        own[gone] = rng.choice(kept, int(gone.sum()))
    return ColumnDecisions(gemm=gemm, sources=sources)


def depth_of(rng, gemm):
    full = (gemm.count, gemm.m, gemm.n)
    shape = tuple(size if rng.random() < 0.7 else 1 for size in full)[rng.integers(0, 3) :]
    terms = rng.integers(0, gemm.k + 1, shape).astype(np.int32)
    order = (
        None,
        rng.permutation(gemm.k),
        rng.permuted(np.tile(np.arange(gemm.k)[:, None], gemm.n), axis=0),
    )[rng.integers(0, 3)]
    return DepthDecisions(gemm=gemm, terms=terms, order=order, zeroed=bool(rng.integers(0, 2)))


@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(["none", "shared", "filled", "kept"]),
    with_columns=st.booleans(),
    with_depth=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_results_and_work_are_those_of_plain_loops(seed, kind, with_columns, with_depth):
    rng = np.random.default_rng(seed)
    images = int(rng.integers(1, 4))
    gemm = Gemm(
        m=images * int(rng.integers(1, 4)) * 2,
        n=int(rng.integers(1, 5)),
        k=int(rng.integers(1, 6)),
        count=int(rng.integers(1, 3)),
    )
    rows = {
        "none": lambda: None,
        "shared": lambda: shared_rows(rng, gemm, images),
        "filled": lambda: filled_rows(rng, gemm, images),
        "kept": lambda: kept_rows(rng, gemm),
    }[kind]()
    made = Decisions(
        layer="fc",
        gemm=gemm,
        rows=rows,
        columns=columns_of(rng, gemm, int(rng.choice([1, images]))) if with_columns else None,
        depth=depth_of(rng, gemm) if with_depth and kind != "shared" else None,
    )
    given_rows = rng.standard_normal((gemm.count, gemm.m, gemm.k)).astype(np.float32)
    weights = rng.standard_normal((gemm.count, gemm.k, gemm.n)).astype(np.float32)
    np.testing.assert_allclose(
        product(made, given_rows, weights),
        reference_product(made, given_rows, weights),
        rtol=1e-4,
        atol=1e-4,
    )
    assert made.macs == reference_macs(made) <= gemm.macs
    assert 0 <= made.remaining_ratio <= 1
    bare = made.without_operands()
    assert (bare.macs, bare.remaining_ratio) == (made.macs, made.remaining_ratio)


GEMM = Gemm(m=4, n=3, k=2)


def test_kinds_that_have_no_meaning_together_are_one_error():
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError) as caught:
        Decisions(
            layer="fc",
            gemm=GEMM,
            rows=shared_rows(rng, GEMM, 1),
            columns=columns_of(rng, GEMM, 2),
            depth=depth_of(rng, GEMM),
        )
    assert [each.split(", got")[0] for each in caught.value.violations] == [
        "decisions of layer 'fc' must not end sums of rows that share them",
        "decisions of layer 'fc' must share rows within runs of the same columns",
    ]
    with pytest.raises(ConfigError, match="fill rows in from such with the same columns, got 4"):
        Decisions(
            layer="fc",
            gemm=GEMM,
            rows=filled_rows(rng, GEMM, 2),
            columns=columns_of(rng, GEMM, 4),
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ColumnDecisions(gemm=GEMM, sources=np.zeros((3, 3), int)), "divide m=4"),
        (
            lambda: ColumnDecisions(gemm=GEMM, sources=np.array([[1, 2, 2]])),
            "got 1 for column 0",
        ),
        (lambda: DepthDecisions(gemm=GEMM, terms=np.array([3])), "from 0 to k=2 .* from 3 to 3"),
        (lambda: DepthDecisions(gemm=GEMM, terms=np.ones((5, 1), int)), r"got shape \(5, 1\)"),
        (
            lambda: DepthDecisions(gemm=GEMM, terms=np.array(1), order=np.array([0, 0])),
            "permutation of the k=2 elements",
        ),
        (
            lambda: FilledRows(
                gemm=GEMM, images=2, computed=np.array([0]), taps=np.array([[0], [1]])
            ),
            "places among 1 computed positions",
        ),
        (lambda: KeptRows(gemm=GEMM, kept=np.zeros(4, bool)), r"shape \(count, m\) = \(1, 4\)"),
        (
            lambda: FrameDecisions(frames=2, layers={"a": np.array([KEEP, RUN])}, answers=GIVEN),
            "RUN for the first",
        ),
        (lambda: FrameDecisions(frames=2, answers=np.array([1, 1])), "an earlier frame"),
        (lambda: TokenPlan(stands_for={"a": np.array([[1, DROPPED]])}), "a token that lives"),
        (
            lambda: TokenPlan(stands_for={"a": np.array([[0, -1]]), "b": np.array([[0, 1]])}),
            "bring back",
        ),
    ],
)
def test_what_was_decided_must_be_of_the_layer(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


GIVEN = np.array([0, 1])
