"""Stand-ins for what NumPy writes into a pickle, so that none of NumPy's own unpickling code runs.

A reader of pickles maps the names of NumPy's functions and classes to these. Arrays and numbers are
rebuilt from their raw bytes; an array of objects, whose bytes would be a pickle again, is refused.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

_PLAIN_DTYPES = ("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")


class ArrayType:
    """Stands for `numpy.ndarray`; only ever passed to `new_array`."""


class PlainDtype:
    """Stands for `numpy.dtype`; plain numbers alone."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        name = code.decode("ascii") if isinstance(code, bytes) else str(code)
        if name not in _PLAIN_DTYPES:
            raise pickle.UnpicklingError(f"array type {name[:20]!r} is not a plain number")
        self.name = name
        self.byte_order = "<"

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else str(state[1])
        self.byte_order = ">" if order == ">" else "<"

    def values(self, raw: object) -> np.ndarray:
        """The numbers in raw bytes, one-dimensional."""
        if not isinstance(raw, bytes):
            raise pickle.UnpicklingError("array contents must be raw numbers")
        return np.frombuffer(raw, dtype=np.dtype(self.byte_order + self.name))


class PlainArray:
    """What `new_array` makes; its array is `value` once the pickle has given its state."""

    value: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, raw = state
        if not isinstance(dtype, PlainDtype):
            raise pickle.UnpicklingError("array contents must be raw numbers")
        self.value = dtype.values(raw).reshape(shape, order="F" if is_fortran else "C")


def new_array(*_: Any) -> PlainArray:
    """Stands for `numpy.core.multiarray._reconstruct`."""
    return PlainArray()


def new_scalar(dtype: Any, raw: Any = b"") -> np.generic:
    """Stands for `numpy.core.multiarray.scalar`."""
    if not isinstance(dtype, PlainDtype):
        raise pickle.UnpicklingError("a number's type must be plain")
    (value,) = dtype.values(raw)
    return value


STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): new_array,
    ("numpy._core.multiarray", "_reconstruct"): new_array,
    ("numpy.core.multiarray", "scalar"): new_scalar,
    ("numpy._core.multiarray", "scalar"): new_scalar,
    ("numpy", "ndarray"): ArrayType,
    ("numpy", "dtype"): PlainDtype,
}
"""(module, name) in a pickle -> what stands for it."""
