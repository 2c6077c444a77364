"""What decisions leave of a layer's box for the array; the layer of fewer images or tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from accelerators import ConfigError
from simulator.decisions.box import Decisions
from simulator.decisions.columns import DROPPED
from simulator.decisions.frames import FrameDecisions
from simulator.decisions.incremental import IncrementalRows
from simulator.decisions.left import layer_of_images, layer_of_rows
from simulator.decisions.rows import FilledRows, KeptRows, SharedRows
from simulator.decisions.tokens import TokenPlan
from workloads.traces.layer import Gemm, Layer


@dataclass(frozen=True, kw_only=True, eq=False)
class Remaining:
    """A layer with what its decisions leave: rows that are shared, filled or kept; fewer columns.

    Dropped columns are as if the layer had never had them: neither their weights nor their results
    travel. Depth saves the energy of multiplications and no cycle: units of a systolic array work
    in step, so a skipped output's place in the array stays idle for as long as its neighbours
    work; its operands pass it, and are read, all the same. Differences that are 0 save the energy
    of their multiplications in any case; cycles and weights, where all of a row are, or those of an
    element of k in all rows of a tile: the others move together.

    Not modelled: how the array learns which outputs to skip; that inputs which no computed row
    reads need not be loaded.

    Attributes:
        layer: as it was captured.
        decisions: `None` where nothing is taken off.
        n: columns that are computed.
        computed_before: `(1 or count, m + 1)` int64, rows that are computed before each one, of
            every product; `None` where all rows are, or where they are shared.
        around: the layer as techniques had it on whose rows that are left this one decides, the
            first of them first.
    """

    layer: Layer
    decisions: Decisions | None
    n: int
    computed_before: np.ndarray | None = None
    around: tuple["Remaining", ...] = ()

    @classmethod
    def of(cls, layer: Layer, decisions: Decisions | None) -> "Remaining":
        """What is left of a layer.

        Raises:
            ConfigError: columns are taken off in a way that no unit here can do.
        """
        if decisions is None:
            return cls(layer=layer, decisions=None, n=layer.gemm.n)
        rows, before, then = decisions.rows, None, decisions.then
        if then is not None and rows is not None and not isinstance(rows, SharedRows):
            own = cls.of(layer, replace(decisions, then=None))
            inner = cls.of(layer_of_rows(layer, rows), then)
            return replace(inner, around=(own, *inner.around))
        if isinstance(rows, FilledRows):  # the same of every product
            before = _running_count(rows.is_computed[:1])
        elif isinstance(rows, KeptRows | IncrementalRows):
            before = _running_count(rows.is_computed)
        return cls(
            layer=layer,
            decisions=decisions,
            n=_computed_columns(decisions if then is None else then),
            computed_before=before,
        )

    @property
    def units(self) -> tuple[str, ...]:
        """Fields of an `Accelerator` that do what was decided, of all techniques."""
        made = [*(each.decisions for each in self.around), self.decisions]
        return tuple(
            dict.fromkeys(unit for each in made if each is not None for unit in each.units)
        )

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

    @property
    def computed_share(self) -> float:
        """Fraction of the rows that is computed."""
        if self.computed_before is None:
            return 1.0
        return float(self.computed_before[:, -1].mean()) / self.layer.gemm.m


def _running_count(computed: np.ndarray) -> np.ndarray:
    """`(g, m + 1)` int64 of `(g, m)` bool."""
    counts = np.zeros((computed.shape[0], computed.shape[1] + 1), np.int64)
    np.cumsum(computed, axis=1, out=counts[:, 1:])
    return counts


def _computed_columns(decisions: Decisions) -> int:
    """Columns that are computed, the same ones for all rows."""
    gemm, columns = decisions.gemm, decisions.columns
    if columns is None:
        return gemm.n
    own = columns.is_computed
    broken = []
    if np.any(own != own[0]):
        broken.append("be the same for all rows, got groups of rows that compute different ones")
    if np.any(~own & (columns.sources != DROPPED)):
        broken.append("be computed or dropped, got some that take another's result")
    if not own.any():
        broken.append("be computed at least in part, got none; let the layer not run instead")
    if broken:
        where = f"columns of layer {decisions.layer!r} must"
        raise ConfigError(
            [f"{where} {rule}; decide so, or use decide() without a design" for rule in broken]
        )
    return int(np.count_nonzero(own[0]))


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
