"""Reading the few plain values in CIFAR-10's pickled batches without trusting the file.

A pickle may name any function to call. This reader admits plain containers, numbers, strings
and NumPy arrays of numbers, and rebuilds the arrays itself from their raw bytes; NumPy's own
unpickling code is never reached. Everything else is refused.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

from workloads.errors import told
from workloads.plain_numpy import STAND_INS, PlainArray
from workloads.streams.image_set import StreamError

# A batch of 10,000 images has a tuple for each file's name; hashing tuples in tuples, which a file
# can hold by the million, would exhaust the stack.
_MOST_TUPLES = 20_000


def load_plain(data: bytes, where: str) -> Any:
    """Unpickle `data`, which may hold only plain values; Python 2 strings become bytes.

    Args:
        data: the pickle.
        where: the file's name, for messages.

    Raises:
        StreamError: for anything but plain values, and for damage.
    """
    try:
        _check_operations(data)
        return _resolved(_PlainUnpickler(io.BytesIO(data), encoding="bytes").load())
    except pickle.UnpicklingError as error:
        raise StreamError(
            f"{where} must hold only plain containers and numeric arrays: {told(error)}; "
            "use the binary version of the archive"
        ) from error
    except Exception as error:  # a damaged pickle calls what it holds with anything
        raise StreamError(
            f"{where} is not a readable pickle ({told(error)}); fetch the archive again"
        ) from error


def _check_operations(data: bytes) -> None:
    """Refuse a pickle whose operations would take memory or stack out of proportion to its size."""
    tuples = 0
    for operation, argument, _ in pickletools.genops(data):
        tuples += "TUPLE" in operation.name
        # Python's reader reserves as many places as the number says.
        if "PUT" in operation.name and int(argument or 0) > len(data):
            raise pickle.UnpicklingError("it numbers more values than it has bytes")
        if operation.name == "BYTEARRAY8" or tuples > _MOST_TUPLES:
            raise pickle.UnpicklingError("it holds more than plain containers")


def _latin1_bytes(text: Any, encoding: Any) -> bytes:
    """Rebuild bytes as protocol 2 writes them on Python 3: `_codecs.encode(text, 'latin1')`."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("only latin1 bytes are plain")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Any] = {**STAND_INS, ("_codecs", "encode"): _latin1_bytes}


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
    return value.value if isinstance(value, PlainArray) else value
