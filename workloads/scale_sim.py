"""Reads the networks of SCALE-Sim, the `.csv` topologies of its version 3."""

from __future__ import annotations

import math
import os
import re
from itertools import pairwise
from pathlib import PurePath

import networkx as nx

from workloads.errors import TraceError
from workloads.gemm import Gemm, Layer
from workloads.trace import WorkloadTrace

_CONVOLUTIONS = (
    "Layer name",
    "IFMAP Height",
    "IFMAP Width",
    "Filter Height",
    "Filter Width",
    "Channels",
    "Num Filter",
    "Strides",
)
_PRODUCTS = ("Layer", "M", "N", "K")
_SPARSITY = "Sparsity"
_DENSE = "1:1"
_LARGEST_NUMBER = 2**31 - 1
# Cycles and bytes of a layer within it fit 64 bits on any array.
_LARGEST_LAYER = 2**48
_LONGEST_NAME = 200
_LARGEST_FILE_BYTES = 2**24
_MOST_VIOLATIONS = 20
_DEPTHWISE = "DP"
_WHOLE = re.compile(r"[0-9]{1,18}")


def read_topology(path: str | os.PathLike[str]) -> WorkloadTrace:
    """A trace of shapes alone from a SCALE-Sim topology of convolutions or of matrix products.

    The header, which SCALE-Sim skips, decides: `Layer name, IFMAP Height, ...` or
    `Layer, M, N, K`. A row may end with a comma, and with a comment (`#...`) after it; a further
    column `Sparsity` must be `1:1`.

    A convolution is the product m = output height x output width, n = filters, k = filter height x
    filter width x channels, where an output size is ceil((H - f + s) / s): without padding, and
    with a last window that may reach beyond the input. No `Convolution` says that, so the layers
    are of kind `linear`, with the true feature maps as `input_shape` (1, channels, height, width)
    and `output_shape`: memory traffic is that of the feature map, not of the unfolded rows. A
    layer with `DP` in its name is depthwise, as in SCALE-Sim, here one layer with a product for
    every channel. Each layer is fed by the one before it.

    Args:
        path: the `.csv` file, at most 16 MiB.

    Raises:
        TraceError: a file that can't be read, and every line that breaks a rule, at most 20.
    """
    label = _label(path)
    # What ends a line for SCALE-Sim, and nothing else.
    lines = _read(path, label).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    columns = _header(lines[0], label)
    problems: list[str] = []
    layers: list[Layer] = []
    first_lines: dict[str, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        where = f"{label} line {number}"
        found = len(problems)
        cells = _cells(line, columns, where, problems)
        if cells is None:
            continue
        name = _name(cells[0], columns[0], where, problems)
        if name and name in first_lines:
            problems.append(
                f"{where} column {columns[0]!r} must name a layer once, got {_shown(name)} again "
                f"after line {first_lines[name]}; rename it"
            )
        first_lines.setdefault(name, number)
        sizes = [
            _size(cell, column, where, problems)
            for cell, column in zip(cells[1:], columns[1:], strict=False)
            if column != _SPARSITY
        ]
        if len(problems) == found:
            layer = _product if len(sizes) == len(_PRODUCTS) - 1 else _convolution
            layers += layer(name, sizes, where, problems)
    if problems:
        more = len(problems) - _MOST_VIOLATIONS
        tail = [f"{label} breaks {more} more rules; mend these first"] if more > 0 else []
        raise TraceError("\n".join(problems[:_MOST_VIOLATIONS] + tail))
    if not layers:
        raise TraceError(f"{label} must hold a layer, got a header alone; add a row for each layer")
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(layer.name for layer in layers)
    graph.add_edges_from(pairwise(layer.name for layer in layers))
    provenance = {"model": PurePath(label).stem, "source": "SCALE-Sim topology, shapes alone"}
    return WorkloadTrace(layers=tuple(layers), graph=graph, images=1, provenance=provenance)


def _header(line: str, label: str) -> tuple[str, ...]:
    """The columns that a header announces."""
    given = [_plain(cell) for cell in line.split(",")]
    while given and not given[-1]:
        given.pop()
    for columns in (_CONVOLUTIONS, _PRODUCTS):
        wanted = [_plain(column) for column in columns]
        if given[1:] == wanted[1:] and given[0].startswith("layer"):
            return columns
        if given[1:] == [*wanted[1:], _plain(_SPARSITY)] and given[0].startswith("layer"):
            return (*columns, _SPARSITY)
    raise TraceError(
        f"{label} line 1 must be the header {', '.join(_CONVOLUTIONS)!r} or "
        f"{', '.join(_PRODUCTS)!r}, got {_shown(line)}; give the columns in that order"
    )


def _plain(cell: str) -> str:
    """A column's name without what writers differ in: case, spaces, a plural."""
    return re.sub(r"[^a-z]", "", cell.lower()).removesuffix("s")


def _cells(
    line: str, columns: tuple[str, ...], where: str, problems: list[str]
) -> list[str] | None:
    """The columns of a row; None, and a violation, if there are more or fewer, or it is sparse."""
    cells = [cell.strip() for cell in line.split(",")]
    if not cells[-1] or cells[-1].startswith("#"):
        cells.pop()
    # SCALE-Sim takes a row without a sparsity for a dense one, whatever the header.
    dense = columns[:-1] if columns[-1] == _SPARSITY else columns
    if len(cells) == len(dense):
        return cells
    if len(cells) != len(dense) + 1 or (columns[-1] != _SPARSITY and ":" not in cells[-1]):
        problems.append(
            f"{where} must have the {len(dense)} columns {', '.join(dense)}, got {len(cells)}; "
            "give one value for each, and a comma at the end"
        )
        return None
    if cells[-1] != _DENSE:
        problems.append(
            f"{where} column {_SPARSITY!r} must be {_DENSE!r}, got {_shown(cells[-1])}, which is "
            f"not supported; use {_DENSE!r}"
        )
        return None
    return cells


def _name(cell: str, column: str, where: str, problems: list[str]) -> str:
    if not (1 <= len(cell) <= _LONGEST_NAME and cell.isprintable()):
        problems.append(
            f"{where} column {column!r} must be 1 to {_LONGEST_NAME} printable characters, "
            f"got {_shown(cell)}; give the layer a name"
        )
    return cell


def _size(cell: str, column: str, where: str, problems: list[str]) -> int:
    """A whole number from 1; 1 in its place if it is broken."""
    if _WHOLE.fullmatch(cell) and 1 <= int(cell) <= _LARGEST_NUMBER:
        return int(cell)
    problems.append(
        f"{where} column {column!r} must be a whole number from 1 to {_LARGEST_NUMBER}, "
        f"got {_shown(cell)}; write the size in digits"
    )
    return 1


def _product(name: str, sizes: list[int], where: str, problems: list[str]) -> list[Layer]:
    """A layer of a topology of products."""
    m, n, k = sizes
    return _layer(name, (m, n, k, 1), (m, k), (m, n), where, problems)


def _convolution(name: str, sizes: list[int], where: str, problems: list[str]) -> list[Layer]:
    """A layer of a topology of convolutions."""
    height, width, filter_height, filter_width, channels, filters, stride = sizes
    for column, inner, outer in ((3, filter_height, height), (4, filter_width, width)):
        if inner > outer:
            problems.append(
                f"{where} column {_CONVOLUTIONS[column]!r} must be at most "
                f"{_CONVOLUTIONS[column - 2]} = {outer}, got {inner}; use {outer} or less, or give "
                "the padded input"
            )
    if filter_height > height or filter_width > width:
        return []
    out_height = -(-(height - filter_height + stride) // stride)
    out_width = -(-(width - filter_width + stride) // stride)
    groups = channels if _DEPTHWISE in name else 1
    k = filter_height * filter_width * channels // groups
    return _layer(
        name,
        (out_height * out_width, filters, k, groups),
        (1, channels, height, width),
        (1, groups * filters, out_height, out_width),
        where,
        problems,
    )


def _layer(
    name: str,
    product: tuple[int, int, int, int],
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    where: str,
    problems: list[str],
) -> list[Layer]:
    """The layer of a product (m, n, k, count); none, and a violation, if counts could overflow."""
    largest = max(math.prod(product), math.prod(input_shape))
    if largest > _LARGEST_LAYER:
        problems.append(
            f"{where} must have at most {_LARGEST_LAYER} multiply-accumulates and input elements, "
            f"got {largest}; use smaller sizes"
        )
        return []
    m, n, k, count = product
    layer = Layer(
        name=name,
        kind="linear",
        gemm=Gemm(m=m, n=n, k=k, count=count),
        images=1,
        row_images=1,
        input_shape=input_shape,
        output_shape=output_shape,
        weights_are_parameters=True,
    )
    return [layer]


def _shown(given: str) -> str:
    text = repr(given)
    return text if len(text) <= 60 else text[:57] + "..."


def _label(path: object) -> str:
    """How messages call a file."""
    try:
        return os.fsdecode(path)  # type: ignore[arg-type]
    except TypeError:
        return "SCALE-Sim topology"


def _read(path: str | os.PathLike[str], label: str) -> str:
    """The text of a file."""
    if not isinstance(path, str | bytes | os.PathLike):
        raise TraceError(
            f"{label} must be the path of a .csv file, got a {type(path).__name__}; give a path"
        )
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_FILE_BYTES + 1)
        text = content[:_LARGEST_FILE_BYTES].decode("utf-8-sig")
    except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise TraceError(
            f"{label} must be a readable file of UTF-8 text, got: {reason}; "
            "check the path and the file"
        ) from error
    if len(content) > _LARGEST_FILE_BYTES:
        raise TraceError(
            f"{label} must be a file of at most {_LARGEST_FILE_BYTES} bytes, got more; "
            "give a topology of fewer layers"
        )
    return text
