"""Reads the networks of SCALE-Sim, the `.csv` topologies of its version 3."""

from __future__ import annotations

import csv
import math
import os
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath

import networkx as nx

from workloads.errors import LONGEST_MESSAGE, TraceError, show
from workloads.reading import refuse_endless
from workloads.traces.layer import Gemm, Layer
from workloads.traces.trace import WorkloadTrace

# The columns by position, as SCALE-Sim reads them, each with what writers call it beside that.
_CONVOLUTIONS = {
    "IFMAP Height": "ifmaph inputheight inputh inheight inh height h ih",
    "IFMAP Width": "ifmapw inputwidth inputw inwidth inw width w iw",
    "Filter Height": "filterh filtheight filth fheight kernelheight kernelh kheight fh kh r",
    "Filter Width": "filterw filtwidth filtw fwidth kernelwidth kernelw kwidth fw kw s",
    "Channels": "numchannel numch inputchannel inchannel inch ch ic c",
    "Num Filter": "filter numberoffilter numfilt outputchannel outchannel outch oc k m",
    "Strides": "strideheight strideh sh s",
}
_TWO_STRIDES = {
    **{column: names for column, names in _CONVOLUTIONS.items() if column != "Strides"},
    "Stride Height": "strideh sh",
    "Stride Width": "stridew sw",
}
_PRODUCTS = {"M": "", "N": "", "K": ""}
_LAYOUTS = (_TWO_STRIDES, _CONVOLUTIONS, _PRODUCTS)
_SEPARATORS = ",\t;"
_DENSE = "1:1"
_LARGEST_NUMBER = 2**31 - 1
# Cycles and bytes of a layer within it fit 64 bits on any array.
_LARGEST_LAYER = 2**48
_LONGEST_NAME = 200
_LARGEST_FILE_BYTES = 2**24
_MOST_VIOLATIONS = 20
# A message is not cut within a violation.
_LONGEST_VIOLATIONS = LONGEST_MESSAGE - 250
_DEPTHWISE = "DP"
_WHOLE = re.compile(r"[0-9]{1,18}")
# A number or a ratio is meant to be read; a comment is not.
_TOLD = re.compile(r"^$|^[+-]?[0-9.]+$|:")


def read_topology(path: str | os.PathLike[str]) -> WorkloadTrace:
    """A trace of shapes alone from a SCALE-Sim topology of convolutions or of matrix products.

    The header, which SCALE-Sim skips, decides: `Layer name, IFMAP Height, ...` or
    `Layer, M, N, K`, in that order; what its first column is called does not matter. The strides
    may be two columns, `Stride Height, Stride Width`. A row may end with a comma, and with a
    comment after it. Of further columns, `Sparsity` must be `1:1`, `Batch Size` 1, and any other
    empty in every row. Names that repeat are numbered, as in a capture: `conv`, `conv#2`.

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
    header = _header(lines[0], label)
    problems: list[str] = []
    found: list[tuple[str, list[int], str]] = []
    for number, line in enumerate(lines[1:], start=2):
        where = f"{label} line {number}"
        before = len(problems)
        cells = _cells(line, header, where, problems)
        if cells is None:
            continue
        name = _name(cells[0], header, where, problems)
        sizes = [
            _size(cell, column, index, where, problems)
            for index, (cell, column) in enumerate(zip(cells[1:], header.wanted, strict=True), 2)
        ]
        if len(problems) == before:
            found.append((name, sizes, where))
    layers: list[Layer] = []
    names = _numbered([name for name, _, _ in found])
    for name, (given, sizes, where) in zip(names, found, strict=True):
        if header.wanted == tuple(_PRODUCTS):
            layers += _product(name, sizes, where, problems)
        else:
            layers += _convolution(name, sizes, _DEPTHWISE in given, where, problems)
    if problems:
        shown = problems[:_MOST_VIOLATIONS]
        while len(shown) > 1 and len("\n".join(shown)) > _LONGEST_VIOLATIONS:
            shown.pop()
        if more := len(problems) - len(shown):
            shown.append(f"{label} breaks {more} more rules; mend these first")
        raise TraceError("\n".join(shown))
    if not layers:
        raise TraceError(f"{label} must hold a layer, got a header alone; add a row for each layer")
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(layer.name for layer in layers)
    graph.add_edges_from(pairwise(layer.name for layer in layers))
    provenance = {"model": PurePath(label).stem, "source": "SCALE-Sim topology, shapes alone"}
    return WorkloadTrace(layers=tuple(layers), graph=graph, images=1, provenance=provenance)


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What line 1 announces.

    Attributes:
        separator: of the cells.
        first: what the column of the names is called.
        wanted: the columns after the name that every row must have.
        more: further columns, as the header calls them.
    """

    separator: str
    first: str
    wanted: tuple[str, ...]
    more: tuple[str, ...]


def _header(line: str, label: str) -> _Header:
    """The columns that a header announces, checked by position."""
    separator = max(_SEPARATORS, key=line.count)
    cells = _split(line, separator)
    while cells and not cells[-1]:
        cells.pop()
    given = [_plain(cell) for cell in cells]

    def fit(layout: dict[str, str]) -> float:
        named = zip(given[1:], layout, strict=False)
        return sum(_means(name, column, layout) for name, column in named) / len(layout)

    layout = max(_LAYOUTS, key=fit)
    wanted = tuple(layout)
    first = cells[0] if cells and cells[0] else "Layer name"
    problem = _header_problem(cells, given, layout)
    if problem is None:
        more = tuple(cells[1 + len(wanted) :])
        return _Header(separator=separator, first=first, wanted=wanted, more=more)
    raise TraceError(
        f"{label} line 1 must be the header {', '.join(['Layer name', *_CONVOLUTIONS])!r} or "
        f"{', '.join(['Layer', *_PRODUCTS])!r}, {problem}"
    )


def _header_problem(cells: list[str], given: list[str], layout: dict[str, str]) -> str | None:
    """What was given in place of the header that is nearest, and the fix; None if it is it."""
    sizes = {_plain(column) for each in _LAYOUTS for column in each}
    if not any(cells):
        got, fix = "an empty line", "write that header into line 1, which SCALE-Sim skips"
    elif any(_WHOLE.fullmatch(cell) for cell in cells[1:]):
        got = f"the sizes of a layer, {show(', '.join(cells))}"
        fix = "put a header above them, as SCALE-Sim skips line 1"
    elif len(cells) == 1:
        got, fix = f"one column, {show(cells[0])}", "put commas between the columns"
    elif given[0] in sizes:
        got = f"{show(cells[0])} in column 1, where the layers' names stand"
        fix = "put a column with a name for each layer before the others"
    else:
        for number, column in enumerate(layout, start=2):
            if number > len(cells):
                got = f"no column {number}, {column!r}, after {show(cells[-1])}"
                fix = "add the columns that are missing, to every row"
                break
            if not _means(given[number - 1], column, layout):
                got = f"{show(cells[number - 1])} in column {number}, where {column!r} is wanted"
                fix = (
                    f"call column {number} {column!r} if it holds that, or move the columns into "
                    "that order, in every row"
                )
                break
        else:
            return None
    return f"got {got}; {fix}"


def _means(name: str, column: str, layout: dict[str, str]) -> bool:
    """Whether a header's name, made plain, is one of a column's."""
    # Topologies that come with SCALE-Sim call the height of the input its width, and its width too.
    slip = "ifmapwidth" if column == "IFMAP Height" else ""
    return name in (_plain(column), *layout[column].split(), slip) and name != ""


def _plain(cell: str) -> str:
    """A column's name without what writers differ in: case, spaces, units, a plural."""
    name = re.sub(r"[^a-z]", "", re.sub(r"\(.*?\)|\[.*?\]", "", cell.lower()))
    return name.removesuffix("s") or name


def _split(line: str, separator: str) -> list[str]:
    """The cells of a line, without quotes and spaces around them."""
    try:
        cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:  # a cell of more characters than that module takes
        cells = line.split(separator)
    return [cell.strip() for cell in cells]


def _cells(line: str, header: _Header, where: str, problems: list[str]) -> list[str] | None:
    """The name and the wanted columns of a row.

    None for an empty line and a comment, and, with a violation, for a row that has fewer columns,
    or something in more of them.
    """
    cells = _split(line, header.separator)
    if not any(cells):
        return None
    if not cells[-1]:
        cells.pop()  # of the comma at the end
    columns = 1 + len(header.wanted)
    if cells[0].startswith("#"):
        if len(cells) >= columns:
            problems.append(
                f"{where} must be a layer or a comment, got {show(line)}, which SCALE-Sim takes "
                "for a layer; leave out the line, or the '#'"
            )
        return None
    two_strides = header.wanted == tuple(_TWO_STRIDES)
    if two_strides and len(cells) >= columns - 1 and not any(cells[columns - 1 :]):
        cells[columns - 1 :] = cells[columns - 2 : columns - 1]  # the header alone has two
    if len(cells) < columns or not any(cells[1:]):
        given = len(cells) if any(cells[1:]) else 1
        title = ", or leave the line out if it is a title" if given == 1 else ""
        problems.append(
            f"{where} must have the {columns} columns of line 1, got {given}: {show(line)}; "
            f"give one value for each{title}"
        )
        return None
    more = cells[columns:]
    if two_strides and more[:2] == ["1", "1"]:
        more = more[2:]  # SCALE-Sim's own writer gives the sparsity 1:1 so, without a header
    if more and not _TOLD.search(more[-1]):
        more.pop()  # SCALE-Sim drops what stands after the last comma
    for index, cell in enumerate(more):
        problem = _extra(cell, header.more[index] if index < len(header.more) else "")
        if problem:
            problems.append(f"{where} column {columns + index + 1} {problem}")
            return None
    return cells[:columns]


def _extra(cell: str, column: str) -> str:
    """What is wrong with a value in a further column, and the fix; empty if it changes nothing."""
    name = _plain(column)
    sparsity, batch = name.startswith("sparsity"), name.startswith("batch")
    if not cell or (cell == _DENSE and (sparsity or not name)) or (cell == "1" and batch):
        return ""
    if sparsity or (not name and ":" in cell):
        return (
            f"'Sparsity' must be {_DENSE!r}, got {show(cell)}, which is not supported; "
            f"use {_DENSE!r}"
        )
    if batch:
        return (
            f"{show(column)} must be 1, got {show(cell)}, as SCALE-Sim counts one image; use 1 "
            "(products may hold a batch in M)"
        )
    return (
        f"{show(column) if column else '(without a header)'} must be empty, got {show(cell)}, "
        "which SCALE-Sim does not read; leave it out, or give it by the sizes (padding as a larger "
        "input)"
    )


def _name(cell: str, header: _Header, where: str, problems: list[str]) -> str:
    if not (1 <= len(cell) <= _LONGEST_NAME and cell.isprintable()):
        problems.append(
            f"{where} column 1 {show(header.first)} must be 1 to {_LONGEST_NAME} printable "
            f"characters, got {show(cell)}; give the layer a name of that length"
        )
    return cell


def _numbered(names: list[str]) -> list[str]:
    """The names, those that repeat told apart as further calls of a module are: `conv#2`."""
    taken, calls, told = set(names), dict.fromkeys(names, 0), []
    for name in names:
        calls[name] += 1
        new = name
        if calls[name] > 1:
            while (new := f"{name}#{calls[name]}") in taken:
                calls[name] += 1
            taken.add(new)
        told.append(new)
    return told


def _size(cell: str, column: str, index: int, where: str, problems: list[str]) -> int:
    """A whole number from 1; 1 in its place if it is broken."""
    if _WHOLE.fullmatch(cell) and 1 <= int(cell) <= _LARGEST_NUMBER:
        return int(cell)
    problems.append(
        f"{where} column {index} {column!r} must be a whole number from 1 to {_LARGEST_NUMBER}, "
        f"got {show(cell)}; write the size in digits"
    )
    return 1


def _product(name: str, sizes: list[int], where: str, problems: list[str]) -> list[Layer]:
    """A layer of a topology of products."""
    m, n, k = sizes
    return _layer(name, (m, n, k, 1), (m, k), (m, n), where, problems)


def _convolution(
    name: str, sizes: list[int], depthwise: bool, where: str, problems: list[str]
) -> list[Layer]:
    """A layer of a topology of convolutions, with one stride or two."""
    height, width, filter_height, filter_width, channels, filters, *strides = sizes
    sides = (4, "Height", filter_height, height), (5, "Width", filter_width, width)
    for column, side, inner, outer in sides:
        if inner > outer:
            problems.append(
                f"{where} column {column} 'Filter {side}' must be at most IFMAP {side} = {outer}, "
                f"got {inner}; use {outer} or less, or give the padded input"
            )
    if filter_height > height or filter_width > width:
        return []
    out_height = -(-(height - filter_height + strides[0]) // strides[0])
    out_width = -(-(width - filter_width + strides[-1]) // strides[-1])
    groups = channels if depthwise else 1
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
        refuse_endless(path)
        with open(path, "rb") as file:
            content = file.read(_LARGEST_FILE_BYTES + 1)
        text = content[:_LARGEST_FILE_BYTES].decode("utf-8-sig")
    except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        fix = "save it as UTF-8" if isinstance(error, UnicodeError) else "check the path"
        raise TraceError(
            f"{label} must be a readable file of UTF-8 text, got: {reason}; {fix}"
        ) from error
    if len(content) > _LARGEST_FILE_BYTES:
        raise TraceError(
            f"{label} must be a file of at most {_LARGEST_FILE_BYTES} bytes, got more; "
            "give a topology of fewer layers"
        )
    return text
