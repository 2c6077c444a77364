"""The studies of Deep Reuse's Fig. 5 and Fig. 6, on inputs small enough to know the answer."""

from argparse import Namespace
from importlib import import_module
from math import sqrt

import pytest


@pytest.fixture(scope="module")
def studies():
    return {
        name: import_module(name)
        for name in ("cifarnet_batches", "006_deep_reuse_figure_5", "007_deep_reuse_figure_6")
    }


@pytest.fixture(scope="module")
def data(studies):
    asked = Namespace(cifar10=None, cifarnet=None, batches=3, batch=4, calibration=4)
    return studies["cifarnet_batches"].load(asked)


def test_batches_are_consecutive_images(data):
    from workloads import digits

    assert [trace.images for trace in data.traces] == [4, 4, 4]
    expected = digits("test").batch(8, 4)
    assert data.traces[2].inputs[0].tolist() == expected.images.tolist()
    assert data.traces[2].labels.tolist() == expected.labels.tolist()


def test_figure_5_counts_rows_and_clusters(studies, data, monkeypatch):
    study = studies["006_deep_reuse_figure_5"]
    tables = {name: study.TABLES[name] for name in ("no end", "256 x 4")}
    monkeypatch.setattr(study, "TABLES", tables)
    # The second and the third batch are the first again: nothing is new in a table without end.
    again = study.Batches(
        model=data.model, traces=[data.traces[0]] * 3, calibration=data.calibration, name="again"
    )
    runs = study.runs_of(again, "plain Gaussian")
    assert list(runs) == [*tables, study.BATCH_SCOPE]
    for layer in study.LAYERS:
        for rate in study.RATES:
            assert study.rates(runs["no end"], layer, rate) == [0, 1, 1]
            assert study.rates(runs[study.BATCH_SCOPE], layer, rate) == [0, 0, 0]
    # The first batch alone is clustered as batch scope does it, whatever comes after.
    first, alone = runs["no end"][0], runs[study.BATCH_SCOPE][0]
    for layer in study.LAYERS:
        assert first.remaining[layer] == alone.remaining[layer] > 0
    assert study.table_of(runs, "again").row_count == len(tables) + 2
    figure = study.draw({hashing: runs for hashing in study.HASHINGS}, "again")
    # Two quantities of two layers, two hashings; accuracies of the tables, batch scope and dense.
    assert len(figure.data) == 2 * 2 * 2 * len(tables) + 2 * (len(tables) + 2)


def point(study, scope, granularity, distance, r_c, accuracy, error):
    return study.Point(
        layer="conv1",
        scope=scope,
        granularity=granularity,
        distance=distance,
        r_c=r_c,
        accuracy=accuracy,
        error=error,
    )


def test_figure_6_compares_like_with_like(studies):
    study = studies["007_deep_reuse_figure_6"]
    points = [
        point(study, "image", "sub", "angular", 0.01, 0.5, 0.4),
        point(study, "image", "sub", "angular", 0.04, 0.6, 0.1),
        point(study, "batch", "sub", "angular", 0.0105, 0.75, 0.2),
        point(study, "image", "whole", "angular", 0.01, 0.25, 0.8),
        point(study, "image", "sub", "euclidean", 0.01, 1.0, 0.1),
        point(study, "image", "sub", "plain", 0.02, 0.5, 0.6),
        point(study, "image", "sub", "plain", 0.2, 0.5, 0.6),
    ]
    # 0.0105 is beside 0.01, nothing is beside 0.04.
    assert study.compared(points, "scope", "batch", "image") == {
        "conv1 sub+angular": [(0.25, pytest.approx(0.5))]
    }
    assert study.compared(points, "granularity", "sub", "whole") == {
        "conv1 image+angular": [(0.25, pytest.approx(0.5))]
    }
    assert study.compared(points, "distance", "angular", "euclidean") == {
        "conv1 image+sub": [(-0.5, pytest.approx(4))]
    }
    # Halfway between 0.01 and 0.04, in logarithms, k-means has sqrt(0.4 x 0.1); r_c=0.2 is beyond.
    assert study.beside_k_means(points, "plain", "conv1") == [pytest.approx(0.6 / sqrt(0.04))]
    assert study.beside_k_means(points, "centred", "conv1") == []


def test_figure_6_measures_every_curve(studies, data):
    study = studies["007_deep_reuse_figure_6"]
    tasks = list(study.policies(iterations=3))
    kinds = {task[1:4] for task in tasks}
    distances = len(study.METRICS) + len(study.HASHINGS)
    assert len(kinds) == 2 * 2 * distances
    # A curve of k-means and one of hashing.
    chosen = [
        task
        for task in tasks
        if task[:3] == ("conv1", "image", "whole") and task[3] in ("angular", "plain")
    ]
    points = [study.measure(data, *task) for task in chosen]
    by_k_means = [p for p in points if p.distance == "angular"]
    # ceil(r_c x 1024) clusters of each image's 1024 rows: nearly r_c, and better the more.
    for found, wanted in zip(by_k_means, sorted(study.R_C["image"], reverse=True), strict=True):
        assert found.r_c <= wanted + 1 / 1024
    errors = [p.error for p in by_k_means]
    assert errors == sorted(errors)
    assert by_k_means[0].legend == "image+whole+angular"
    assert all(0 <= p.accuracy <= 1 for p in points)
    assert len(list(study.tables(points, "few"))) == 3
    assert study.draw(points, 1.0, "few").data
