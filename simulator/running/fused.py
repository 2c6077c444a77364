"""Decides by signatures and multiplies in one pass over a feature map, where it lies."""

from itertools import chain
from typing import TypeGuard

import numpy as np

from simulator.decisions.box import Decisions
from simulator.kernels.feature_maps import (
    FeatureMap,
    families_of,
    is_laid_out,
    lane_columns,
    lay_out,
    new_output,
    reused,
)
from simulator.kernels.grouping import Clusters, joined, stacked
from simulator.policies.activations import Activations
from simulator.policies.clustering import Clustering, SignatureClustering
from workloads.traces.layer import Layer


def is_fused(clustering: Clustering, layer: Layer) -> TypeGuard[SignatureClustering]:
    """Whether the compiled loops know the pattern: means of clusters of equal signatures in a
    laid-out feature map."""
    hashed = isinstance(clustering, SignatureClustering) and clustering.is_by_runs
    return hashed and clustering.representative == "centroid" and is_laid_out(layer)


def fused(
    layer: Layer,
    clustering: SignatureClustering,
    given: Activations,
    weights: np.ndarray | None,
    *,
    centroids: bool,
) -> tuple[Decisions, np.ndarray | None]:
    """Decisions and, with `(count, k, n)` float32 weights, the `(count, m, n)` product under them.

    The decisions' centroids are empty if they are not wanted.

    Raises:
        ConfigError: activations or weights are NaN or infinite.
    """
    laid = lay_out(layer, given.stored)
    made, results = [], []
    for index in range(layer.gemm.count):
        columns = None
        if weights is not None:
            columns = lane_columns(weights[index], clustering.column_order)
        output = new_output(layer, columns)
        results.append(output[:, : layer.gemm.n])
        made.append(_clusters(layer, clustering, laid, index, columns, output, centroids=centroids))
    decisions = clustering.decisions(layer, made, clustering.evidence)
    return decisions, None if weights is None else stacked(results)


def _clusters(
    layer: Layer,
    clustering: SignatureClustering,
    laid: FeatureMap,
    index: int,
    columns: np.ndarray | None,
    output: np.ndarray,
    *,
    centroids: bool,
) -> Clusters:
    """The clusters of one GEMM; their results are added to the output on the way."""
    gemm, groups, length = layer.gemm, clustering.looks.tiles, clustering.length
    sub_matrices = clustering.looks.sub_matrices
    ids = np.empty((sub_matrices, gemm.m), np.int32)
    clusters = np.empty((sub_matrices, groups), np.int32)
    most = groups * min(gemm.m // groups, 2**clustering.hashes)
    names = np.empty((sub_matrices, most), np.uint64)
    means: list[list[np.ndarray]] = [[] for _ in range(sub_matrices)]
    for some in reused(
        layer,
        laid,
        families_of(layer, length, clustering.column_order, index),
        groups,
        (clustering.hyperplanes, clustering.thresholds[index]),
        columns=columns,
        output=output,
        ids=ids,
        names=names,
        keeps=centroids,
    ):
        clusters[some.numbers] = some.clusters
        if centroids:
            for number, mean in some.representatives(length):
                means[number].append(mean)
    totals = clusters.sum(axis=1, dtype=np.int64)
    return Clusters(
        ids=ids,
        clusters=clusters,
        signatures=joined([own[:n] for own, n in zip(names, totals, strict=True)]),
        representatives=joined([np.empty((0, length), np.float32), *chain(*means)]),
    )
