"""How alike inputs and the rows of layers are, before any reuse is decided.

Treasure What You Have, Fig. 1 (cosine similarity between inputs) and Fig. 2 (similarity by layer).
The paper says neither whether images lose their mean nor between which rows of a layer it compares;
both are stated here.
"""

from dataclasses import dataclass

import numpy as np

from accelerators import ConfigError
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace


@dataclass(frozen=True, kw_only=True)
class LayerSimilarity:
    """Mean cosine similarity of the rows that one layer multiplies.

    Rows without a direction (all 0, or constant where they are centred) are left out of both means.

    Attributes:
        layer: its name.
        kind: as `Layer.kind`.
        rows_per_image: rows of an image in one matrix product.
        within_image: over all pairs of different rows of an image, -1 to 1; `None` where no image
            has two rows with a direction.
        next_image: over all rows and the same row (position, token) of the next image, -1 to 1;
            `None` with a single image, or where images cannot be told apart.
    """

    layer: str
    kind: str
    rows_per_image: int
    within_image: float | None
    next_image: float | None


def input_similarity(inputs: np.ndarray, *, centred: bool = False) -> np.ndarray:
    """Cosine similarity of every input with every other (Treasure What You Have, Fig. 1).

    Args:
        inputs: `(n, ...)` numbers, n at least 1, such as `trace.inputs[0]`.
        centred: take from each input its own mean first, which makes this Pearson's correlation:
            brightness, and how a data set is normalised, no longer count.

    Returns:
        `(n, n)` float64, -1 to 1; NaN for an input that has no direction (all 0, or constant where
        centred).

    Raises:
        ConfigError: there is no input, or a value is not finite.
    """
    given = np.asarray(inputs)
    if given.ndim < 2 or not given.size:
        raise ConfigError(
            f"input_similarity.inputs must be (n, ...) with n at least 1, got shape {given.shape}; "
            "give images along the first dimension"
        )
    vectors = given.reshape(len(given), -1).astype(np.float64)
    if not np.isfinite(vectors).all():
        raise ConfigError(
            "input_similarity.inputs must be finite, got NaN or infinity; check the inputs"
        )
    directions = _directions(vectors, centred=centred)
    directions[~directions.any(axis=1)] = np.nan
    # Rounding leaves the similarity of a vector with itself just above 1.
    return np.clip(directions @ directions.T, -1, 1)


def similarity_by_distance(similarity: np.ndarray) -> np.ndarray:
    """Mean similarity of inputs that lie 1, 2, ... places apart in their stream.

    Args:
        similarity: `(n, n)` of `input_similarity`, n at least 2.

    Returns:
        `(n - 1,)` float64; NaN where no pair has a direction.
    """
    means = []
    for distance in range(1, len(similarity)):
        known = np.diagonal(similarity, distance)
        known = known[~np.isnan(known)]
        means.append(known.mean() if known.size else np.nan)
    return np.array(means)


def layer_similarity(trace: WorkloadTrace, *, centred: bool = False) -> tuple[LayerSimilarity, ...]:
    """How alike the rows of each layer are (Treasure What You Have, Fig. 2).

    Args:
        trace: a captured workload.
        centred: take from each row its own mean first (Pearson's correlation). Activations after
            a ReLU point into one corner of space, which alone makes their cosine large.

    Returns:
        One entry a layer, in the trace's order.

    Raises:
        TraceError: the trace has no activations.
    """
    return tuple(_of_layer(trace, layer, centred=centred) for layer in trace.layers)


def _of_layer(trace: WorkloadTrace, layer: Layer, *, centred: bool) -> LayerSimilarity:
    by_image = _by_image(layer, trace.rows(layer.name))
    within, following = [], []
    for images in by_image:
        before = None
        for rows in images:
            directions = _directions(rows, centred=centred)
            within.append(_mean_of_pairs(directions))
            if before is not None:
                following.append(_mean_of_matches(before, directions))
            before = directions
    return LayerSimilarity(
        layer=layer.name,
        kind=layer.kind,
        rows_per_image=by_image.shape[2],
        within_image=_mean(within),
        next_image=_mean(following),
    )


def _by_image(layer: Layer, rows: np.ndarray) -> np.ndarray:
    """`(count, m, k)` rows as `(products, images, rows, k)`; one image where none is told apart."""
    count, m, k = rows.shape
    if layer.row_images > 1:
        return rows.reshape(count, layer.row_images, m // layer.row_images, k)
    if layer.images > 1 and count > 1 and count % layer.images == 0:  # heads of each image
        return rows.reshape(layer.images, count // layer.images, m, k).swapaxes(0, 1)
    return rows[:, None]


def _directions(vectors: np.ndarray, *, centred: bool) -> np.ndarray:
    """`(n, k)` vectors at length 1; those without a direction as 0."""
    if centred:
        means = vectors.mean(axis=1, keepdims=True, dtype=np.float64)
        rest = vectors - means
        # What is left of a constant vector is rounding, not a direction.
        noise = 8 * np.finfo(vectors.dtype).eps * np.abs(means)
        rest[np.abs(rest).max(axis=1) <= noise[:, 0]] = 0
        vectors = rest
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))[:, None]
    return np.divide(vectors, lengths, out=np.zeros(vectors.shape, np.float64), where=lengths > 0)


def _mean_of_pairs(directions: np.ndarray) -> float | None:
    """Mean cosine of all pairs of n different rows, (|sum|^2 - n) / (n (n - 1))."""
    n = int(np.count_nonzero(directions.any(axis=1)))
    if n < 2:
        return None
    total = directions.sum(axis=0)
    return float((total @ total - n) / (n * (n - 1)))


def _mean_of_matches(left: np.ndarray, right: np.ndarray) -> float | None:
    """Mean cosine of each row with the one at its place."""
    both = left.any(axis=1) & right.any(axis=1)
    if not both.any():
        return None
    return float(np.einsum("ij,ij->i", left, right)[both].mean())


def _mean(values: list[float | None]) -> float | None:
    """Of those that are known; cosines lie within 1 but for rounding."""
    known = [value for value in values if value is not None]
    return float(np.clip(np.mean(known), -1, 1)) if known else None
