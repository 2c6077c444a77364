"""Reading the few plain values in CIFAR-10's pickled batches without trusting the file.

A pickle may name any function to call. This reader admits plain containers, numbers, strings
and NumPy arrays of numbers, and rebuilds the arrays itself from their raw bytes; NumPy's own
unpickling code is never reached. Everything else is refused.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from workloads.streams.image_set import StreamError

_PLAIN_DTYPES = ("u1", "i1", "i4", "i8", "f4", "f8")


def load_plain(data: bytes, where: str) -> Any:
    """Unpickle `data`, which may hold only plain values; Python 2 strings become bytes.

    Args:
        data: the pickle.
        where: the file's name, for messages.

    Raises:
        StreamError: for anything but plain values, and for damage.
    """
    try:
        return _resolved(_PlainUnpickler(io.BytesIO(data), encoding="bytes").load())
    except pickle.UnpicklingError as error:
        raise StreamError(
            f"{where} must hold only plain containers and numeric arrays: {error}; "
            "use the binary version of the archive"
        ) from error
    except (EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise StreamError(f"{where} is not a readable pickle ({error})") from error
    except (MemoryError, OverflowError, RecursionError) as error:
        raise StreamError(f"{where} is not a readable pickle ({error})") from error


class _ArrayType:
    """Stands for `numpy.ndarray` in a pickle; only ever passed to `_new_array`."""


class _PlainDtype:
    def __init__(self, code: Any, *_: Any) -> None:
        name = code.decode("ascii") if isinstance(code, bytes) else str(code)
        if name not in _PLAIN_DTYPES:
            raise pickle.UnpicklingError(f"array type {name!r} is not a plain number")
        self.name = name
        self.byte_order = "<"

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else str(state[1])
        self.byte_order = ">" if order == ">" else "<"


class _PlainArray:
    value: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, raw = state
        if not isinstance(dtype, _PlainDtype) or not isinstance(raw, bytes):
            raise pickle.UnpicklingError("array contents must be raw numbers")
        flat = np.frombuffer(raw, dtype=np.dtype(dtype.byte_order + dtype.name))
        self.value = flat.reshape(shape, order="F" if is_fortran else "C")


def _new_array(*_: Any) -> _PlainArray:
    return _PlainArray()


def _latin1_bytes(text: Any, encoding: Any) -> bytes:
    """Rebuild bytes as protocol 2 writes them on Python 3: `_codecs.encode(text, 'latin1')`."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("only latin1 bytes are plain")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _PlainDtype,
    ("_codecs", "encode"): _latin1_bytes,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        admitted = _ADMITTED.get((module, name))
        if admitted is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return admitted

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside the file")


def _resolved(value: Any) -> Any:
    """Replace array stand-ins in a dict or list by their arrays, one level deep."""
    if isinstance(value, dict):
        return {key: _resolved_item(item) for key, item in value.items()}
    return _resolved_item(value)


def _resolved_item(value: Any) -> Any:
    return value.value if isinstance(value, _PlainArray) else value
