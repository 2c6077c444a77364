"""What decisions on rows leave: which rows, and the layer of these rows alone."""

from dataclasses import replace

import numpy as np

from accelerators import ConfigError
from simulator.decisions.rows import FilledRows, KeptRows, RowDecisions, SharedRows
from workloads.traces.layer import Layer


def rows_left(layer: str, rows: RowDecisions) -> np.ndarray | int:
    """The rows that decisions leave to be computed, the same of every product.

    Args:
        layer: its name, for messages.
        rows: what becomes of its rows.

    Returns:
        `(m',)` int64 numbers of rows; of rows that are shared whole, the number of clusters.

    Raises:
        ConfigError: products are left with different rows, or with parts of rows.
    """
    where = f"decisions of layer {layer!r}"
    if isinstance(rows, SharedRows):
        if not shares_whole_rows(rows):
            raise ConfigError(
                f"{where} must share whole rows of one product for more to be decided on what is "
                "left of them, got parts of rows, several products, scaled rows or a stream's "
                "table; use length=None without normalising"
            )
        return rows.total_clusters
    computed = rows.is_computed
    if (computed != computed[0]).any():
        raise ConfigError(
            f"{where} must leave the same rows of all {rows.gemm.count} products for more to be "
            "decided on them, got different ones; decide on this layer by one technique"
        )
    return np.flatnonzero(computed[0])


def left_of(layer: str, rows: FilledRows | KeptRows, given: np.ndarray) -> np.ndarray:
    """What is multiplied for the rows that decisions leave.

    Args:
        layer: its name, for messages.
        rows: what becomes of its rows.
        given: `(count, m, k)` float32, the layer's rows.

    Returns:
        `(count, m', k)` float32.

    Raises:
        ConfigError: as `rows_left`.
    """
    left = rows_left(layer, rows)
    if isinstance(rows, KeptRows) and rows.operands is not None:
        return rows.operands
    return np.ascontiguousarray(given[:, left])


def shares_whole_rows(rows: SharedRows) -> bool:
    """Whether every cluster is of whole rows of a single product, and multiplied now."""
    looks = rows.looks
    whole = looks.sub_matrices == 1 and looks.taps == 1 and rows.gemm.count == 1
    return whole and not rows.scaled and rows.ages is None


def layer_of_rows(layer: Layer, rows: RowDecisions | None = None) -> Layer:
    """The layer as what is decided next sees it: a product of the rows that are left.

    A convolution's rows stay in the order (c, kh, kw), and its feature map travels whole. Rows of
    images are told apart where every image is left with the same positions.

    Args:
        layer: as it was captured.
        rows: what becomes of its rows; `None`: all are left.

    Raises:
        ConfigError: as `rows_left`.
    """
    left = layer.gemm.m if rows is None else rows_left(layer.name, rows)
    m = left if isinstance(left, int) else len(left)
    alike = rows is None or (isinstance(rows, FilledRows) and layer.row_images == rows.images)
    gemm = replace(layer.gemm, m=m)
    return replace(
        layer,
        kind="linear" if gemm.count == 1 else "batched_matmul",
        gemm=gemm,
        convolution=None,
        row_images=layer.row_images if alike else 1,
        output_shape=(gemm.count * m, gemm.n),
    )


def layer_of_images(layer: Layer, images: int) -> Layer:
    """The layer as a batch of fewer images runs it: the frames in which it is computed.

    Rows, or products, are those of so many images; weights and columns are as they were.

    Raises:
        ConfigError: the layer's sizes do not follow from its images, or there are more than it has.
    """
    gemm, batch = layer.gemm, layer.images
    if not 1 <= images <= batch:
        raise ConfigError(
            f"frames of layer {layer.name!r} must be 1 to the {batch} that it has, got {images}; "
            "a layer that runs in none is left out"
        )
    if images == batch:
        return layer
    of_rows = layer.row_images == batch
    whole, one = (gemm.m, "m") if of_rows else (gemm.count, "count")
    sizes = (whole, layer.input_shape[0], layer.output_shape[0])
    if any(size % batch for size in sizes):
        raise ConfigError(
            f"frames of layer {layer.name!r} must be an equal share of its rows or products, got "
            f"{gemm} for {batch} images; run it in every frame"
        )

    def fewer(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0] // batch * images, *shape[1:])

    return replace(
        layer,
        gemm=replace(gemm, **{one: whole // batch * images}),
        images=images,
        row_images=images if of_rows else 1,
        input_shape=fewer(layer.input_shape),
        output_shape=fewer(layer.output_shape),
    )
