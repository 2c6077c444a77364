"""A Gaussian process that is fitted in a fraction of a second, for the default optimiser.

Equations are those of Rasmussen and Williams, Gaussian Processes for Machine Learning (MIT Press,
2006): 2.25 and 2.26 for what is predicted, 5.8 and 5.9 for the likelihood and its gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

# Logarithms of a length scale, of the scale and of the noise are normal beforehand: (mean, standard
# deviation). That of a length scale rises with the root of the dimension (Hvarfner, Hellsten and
# Nardi, Vanilla Bayesian Optimization Performs Great in High Dimensions, ICML 2024).
_LENGTH, _SCALE, _NOISE = (-1.0, 0.8), (0.0, 1.0), (-4.5, 1.5)
_ROUNDS = 100  # of the search for the likeliest
_JITTER = 1e-8
# Fits that are kept: a batch asks several times with the same trials.
_KEPT_FITS = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianProcess:
    """What is expected of a function, standardised, anywhere in the unit cube.

    The kernel is Matern's of 5/2, with a length of its own for each parameter.

    Attributes:
        points: `(n, columns)` float64, where it is known; see `fit`.
        weights: `(columns,)` inverse squared lengths.
        scale: variance of the function.
        mean: of the values, `deviation` their standard deviation.
        factor: `(n, n)` lower Cholesky factor of the covariance of the values.
        solved: `(n,)` covariance's inverse times the values.
        noise: variance added to each value.
    """

    points: np.ndarray
    weights: np.ndarray
    scale: float
    noise: float
    mean: float
    deviation: float
    factor: np.ndarray
    solved: np.ndarray

    @classmethod
    def fit(cls, points: np.ndarray, values: np.ndarray, groups: np.ndarray) -> GaussianProcess:
        """The likeliest one, given what is usual beforehand.

        Args:
            points: `(n, columns)` float64 in the unit cube.
            values: `(n,)` float64, finite.
            groups: `(columns,)` int, the parameter that a column is of, from 0; the columns of a
                category share a length.
        """
        mean, deviation = float(values.mean()), float(values.std()) or 1.0
        scaled = (values - mean) / deviation
        theta = _likeliest(
            points.shape, points.tobytes(), scaled.tobytes(), tuple(int(g) for g in groups)
        )
        *lengths, scale, noise = np.exp(theta)
        weights = np.array(lengths)[groups]
        covariance = scale * _matern(_squares(points, points, weights))[0]
        covariance[np.diag_indices_from(covariance)] += noise + _JITTER
        factor = cholesky(covariance, lower=True)
        return cls(
            points=points,
            weights=weights,
            scale=scale,
            noise=noise,
            mean=mean,
            deviation=deviation,
            factor=factor,
            solved=cho_solve((factor, True), scaled),
        )

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, both `(n,)`, at `(n, columns)` points."""
        cross = self.scale * _matern(_squares(points, self.points, self.weights))[0]
        explained = solve_triangular(self.factor, cross.T, lower=True, check_finite=False)
        variance = np.maximum(self.scale - (explained**2).sum(axis=0), 1e-12)
        mean = self.mean + self.deviation * (cross @ self.solved)
        return mean, self.deviation * np.sqrt(variance)

    def believing(self, points: np.ndarray) -> GaussianProcess:
        """The same, had its own mean been found at these points: a kriging believer."""
        values = (self.predict(points)[0] - self.mean) / self.deviation
        known = self.factor @ (self.factor.T @ self.solved)
        everything = np.concatenate([self.points, points])
        covariance = self.scale * _matern(_squares(everything, everything, self.weights))[0]
        covariance[np.diag_indices_from(covariance)] += self.noise + _JITTER
        factor = cholesky(covariance, lower=True)
        solved = cho_solve((factor, True), np.concatenate([known, values]))
        return replace(self, points=everything, factor=factor, solved=solved)


def _squares(these: np.ndarray, those: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`(n, n')` weighted squared distances."""
    root = np.sqrt(weights)
    these, those = these * root, those * root
    squares = (these**2).sum(axis=1)[:, None] + (those**2).sum(axis=1) - 2 * these @ those.T
    return np.maximum(squares, 0.0)


def _matern(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matern's kernel of 5/2 and its derivative, by the squared distance."""
    distance = np.sqrt(5 * squares)
    decay = np.exp(-distance)
    return (1 + distance + 5 / 3 * squares) * decay, -5 / 6 * (1 + distance) * decay


@lru_cache(maxsize=_KEPT_FITS)
def _likeliest(
    shape: tuple[int, int], points: bytes, values: bytes, groups: tuple[int, ...]
) -> np.ndarray:
    """Logarithms of each parameter's inverse squared length, of the scale and of the noise."""
    x = np.frombuffer(points).reshape(shape)
    y = np.frombuffer(values)
    count = max(groups) + 1
    # (parameters, n * n) squared distances along each parameter.
    along = np.zeros((count, len(x) ** 2))
    for column, group in enumerate(groups):
        along[group] += ((x[:, None, column] - x[None, :, column]) ** 2).ravel()
    middle, width = _LENGTH
    # Of the logarithm of an inverse square, twice as wide and turned round.
    means = np.array([-2 * (middle + 0.5 * math.log(count))] * count + [_SCALE[0], _NOISE[0]])
    widths = np.array([2 * width] * count + [_SCALE[1], _NOISE[1]])

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        weights, scale, noise = np.exp(theta[:count]), math.exp(theta[-2]), math.exp(theta[-1])
        kernel, slope = _matern((weights @ along).reshape(len(x), len(x)))
        covariance = scale * kernel
        covariance[np.diag_indices_from(covariance)] += noise + _JITTER
        factor = cholesky(covariance, lower=True, check_finite=False)
        inverse = cho_solve((factor, True), np.eye(len(x)), check_finite=False)
        solved = inverse @ y
        pull = 0.5 * (np.outer(solved, solved) - inverse)
        gradient = np.concatenate(
            [
                weights * (along @ (pull * slope).ravel()) * scale,
                [scale * (pull * kernel).sum(), noise * np.trace(pull)],
            ]
        )
        away = (theta - means) / widths
        value = -0.5 * y @ solved - np.log(np.diag(factor)).sum() - 0.5 * (away**2).sum()
        return -value, -(gradient - away / widths)

    start = means.copy()
    start[:count] = math.log(4.0 / count)  # a length of half the cube's diagonal
    bounds = [(-14.0, 7.0)] * count + [(-5.0, 5.0), (-14.0, 2.0)]
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _ROUNDS}
    )
    return found.x
