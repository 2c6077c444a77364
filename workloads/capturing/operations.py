"""Which PyTorch operations are matrix products, and how to read their arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Product:
    """Arguments of a matrix product as batches of matrices.

    Attributes:
        left: `(count, m, k)`.
        right: `(count, k, n)`.
        operands: the operation's own tensors that these come from.
        bias: what is added, or None.
        shape: of the operation's result.
        finish: from `(count, m, n)` to the operation's result.
        factors: of the product and of the bias in it.
        changed_by: what the operation computes of the product beside that; empty for nothing.
    """

    left: Tensor
    right: Tensor
    operands: tuple[Tensor, Tensor]
    bias: Tensor | None
    shape: tuple[int, ...]
    finish: Callable[[Tensor], Tensor]
    factors: tuple[float, float] = (1, 1)
    changed_by: str = ""


def arguments_of(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Every argument of an operation by its name in the schema, defaults included."""
    named = {}
    for position, argument in enumerate(func._schema.arguments):
        if position < len(args):
            named[argument.name] = args[position]
        elif argument.name in kwargs:
            named[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            named[argument.name] = argument.default_value
    return named


def read_product(base: str, func: Any, args: Any, kwargs: Any) -> Product:
    """Read a product of matrices or vectors; `base` is its name without an in-place `_`."""
    named = arguments_of(func, args, kwargs)
    beta, alpha = named.get("beta", 1), named.get("alpha", 1)
    operands = [value for key, value in named.items() if isinstance(value, Tensor) and key != "out"]
    bias = None
    if base in ("addmm", "baddbmm", "addbmm", "addmv"):
        bias, *operands = operands
    left, right = given = (operands[0], operands[1])
    if base == "addbmm":
        shape: tuple[int, ...] = (left.shape[1], right.shape[2])
        left = left.transpose(0, 1).flatten(1).unsqueeze(0)
        right = right.flatten(0, 1).unsqueeze(0)
    elif base in ("bmm", "baddbmm"):
        shape = (*left.shape[:2], right.shape[2])
    elif base in ("mm", "addmm"):
        shape = (left.shape[0], right.shape[1])
        left, right = left.unsqueeze(0), right.unsqueeze(0)
    elif base in ("mv", "addmv"):
        shape = (left.shape[0],)
        left, right = left.unsqueeze(0), right.reshape(1, -1, 1)
    else:
        shape = ()
        left, right = left.reshape(1, 1, -1), right.reshape(1, -1, 1)

    def finish(product: Tensor) -> Tensor:
        product = product.reshape(shape)
        if alpha != 1:
            product = product * alpha
        if bias is None or beta == 0:  # PyTorch ignores the bias then, even if it is NaN
            return product
        return product + (bias.detach() if beta == 1 else bias.detach() * beta)

    return Product(
        left=left,
        right=right,
        operands=given,
        bias=bias,
        shape=shape,
        finish=finish,
        factors=(alpha, beta),
    )


_MULTIPLIED_ROWS = 25  # with more, torch.cdist multiplies unless it is told not to


def read_distance(func: Any, args: Any, kwargs: Any) -> Product | None:
    """Read `(..., rows, k)` points and `(..., columns, k)` others of a Euclidean distance.

    `None` where PyTorch computes no product but differences.
    """
    named = arguments_of(func, args, kwargs)
    first, second = named["x1"], named["x2"]
    rows, columns = first.shape[-2], second.shape[-2]
    mode = named.get("compute_mode") or 0  # 1 multiplies always, 2 never
    multiplied = mode == 1 or (mode == 0 and max(rows, columns) > _MULTIPLIED_ROWS)
    if named.get("p", 2.0) != 2 or not (multiplied or "p" not in named):
        return None
    batch = torch.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    left, right = (
        points.expand(*batch, *points.shape[-2:]).reshape(-1, *points.shape[-2:])
        for points in (first, second)
    )

    def finish(product: Tensor) -> Tensor:
        squares = (points.detach().float().square().sum(-1) for points in (left, right))
        ours, theirs = squares
        squared = ours.unsqueeze(2) + theirs.unsqueeze(1) - 2 * product
        return squared.clamp_min(0).sqrt().reshape(*batch, rows, columns)

    return Product(
        left=left,
        right=right.mT,
        operands=(first, second),
        bias=None,
        shape=(*batch, rows, columns),
        finish=finish,
        changed_by=func._schema.name,
    )


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Arguments of fused attention, heads and images in one dimension.

    Attributes:
        query: `(count, targets, features)`.
        key: `(count, sources, features)`, repeated for grouped queries.
        value: `(count, sources, features)`, likewise.
        mask: broadcastable to `(..., targets, sources)` of the unflattened heads, or None.
        causal: whether a target sees only the sources up to its own position.
        scale: factor of the scores.
        dropout: probability of dropping an attention weight.
        heads: leading shape before `count` was flattened.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    causal: bool
    scale: float
    dropout: float
    heads: tuple[int, ...]

    def probabilities(self, scores: Tensor) -> Tensor:
        """Softmax of unscaled scores `(count, targets, sources)`; all-masked rows are zero."""
        scores = scores * self.scale
        if self.causal:
            visible = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).tril()
            scores = scores.masked_fill(~visible, -math.inf)
        if self.mask is not None:
            shaped = scores.reshape(*self.heads, *scores.shape[1:])
            if self.mask.dtype == torch.bool:
                shaped = shaped.masked_fill(~self.mask, -math.inf)
            else:
                shaped = shaped + self.mask
            scores = shaped.reshape(scores.shape)
        nothing = (scores == -math.inf).all(dim=-1, keepdim=True)
        return scores.softmax(dim=-1).masked_fill(nothing, 0.0)


def read_attention(func: Any, args: Any, kwargs: Any) -> Attention:
    """Read the arguments of fused attention."""
    named = arguments_of(func, args, kwargs)
    query, key, value = (named[name].detach() for name in ("query", "key", "value"))
    repeats = query.shape[-3] // key.shape[-3]
    if repeats > 1:
        key, value = (x.repeat_interleave(repeats, dim=-3) for x in (key, value))
    mask = named.get("attn_mask", named.get("attn_bias"))
    scale = named.get("scale")
    return Attention(
        query=query.reshape(-1, *query.shape[-2:]),
        key=key.reshape(-1, *key.shape[-2:]),
        value=value.reshape(-1, *value.shape[-2:]),
        mask=None if mask is None else mask.detach(),
        causal=bool(named.get("is_causal", False)),
        scale=1 / math.sqrt(query.shape[-1]) if scale is None else scale,
        dropout=named.get("dropout_p", 0.0),
        heads=tuple(query.shape[:-2]),
    )
