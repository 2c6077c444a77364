"""Lipschitz constants: by how much an operation can stretch the Euclidean norm of an error.

Every constant is an upper bound that holds for all inputs, of the norm over the whole tensor,
images included. Arithmetic is in doubles; its rounding is not part of the bounds.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from workloads.traces.layer import Layer

# Frequencies a convolution is looked at per dimension, for each tap beyond the first: four leave
# a bound at most 1 / cos(pi / 8) = 1.08 too large per dimension.
_FREQUENCIES_PER_TAP = 4

LIPSCHITZ = {
    "sigmoid": 1 / 4,
    "softplus": 1.0,
    "hardsigmoid": 1 / 6,
    "silu": 1.1,
    "gelu": 1.13,
    "mish": 1.1,
    "hardswish": 1.5,
    "selu": 1.7581,
    "celu": 1.0,
    "softmax": 1 / 2,
    "_softmax": 1 / 2,
}
"""Largest slope of element-wise functions, and the norm of softmax's Jacobian.

- sigmoid s: s (1 - s) <= 1/4; softplus' slope is s <= 1; hardsigmoid's is 1/6.
- SiLU x s(x): s + x s (1 - s) is largest at x = 2.3994, where 2 + x (1 - 2 s) = 0: 1.0998.
- GELU x P(x), P the normal distribution with density p: P + x p is largest at x = sqrt(2), where
  p (2 - x^2) = 0: 1.1289; its tanh form has 1.1290.
- Mish: 1.0885. Hardswish x (x + 3) / 6 within -3..3: (2 x + 3) / 6 is largest at 3: 1.5.
- SELU: 1.0507 * 1.6733 left of 0. CELU's slope is exp(x / alpha) <= 1 there.
- Softmax p: J = diag(p) - p p', symmetric; by Gershgorin |J| <= max 2 p_i (1 - p_i) <= 1/2.
"""


def matrix_norm(weights: np.ndarray) -> float:
    """Largest singular value of `(count, k, n)` matrices: ||W|| of Deep Reuse's equation (2)."""
    wide = np.asarray(weights, np.float64)
    if wide.shape[1] > wide.shape[2]:
        wide = wide.transpose(0, 2, 1)
    gram = wide @ wide.transpose(0, 2, 1)  # its largest eigenvalue is as exact as the norm's square
    return math.sqrt(float(np.linalg.eigvalsh(gram)[:, -1].max()))


def overlap(size: int, kernel: int, stride: int, padding: int, dilation: int, outputs: int) -> int:
    """Most windows of one dimension that the same element belongs to.

    Args:
        size: elements.
        kernel: elements of a window.
        stride: between windows.
        padding: in front of the first element.
        dilation: between a window's elements.
        outputs: windows.
    """
    places = np.add.outer(np.arange(outputs) * stride, np.arange(kernel) * dilation) - padding
    inside = places[(places >= 0) & (places < size)]
    return int(np.bincount(inside).max()) if inside.size else 0


def multiplicity(layer: Layer) -> int:
    """How often unfolding repeats the same element of a convolution's input, at most.

    Windows are products of windows of each dimension, and so are their numbers. Unfolding repeats
    element x r_x times, so its norm is the square root of the largest r_x.
    """
    geometry = layer.convolution
    assert geometry is not None
    return math.prod(
        overlap(*dimension)
        for dimension in zip(
            layer.input_shape[2:], geometry.kernel, geometry.stride, geometry.padding,
            geometry.dilation, layer.output_shape[2:], strict=True,
        )
    )  # fmt: skip


def layer_norm_of(layer: Layer, weights: np.ndarray) -> float:
    """How much a layer, a linear map of its input before unfolding, stretches an error.

    A convolution y = unfold(x) W has |y| <= ||W|| sqrt(multiplicity) |x|; often the bound by
    frequencies is tighter, and the smaller one is returned.

    Args:
        layer: the layer.
        weights: `(count, k, n)`.
    """
    unfolded = matrix_norm(weights)
    geometry = layer.convolution
    if geometry is None:
        return unfolded
    taps = geometry.kernel
    count, k, n = weights.shape
    if layer.kind == "conv":
        kernel = weights.transpose(0, 2, 1).reshape(count, n, k // math.prod(taps), *taps)
        size = [s + 2 * p for s, p in zip(layer.input_shape[2:], geometry.padding, strict=True)]
        unfolded *= math.sqrt(multiplicity(layer))
    else:
        # The adjoint of a convolution from its outputs to its inputs, with the same norm.
        kernel = weights.reshape(count, k, n // math.prod(taps), *taps)
        size = [
            (s - 1) * step + d * (t - 1) + 1
            for s, step, d, t in zip(
                layer.input_shape[2:], geometry.stride, geometry.dilation, taps, strict=True
            )
        ]
        unfolded = math.inf
    return min(unfolded, convolution_norm(kernel, size, geometry.stride, geometry.dilation))


def convolution_norm(
    kernel: np.ndarray, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> float:
    """Upper bound of a convolution's norm on zero-padded feature maps, from its frequencies.

    On a torus of N positions per dimension, at least as many as the padded map has, the
    convolution does to the map what it does without wrapping around, and more: its norm there is
    no smaller. There it is block-diagonal: frequency w is multiplied by the `(out, in)` matrix
    K(w), and with stride s the s aliases of a frequency, [K(w_1) ... K(w_s)] / sqrt(s), add up
    (Sedghi, Gupta and Long, ICLR 2019; the alias rule follows from decimation in time).

    A larger map has more frequencies than need be looked at: u' K(w) v is a trigonometric
    polynomial of e taps, that is, of degree (e - 1) / 2, so its maximum over all w is at most
    1 / cos(pi (e - 1) / (2 N)) of that on N frequencies, per dimension (Ehlich and Zeller, Math.
    Z. 86, 1964).

    Args:
        kernel: `(groups, out, in, *taps)`.
        size: padded positions per dimension.
        stride: per dimension.
        dilation: per dimension.
    """
    groups, outputs, inputs, *taps = kernel.shape
    grid, slack = [], 1.0
    for extent, positions, step in zip(
        (d * (t - 1) + 1 for t, d in zip(taps, dilation, strict=True)), size, stride, strict=True
    ):
        whole = math.ceil(positions / step) * step
        coarse = math.ceil((_FREQUENCIES_PER_TAP * (extent - 1) + 1) / step) * step
        grid.append(min(whole, coarse))
        if coarse < whole:
            slack /= math.cos(math.pi * (extent - 1) / (2 * coarse))
    flat = np.asarray(kernel, np.float64).reshape(groups, outputs * inputs, -1)
    classes = [n // step for n, step in zip(grid, stride, strict=True)]
    # A real kernel has conjugate matrices at opposite frequencies.
    classes[-1] = classes[-1] // 2 + 1
    largest = 0.0
    for frequency in itertools.product(*map(range, classes)):
        waves = np.ones(1)
        for f, n, step, t, d in zip(frequency, grid, stride, taps, dilation, strict=True):
            alias = f + np.arange(step) * (n // step)
            wave = np.exp(-2j * np.pi / n * np.outer(np.arange(t) * d, alias))
            waves = np.kron(waves, wave)
        matrices = (flat @ waves).reshape(groups, outputs, inputs * math.prod(stride))
        if outputs > matrices.shape[2]:
            matrices = matrices.transpose(0, 2, 1)
        gram = matrices @ matrices.conj().transpose(0, 2, 1)
        largest = max(largest, float(np.linalg.eigvalsh(gram)[:, -1].max()))
    return slack * math.sqrt(largest / math.prod(stride))


def max_pool_norm(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    outputs: Sequence[int],
) -> float:
    """Lipschitz constant of max pooling: sqrt of the windows that share an element.

    |max a - max b| <= max |a_i - b_i|, whose square is at most the sum of squares in the window;
    an element that lies in r windows is counted r times.
    """
    dimensions = zip(size, kernel, stride, padding, dilation, outputs, strict=True)
    return math.sqrt(math.prod(overlap(*dimension) for dimension in dimensions))


def average_norm(
    size: int, kernel: int, stride: int, padding: int, outputs: int, *, count_padding: bool
) -> float:
    """Norm of average pooling along one dimension; that of several is the product.

    Windows and divisors factor into those of each dimension, so pooling is a Kronecker product of
    `(outputs, size)` matrices, whose norms multiply.
    """
    starts = np.arange(outputs) * stride - padding
    ends = np.minimum(starts + kernel, size + padding)
    return _windows_norm(starts, ends, size, count_padding=count_padding)


def adaptive_average_norm(size: int, outputs: int) -> float:
    """The same of adaptive pooling: window i is floor(i size / outputs) .. ceil((i+1) ...)."""
    index = np.arange(outputs)
    starts = index * size // outputs
    ends = -(-(index + 1) * size // outputs)
    return _windows_norm(starts, ends, size, count_padding=False)


def _windows_norm(starts: np.ndarray, ends: np.ndarray, size: int, *, count_padding: bool) -> float:
    places = np.arange(size)
    inside = (places >= starts[:, None]) & (places < ends[:, None])
    widths = ends - starts if count_padding else inside.sum(axis=1)
    return float(np.linalg.norm(inside / np.maximum(widths, 1)[:, None], 2))


def response_norm(channels: int, k: float, beta: float) -> float:
    """Lipschitz constant of local response normalisation, y_c = x_c (k + a S_c)^-beta.

    S_c is the sum of x_i^2 over a window of n `channels` around c. With s = k + a S and
    t = a S / s, row c of the Jacobian has s^-beta (1 - 2 beta x_c^2 a / s) on the diagonal, with
    x_c^2 a / s <= t < 1: at most k^-beta max(1, |1 - 2 beta|). The rest of the row is
    s^-beta 2 beta a x_c x_i / s; its norm, with f = x_c^2 / S, is
    s^-beta 2 beta t sqrt(f (1 - f)) <= beta t s^-beta, and that is largest at a S = k / beta:
    k^-beta (beta / (beta + 1))^(beta + 1). A channel is in n - 1 rows besides its own, so that
    part of the Jacobian has at most sqrt(n - 1) times this norm. The scale a does not matter: it
    only moves where the maximum lies.

    Args:
        channels: n, window.
        k: additive constant, over 0.
        beta: exponent, over 0.
    """
    steepest = (beta / (beta + 1)) ** (beta + 1)
    return k**-beta * (max(1.0, abs(1 - 2 * beta)) + math.sqrt(channels - 1) * steepest)
