"""What decisions leave of a layer's box for the array; the layer of fewer images or tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from accelerators import ConfigError
from simulator.decisions.box import Decisions
from simulator.decisions.columns import DROPPED, ColumnDecisions
from simulator.decisions.frames import FrameDecisions
from simulator.decisions.incremental import IncrementalRows
from simulator.decisions.left import layer_of_images, layer_of_rows
from simulator.decisions.rows import FilledRows, KeptRows, SharedRows
from simulator.decisions.tokens import TokenPlan
from simulator.timing.transfers import ceil_div
from workloads.traces.layer import Gemm, Layer


@dataclass(frozen=True, kw_only=True, eq=False)
class Remaining:
    """A layer with what its decisions leave: rows that are shared, filled or kept; fewer columns.

    Dropped columns are as if the layer had never had them: neither their weights nor their results
    travel, nor, in the layer that reads them, the elements that are known to be 0. A column that
    takes another's result has no weights either, but it is stored. On a systolic array depth saves
    the energy of multiplications and no cycle: its units work in step, so a skipped output's place
    in the array stays idle for as long as its neighbours work; its operands pass it, and are read,
    all the same. Independent lanes go on (`simulator.timing.stages.lanes`). Differences that are 0
    save the energy of their multiplications; cycles and weights, where all of a row are, or those
    of an element of k in all rows of a tile: the others move together.

    Runs of rows with columns of their own, as the images of a batch, are worked on in one of two
    ways, see `ways`: one after the other as in a batch of one, each with its own columns and
    elements and its own loads of weights; or all with the columns and elements that any of them
    has.

    Not modelled: how the array learns which outputs to skip; that inputs which no computed row
    reads need not be loaded.

    Attributes:
        layer: as it was captured.
        decisions: `None` where nothing is taken off.
        columns: `(1 or products,)` int64, columns that are computed in every product.
        elements: `(1 or products,)` int64, elements of its rows that are multiplied.
        copied_before: `(1 or products, most columns + 1)` int64, columns that take the result of
            one before each one that is computed; `None` where there are none.
        runs: of rows that are worked on one after the other; a layer's products times these are
            the products here.
        computed_before: `(1 or count, m + 1)` int64, rows that are computed before each one, of
            every product; `None` where all rows are, or where they are shared.
        around: the layer as techniques had it on whose rows that are left this one decides, the
            first of them first.
    """

    layer: Layer
    decisions: Decisions | None
    columns: np.ndarray
    elements: np.ndarray
    copied_before: np.ndarray | None = None
    runs: int = 1
    computed_before: np.ndarray | None = None
    around: tuple["Remaining", ...] = ()

    @classmethod
    def ways(cls, layer: Layer, decisions: Decisions | None) -> list["Remaining"]:
        """The ways in which what is left of a layer can be worked on, of which the faster is taken.

        All rows with the same columns; and, where rows are neither shared nor filled nor kept and
        their runs have columns of their own, run after run.

        Raises:
            ConfigError: no column is computed.
        """
        if decisions is None:
            return [cls.of(layer, None)]
        made = [cls.of(layer, _united(decisions))]
        columns = decisions.columns
        alone = decisions.rows is None and decisions.then is None
        if columns is not None and alone and not _alike(columns):
            made.append(cls._of_columns(layer, decisions, columns, columns.groups))
        return made

    @classmethod
    def of(cls, layer: Layer, decisions: Decisions | None) -> "Remaining":
        """What is left of a layer whose rows all have the same columns."""
        gemm = layer.gemm
        if decisions is None:
            whole = np.array([gemm.n]), np.array([gemm.k])
            return cls(layer=layer, decisions=None, columns=whole[0], elements=whole[1])
        rows, before, then = decisions.rows, None, decisions.then
        if then is not None and rows is not None and not isinstance(rows, SharedRows):
            own = cls.of(layer, replace(decisions, then=None))
            inner = cls.of(layer_of_rows(layer, rows), then)
            return replace(inner, around=(own, *inner.around))
        if isinstance(rows, FilledRows):  # the same of every product
            before = _running_count(rows.is_computed[:1])
        elif isinstance(rows, KeptRows | IncrementalRows):
            before = _running_count(rows.is_computed)
        sources = np.arange(gemm.n)[None]
        told = decisions if then is None else then
        columns = told.columns or ColumnDecisions(gemm=told.gemm, sources=sources)
        return cls._of_columns(layer, decisions, columns, 1, before)

    @classmethod
    def _of_columns(
        cls,
        layer: Layer,
        decisions: Decisions,
        columns: ColumnDecisions,
        runs: int,
        computed_before: np.ndarray | None = None,
    ) -> "Remaining":
        times = layer.gemm.count if runs > 1 else 1  # runs of a product lie together
        copied = _copied_before(columns) if columns.shares else None
        return cls(
            layer=layer,
            decisions=decisions,
            columns=np.tile(columns.computed, times),
            elements=np.tile(columns.multiplied, times),
            copied_before=None if copied is None else np.tile(copied, (times, 1)),
            runs=runs,
            computed_before=computed_before,
        )

    @property
    def units(self) -> tuple[str, ...]:
        """Fields of an `Accelerator` that do what was decided, of all techniques."""
        made = [*(each.decisions for each in self.around), self.decisions]
        return tuple(
            dict.fromkeys(unit for each in made if each is not None for unit in each.units)
        )

    @property
    def products(self) -> int:
        """Products that are worked on one after the other."""
        return self.layer.gemm.count * self.runs

    @property
    def m(self) -> int:
        """Rows of each."""
        return self.layer.gemm.m // self.runs

    @property
    def n(self) -> int:
        """Columns of the one with most."""
        return int(self.columns.max())

    @property
    def k(self) -> int:
        """Elements of a row of the one with most."""
        return int(self.elements.max())

    @property
    def input_elements(self) -> np.ndarray:
        """`(1 or products,)` int64, elements of each product's inputs that are read."""
        share = self.layer.input_elements // self.products
        return share * self.elements // self.layer.gemm.k * (self.columns > 0)

    def weight_bits(self, operand_bits: int, widths: np.ndarray) -> np.ndarray:
        """`(1 or products, t)` int64, bits of weights in consecutive tiles of `(t,)` columns; of
        tables, which travel in their place, where there is a plan."""
        plan = None if self.decisions is None else self.decisions.weights
        if plan is None:
            return self.elements[:, None] * self.columns_of(widths) * operand_bits
        before = _running_count(plan.table_bits(operand_bits))
        ends = ceil_div(np.cumsum(widths), plan.filters)
        starts = ceil_div(np.cumsum(widths) - widths, plan.filters)
        return before[:, ends] - before[:, starts]

    def columns_of(self, widths: np.ndarray) -> np.ndarray:
        """`(1 or products, t)` int64, computed columns in consecutive tiles of `(t,)` columns."""
        starts = np.cumsum(widths) - widths
        return np.clip(self.columns[:, None] - starts, 0, widths)

    def copied_columns(self, widths: np.ndarray) -> np.ndarray:
        """`(1 or products, t)` int64, columns that take the result of one of a tile's."""
        if self.copied_before is None:
            return np.zeros((1, len(widths)), np.int64)
        ends = np.cumsum(widths)
        return self.copied_before[:, ends] - self.copied_before[:, ends - widths]

    @property
    def macs(self) -> int:
        """Multiplications left to the array."""
        return self.layer.gemm.macs if self.decisions is None else self.decisions.macs

    @property
    def handed_out(self) -> bool:
        """Whether rows pass the reconstructor on their way from the array."""
        return self.decisions is not None and isinstance(self.decisions.rows, FilledRows)

    @property
    def kept(self) -> bool:
        """Whether rows that are not computed have their results from the batch before."""
        if self.incremental is not None:
            return self.incremental.keeps
        return self.decisions is not None and isinstance(self.decisions.rows, KeptRows)

    @property
    def updated_in_place(self) -> bool:
        """Whether these results stay on the chip, so that only those of computed rows travel."""
        rows = None if self.decisions is None else self.decisions.rows
        return isinstance(rows, IncrementalRows | KeptRows) and rows.on_chip

    @property
    def incremental(self) -> IncrementalRows | None:
        """Its rows, where differences are added to earlier results."""
        rows = None if self.decisions is None else self.decisions.rows
        return rows if isinstance(rows, IncrementalRows) else None

    def computed_rows(self, rows: np.ndarray) -> np.ndarray:
        """`(1 or count, t)` int64, rows that are computed in consecutive tiles of `(t,)` rows."""
        if self.computed_before is None:
            return rows[None, :]
        ends = np.cumsum(rows)
        return self.computed_before[:, ends] - self.computed_before[:, ends - rows]

    def taken_results(self, rows: np.ndarray) -> np.ndarray:
        """`(1, t)` int64, results that rows are filled in from in consecutive tiles of `(t,)`."""
        assert self.decisions is not None and isinstance(self.decisions.rows, FilledRows)
        filled = self.decisions.rows
        before = _running_count(np.tile(filled.taps_of_positions, filled.images)[None])
        ends = np.cumsum(rows)
        return before[:, ends] - before[:, ends - rows]

    @property
    def longest_sum(self) -> int | None:
        """Products of the longest sum; `None` where no depth is decided."""
        depth = None if self.decisions is None else self.decisions.depth
        return None if depth is None else int(depth.terms.max())

    @cached_property
    def mean_sum(self) -> float:
        """Products of a sum on average."""
        gemm = self.layer.gemm
        depth = None if self.decisions is None else self.decisions.depth
        return gemm.k if depth is None else depth.remaining_ratio * gemm.k

    @property
    def computed_share(self) -> float:
        """Fraction of the rows that is computed."""
        if self.computed_before is None:
            return 1.0
        return float(self.computed_before[:, -1].mean()) / self.layer.gemm.m


def _running_count(computed: np.ndarray) -> np.ndarray:
    """`(g, m + 1)` int64 of `(g, m)` bool or numbers."""
    counts = np.zeros((computed.shape[0], computed.shape[1] + 1), np.int64)
    np.cumsum(computed, axis=1, out=counts[:, 1:])
    return counts


def _copied_before(columns: ColumnDecisions) -> np.ndarray:
    """`(groups, most columns + 1)` int64, columns copied from those before each computed one."""
    copied = ~columns.is_computed & (columns.sources != DROPPED)
    found = np.zeros((columns.groups, int(columns.computed.max()) + 1), np.int64)
    for run, own in enumerate(columns.is_computed):
        times = np.bincount(columns.sources[run, copied[run]], minlength=columns.gemm.n)
        ends = np.cumsum(times[own])
        found[run, 1 : len(ends) + 1] = ends
        found[run, len(ends) + 1 :] = ends[-1] if len(ends) else 0
    return found


def _united(decisions: Decisions) -> Decisions:
    """The decisions with the same columns for all rows, also those on the rows that are left."""
    columns, then = decisions.columns, decisions.then
    if columns is not None and not columns.is_computed.any():
        raise ConfigError(
            f"columns of layer {decisions.layer!r} must be computed at least in part, got "
            "none; let the layer not run instead"
        )
    return replace(
        decisions,
        columns=None if columns is None else columns.united(),
        then=None if then is None else _united(then),
    )


def _alike(columns: ColumnDecisions) -> bool:
    """Whether all runs have the same columns and elements."""
    parts = (columns.sources, columns.elements)
    return all(part is None or bool(np.all(part == part[0])) for part in parts)


def layer_of_tokens(layer: Layer, tokens: int, living: int) -> Layer:
    """The layer as it runs on fewer tokens an image.

    A linear layer has a row a token. Scores of attention have one for each query and a column for
    each key; its values sum over the keys. What a mask would leave out is not there at all.

    Args:
        layer: a linear layer or a half of attention; all images have equally many tokens.
        tokens: of an image, as the layer was captured.
        living: tokens that live on, 1 to `tokens`.

    Raises:
        ConfigError: the layer has no tokens, or another number of them.
    """
    gemm = layer.gemm
    rows = gemm.m // layer.row_images
    match layer.kind:
        case "linear":
            sizes: dict[str, Any] = {"m": layer.row_images * living}
            fits = rows == tokens
        case "attention_scores":
            sizes, fits = {"m": living, "n": living}, (gemm.m, gemm.n) == (tokens, tokens)
        case "attention_values":
            sizes, fits = {"m": living, "k": living}, (gemm.m, gemm.k) == (tokens, tokens)
        case _:
            sizes, fits = {}, False
    if not fits or not 1 <= living <= tokens:
        raise ConfigError(
            f"tokens of layer {layer.name!r} must be those of a linear layer or of attention, 1 to "
            f"{tokens} of them, got {living} for {layer.kind} of {gemm}; leave it as it is"
        )
    left: Gemm = replace(gemm, **sizes)
    return replace(
        layer,
        gemm=left,
        input_shape=(left.count * left.m, left.k),
        output_shape=(left.count * left.m, left.n),
    )


def layers_as_run(
    layers: Sequence[Layer],
    made: Mapping[str, Decisions | None],
    frames: FrameDecisions | None,
    tokens: TokenPlan | None,
) -> list[tuple[Layer, Decisions | None]]:
    """Layers with their decisions as hardware meets them.

    Where a model runs, shapes stay: rows of frames in which a layer does not run, and of tokens
    that are gone, are kept rows. On hardware they are not there at all, and need no address list.
    So a layer of which nothing else is taken off is one of fewer images, with what is decided on
    these, or of fewer tokens; of images that have different numbers of tokens left, all have as
    many as the one with most. Others stay as they are.

    Args:
        layers: in the order of calls.
        made: layer name -> its decisions.
        frames: in which each layer ran; `None` where all did.
        tokens: which lived on, likewise.
    """
    found: list[tuple[Layer, Decisions | None]] = []
    gone: np.ndarray | None = None
    for layer in layers:
        if tokens is not None and layer.name in tokens.stands_for:
            numbers = tokens.stands_for[layer.name]
            gone = numbers != np.arange(numbers.shape[1])
        decisions = made[layer.name]
        runs = None if frames is None else frames.runs(layer.name)
        if runs is not None and _is_all_of(decisions, layer, ~runs[:, None], alone=True):
            then = None if decisions is None else decisions.then
            found.append((layer_of_images(layer, int(runs.sum())), then))
        elif gone is not None and _is_all_of(
            decisions, layer, gone, alone=layer.kind not in ("attention_scores", "attention_values")
        ):
            living = int(np.count_nonzero(~gone, axis=1).max())
            found.append((layer_of_tokens(layer, gone.shape[1], living), None))
        else:
            found.append((layer, decisions))
    return found


def _is_all_of(decisions: Decisions | None, layer: Layer, gone: np.ndarray, *, alone: bool) -> bool:
    """Whether all that is taken off a layer are the rows of frames, or tokens, that are gone.

    Args:
        decisions: the layer's.
        layer: it.
        gone: `(images, 1)` bool frames, or `(images, tokens)` bool tokens.
        alone: whether columns and depth must be whole; those of attention follow from its tokens.
    """
    if decisions is None or not isinstance(decisions.rows, KeptRows) or decisions.evidence.units:
        return False
    if decisions.then is not None and gone.shape[1] > 1:
        return False
    if alone and (decisions.columns is not None or decisions.depth is not None):
        return False
    (images, tokens), gemm = gone.shape, layer.gemm
    if tokens > 1 and layer.kind not in ("linear", "attention_scores", "attention_values"):
        return False
    if layer.row_images == images and gemm.m % gone.size == 0:
        # Rows of an image lie together in every product.
        rows = np.repeat(gone, gemm.m // gone.size, axis=1).reshape(1, gemm.m)
    elif gemm.count % images == 0 and gemm.m % tokens == 0:
        # Products of an image lie together.
        rows = np.repeat(np.repeat(gone, gemm.m // tokens, axis=1), gemm.count // images, axis=0)
    else:
        return False
    return bool((decisions.rows.kept == rows).all())
