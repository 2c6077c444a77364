"""Compiled loops of deep reuse: hashing, clustering, accumulation and gathering.

All kernels read activations column by column, `(k, m)` with the rows of one column contiguous, so
that the innermost loops run over rows and vectorise. Functions here take and return plain arrays;
their meaning is given in `decisions.ReuseDecisions`.
"""

import numpy as np
from numba import njit

# Rows hashed at a time: the block's partial sums stay in the first-level cache.
ROW_BLOCK = 512
# Odd 64-bit constant nearest 2^64 / golden ratio (Knuth, TAOCP 3, 6.4): spreads signatures.
_MIX = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def hash_block(columns, first, last, start, stop, projections, thresholds, sums, signatures):
    """Write the signatures of rows `start:stop` of the sub-matrix of columns `first:last`.

    Bit h of a signature is 1 where projection h of the sub-vector exceeds its threshold
    (Deep Reuse, equation 1, with the mean folded into the threshold).
    """
    size = stop - start
    for row in range(size):
        signatures[row] = np.uint64(0)
    for h in range(projections.shape[0]):
        for row in range(size):
            sums[row] = np.float32(0.0)
        column = first
        while column + 4 <= last:  # four columns a pass: a quarter of the loads and stores of sums
            w0 = projections[h, column - first]
            w1 = projections[h, column - first + 1]
            w2 = projections[h, column - first + 2]
            w3 = projections[h, column - first + 3]
            c0 = columns[column, start:stop]
            c1 = columns[column + 1, start:stop]
            c2 = columns[column + 2, start:stop]
            c3 = columns[column + 3, start:stop]
            for row in range(size):
                sums[row] += w0 * c0[row] + w1 * c1[row] + w2 * c2[row] + w3 * c3[row]
            column += 4
        while column < last:
            weight = projections[h, column - first]
            values = columns[column, start:stop]
            for row in range(size):
                sums[row] += weight * values[row]
            column += 1
        bit = np.uint64(1) << np.uint64(h)
        threshold = thresholds[h]
        for row in range(size):
            if sums[row] > threshold:
                signatures[row] |= bit


@njit(cache=True, nogil=True)
def cluster_rows(columns, length, groups, projections, thresholds, ids, clusters, signatures, sums):
    """Cluster every sub-matrix of one GEMM and accumulate its clusters.

    Args:
        columns: `(k, m)` float32.
        length: sub-vector length L.
        groups: row groups that are clustered apart; divides m.
        projections: `(H, L)` float32.
        thresholds: `(s, H)` float32.
        ids: out, `(s, m)` int32, cluster of each sub-vector, numbered from 0 in each group in
            the order in which the clusters are first seen.
        clusters: out, `(s, groups)` int32, number of clusters.
        signatures: out, `(capacity,)` uint64, of each cluster, ordered (sub-matrix, group, id).
        sums: out, `(capacity, L)` float32, sum of each cluster's sub-vectors; then its mean.

    Returns:
        Number of clusters in all.
    """
    k, m = columns.shape
    hashes = projections.shape[0]
    rows = m // groups
    # Direct addressing where all signatures fit a table of this size, else open addressing.
    slot_bits = 1
    while (1 << slot_bits) < 2 * rows:
        slot_bits += 1
    direct = hashes <= slot_bits
    slots = 1 << slot_bits
    mask = np.uint64(slots - 1)
    shift = np.uint64(64 - slot_bits)
    owner = np.full(slots, -1, np.int64)  # (sub-matrix, group) that filled the slot last
    cluster_of = np.empty(slots, np.int32)
    size_of = np.empty(rows, np.int32)
    block_sums = np.empty(ROW_BLOCK, np.float32)
    block_signatures = np.empty(ROW_BLOCK, np.uint64)
    # Unsigned flat indices: no wrap-around test in the loop that adds every element once.
    flat_columns = columns.ravel()
    flat_sums = sums.ravel()
    step = np.uint64(m)
    total = 0
    for j in range(ids.shape[0]):
        first = j * length
        last = min(first + length, k)
        for group in range(groups):
            tag = np.int64(j) * groups + group
            found = 0
            begin = group * rows
            end = begin + rows
            for start in range(begin, end, ROW_BLOCK):
                stop = min(start + ROW_BLOCK, end)
                hash_block(
                    columns, first, last, start, stop, projections, thresholds[j],
                    block_sums, block_signatures,
                )  # fmt: skip
                for row in range(start, stop):
                    signature = block_signatures[row - start]
                    slot = signature & mask if direct else (signature * _MIX) >> shift
                    while owner[slot] == tag and (
                        signatures[total + cluster_of[slot]] != signature
                    ):
                        slot = (slot + np.uint64(1)) & mask
                    if owner[slot] == tag:
                        cluster = cluster_of[slot]
                        size_of[cluster] += 1
                        source = np.uint64(first * m + row)
                        target = np.uint64((total + cluster) * length)
                        for _ in range(last - first):
                            flat_sums[target] += flat_columns[source]
                            source += step
                            target += np.uint64(1)
                    else:
                        cluster = found
                        found += 1
                        owner[slot] = tag
                        cluster_of[slot] = cluster
                        size_of[cluster] = 1
                        signatures[total + cluster] = signature
                        for column in range(first, last):
                            sums[total + cluster, column - first] = columns[column, row]
                        for offset in range(last - first, length):
                            sums[total + cluster, offset] = np.float32(0.0)
                    ids[j, row] = cluster
            clusters[j, group] = found
            for cluster in range(found):
                scale = np.float32(1.0) / np.float32(size_of[cluster])
                for offset in range(last - first):
                    sums[total + cluster, offset] *= scale
            total += found
    return total


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def gather_add(results, offsets, ids, first_group, last_group, output):
    """Rebuild output rows of groups `first_group:last_group` from centroid results.

    Args:
        results: `(r, n)` float32, centroid times weights.
        offsets: `(s, groups)` int64, first row in `results` of each sub-matrix and group.
        ids: `(s, m)` int32.
        first_group: first group whose rows are rebuilt.
        last_group: one past the last.
        output: out, `(m, n)` float32.
    """
    columns = output.shape[1]
    rows = ids.shape[1] // offsets.shape[1]
    for group in range(first_group, last_group):
        for row in range(group * rows, (group + 1) * rows):
            target = output[row]
            source = results[offsets[0, group] + ids[0, row]]
            for column in range(columns):
                target[column] = source[column]
            for j in range(1, ids.shape[0]):
                source = results[offsets[j, group] + ids[j, row]]
                for column in range(columns):
                    target[column] += source[column]
