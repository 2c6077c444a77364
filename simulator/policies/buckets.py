"""Euclidean LSH, and sub-vectors of norm 1: other ways to cluster than by signatures."""

import math

import numpy as np

from simulator.kernels.grouping import Clusters, group_equal
from simulator.policies.activations import check_finite
from simulator.policies.clustering import Clusterer, Cutting
from workloads.traces.layer import Layer

# Odd 64-bit constants of splitmix64 (Steele et al., OOPSLA 2014), which spread every bit.
_SPREAD = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9))


def by_bucket(
    layer: Layer, cutting: Cutting, projections: np.ndarray, widths: np.ndarray, shifts: np.ndarray
) -> Clusterer:
    """Equal buckets of every projection (Datar et al., SoCG 2004, section 3).

    Args:
        layer: the layer.
        cutting: how its rows are cut.
        projections: `(H, L)` float32.
        widths: `(H, 1)` float64 of a bucket, above 0.
        shifts: `(H, 1)` float64, b of each projection.
    """
    length, sub_matrices = cutting.length, cutting.looks.sub_matrices

    def cluster(index: int, columns: np.ndarray, order: np.ndarray) -> Clusters:
        check_finite(layer, columns)
        columns = columns[order]
        keys = np.zeros((sub_matrices, columns.shape[1]), np.uint64)
        for j in range(sub_matrices):
            part = columns[j * length : (j + 1) * length]
            projected = projections[:, : len(part)] @ part
            buckets = np.floor((projected + shifts) / widths).astype(np.int64)
            for bucket in buckets.view(np.uint64):
                keys[j] = _mixed(keys[j], bucket)
        return group_equal(keys, columns, length, cutting.looks.tiles, cutting.representative)

    return cluster


def _mixed(keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Keys of longer and longer tuples: one 64-bit hash of all numbers so far."""
    mixed = (keys ^ numbers) * _SPREAD[0]
    return (mixed ^ (mixed >> np.uint64(29))) * _SPREAD[1]


def unit_sub_vectors(columns: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """`(k, m)` sub-vectors of norm 1 (or 0), and their `(s, m)` norms."""
    sub_matrices = math.ceil(len(columns) / length)
    unit = columns.copy()
    norms = np.empty((sub_matrices, columns.shape[1]), np.float32)
    for j in range(sub_matrices):
        part = unit[j * length : (j + 1) * length]
        norms[j] = np.sqrt(np.square(part, dtype=np.float64).sum(axis=0))
        part /= np.where(norms[j] > 0, norms[j], np.float32(1))
    return unit, norms
