"""Hyperplanes learned from calibration activations instead of drawn at random."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from simulator.policies.policy import ReadWeights

# Sub-vectors that a rotation is learned from.
_SAMPLE = 2**14
_ROTATION_STEPS = 50  # Gong and Lazebnik (2011), section 2.2: converged after 50
# Groups in a step of gradient descent, and rows of each.
_BATCH_GROUPS, _BATCH_ROWS = 8, 128
_STEPS, _LEARNING_RATE = 300, 0.02
# The sigmoids steepen from the first to the last step, towards signatures.
_SLOPES = (1.0, 3.0)
# Each differing bit takes a row's say in another's centroid down by e to this.
_HAMMING_SLOPE = 2.0


@dataclass(frozen=True, kw_only=True)
class CalibrationRows:
    """Calibration activations of a layer as the sub-vectors that are hashed.

    Attributes:
        rows: `(count, m, k)` float32, in the layer's own order of columns.
        order: `(k,)` int64 order in which they are cut, or `None`.
        length: L.
        shift: `(count, k)` float32, subtracted from every row, in the layer's order.
        groups: runs of rows that are clustered apart.
    """

    rows: np.ndarray
    order: np.ndarray | None
    length: int
    shift: np.ndarray
    groups: int

    @property
    def sub_matrices(self) -> int:
        """Sub-matrices of a GEMM."""
        return math.ceil(self.rows.shape[2] / self.length)

    def places(self) -> Iterator[tuple[int, int]]:
        """Every (GEMM, sub-matrix)."""
        return iter(np.ndindex(len(self.rows), self.sub_matrices))

    def columns(self, j: int) -> np.ndarray:
        """The layer's columns that sub-matrix `j` is cut from."""
        every = np.arange(self.rows.shape[2]) if self.order is None else self.order
        return every[j * self.length : (j + 1) * self.length]

    def sub_vectors(self, index: int, j: int, rows: slice | np.ndarray) -> np.ndarray:
        """`(rows, L)` float32, zero beyond a short sub-vector."""
        columns = self.columns(j)
        found = self.rows[index].T[columns][:, rows] - self.shift[index, columns, None]
        return np.pad(found, ((0, self.length - len(columns)), (0, 0))).T

    def second_moment(self) -> np.ndarray:
        """`(L, L)` float64 mean of x x^T over all sub-vectors x; their covariance if centred."""
        total = np.zeros((self.length, self.length))
        step = max(1, self.rows.shape[1] // _SAMPLE)
        seen = 0
        for index, j in self.places():
            part = self.sub_vectors(index, j, slice(None, None, step))
            total += part.T @ part
            seen += len(part)
        return total / seen

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """`(about 2^14, L)` sub-vectors, as many of each sub-matrix."""
        each = max(1, _SAMPLE // (len(self.rows) * self.sub_matrices))
        m = self.rows.shape[1]
        return np.concatenate(
            [self.sub_vectors(*place, rng.integers(0, m, each)) for place in self.places()]
        )


def principal(calibration: CalibrationRows, hashes: int, rng: np.random.Generator) -> np.ndarray:
    """`(H, L)` principal directions; beyond L of them, random rotations of all L."""
    _, vectors = np.linalg.eigh(calibration.second_moment())
    blocks = [vectors.T[::-1]]
    while sum(map(len, blocks)) < hashes:
        blocks.append(_random_rotation(calibration.length, rng) @ blocks[0])
    return np.concatenate(blocks)[:hashes]


def quantised(calibration: CalibrationRows, hashes: int, rng: np.random.Generator) -> np.ndarray:
    """`(H, L)` principal directions, rotated so that signs lose least of them.

    Iterative quantisation (Gong and Lazebnik, CVPR 2011, section 2.2): B = sign(V R), and R the
    rotation that takes V nearest to B, in turn. Beyond L hashes, another rotation of all L
    directions is learned from another random start.
    """
    kept = min(hashes, calibration.length)
    directions = principal(calibration, kept, rng)
    values = calibration.sample(rng) @ directions.T
    blocks: list[np.ndarray] = []
    while sum(map(len, blocks)) < hashes:
        rotation = _random_rotation(kept, rng)
        for _ in range(_ROTATION_STEPS):
            bits = np.where(values @ rotation > 0, 1.0, -1.0)
            left, _, right = np.linalg.svd(bits.T @ values)
            rotation = (left @ right).T
        blocks.append(rotation.T @ directions)
    return np.concatenate(blocks)[:hashes]


def task_learned(
    calibration: CalibrationRows,
    start: np.ndarray,
    weights: ReadWeights,
    rng: np.random.Generator,
    *,
    signs: bool,
) -> np.ndarray:
    """`(H, L)` hyperplanes that make a layer's output err least under reuse, by gradient.

    TREC (ASPLOS 2022) learns its hash vectors together with the network's task. Here each layer
    learns alone: its loss is the mean of |(x - c) W|^2, where the centroid c of a row x is the
    mean of the other rows of its group, weighted by how many bits of their relaxed signatures
    (tanh of the projection, steeper from step to step) they share. Adam, 300 steps.

    Args:
        calibration: what to learn from.
        start: `(H, L)` hyperplanes to start from.
        weights: reads the layer's weights.
        rng: draws groups and rows.
        signs: learn hyperplanes of +-1, passing gradients straight through their rounding.
    """
    if calibration.rows.shape[1] < 2 * calibration.groups:
        return start  # single rows share with none

    import torch

    draw = _batches(calibration, weights(), rng)
    # Directions of like lengths, whatever the scale of the layer's activations.
    scale = math.sqrt(np.trace(calibration.second_moment())) or 1.0
    norms = np.maximum(np.linalg.norm(start, axis=1, keepdims=True), 1e-6)
    planes = torch.tensor(start / norms * math.sqrt(calibration.length), dtype=torch.float32)
    planes.requires_grad_()
    adam = torch.optim.Adam([planes], lr=_LEARNING_RATE)
    with torch.enable_grad():
        for slope in np.geomspace(*_SLOPES, _STEPS):
            rows, factors = (torch.from_numpy(each) for each in draw())
            used = planes
            if signs:
                used = planes + (torch.where(planes < 0, -1.0, 1.0) - planes).detach()
            bits = torch.tanh(slope / scale * rows @ used.T)
            likeness = 0.5 * _HAMMING_SLOPE * bits @ bits.mT
            likeness.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
            centroids = torch.softmax(likeness, dim=2) @ rows
            loss = ((rows - centroids) @ factors).square().sum(dim=2).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
    return planes.detach().numpy()


def _batches(
    calibration: CalibrationRows, weights: np.ndarray, rng: np.random.Generator
) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Draws `(groups, rows, L)` sub-vectors and `(groups, L, r)` factors: |x F| is |x W|."""
    places = list(calibration.places())
    length, n = calibration.length, weights.shape[2]
    factors = np.zeros((len(places), length, min(length, n)), np.float32)
    for place, (index, j) in enumerate(places):
        part = weights[index][calibration.columns(j)]
        if n > length:  # the square root of W W^T serves as well, and is smaller
            part = np.pad(part, ((0, length - len(part)), (0, 0)))
            values, vectors = np.linalg.eigh(part @ part.T)
            part = vectors * np.sqrt(np.maximum(values, 0))
        factors[place, : len(part)] = part
    scale = np.sqrt(np.square(factors).mean())
    factors /= scale or 1.0
    rows = calibration.rows.shape[1] // calibration.groups
    taken = min(rows, _BATCH_ROWS)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        chosen = rng.integers(0, len(places), _BATCH_GROUPS)
        found = []
        for place in chosen:
            group = rng.integers(0, calibration.groups)
            members = group * rows + rng.choice(rows, taken, replace=False)
            index, j = places[place]
            found.append(calibration.sub_vectors(index, j, members))
        return np.stack(found).astype(np.float32), factors[chosen]

    return draw


def _random_rotation(size: int, rng: np.random.Generator) -> np.ndarray:
    """`(size, size)` orthonormal matrix."""
    return np.linalg.qr(rng.standard_normal((size, size)))[0]
