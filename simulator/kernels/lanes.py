"""Steps on 16 floats at a time, written in LLVM's vector types.

Short loops over a sub-vector gain nothing from LLVM's own vectoriser, which has to test whether the
arrays overlap each time. LLVM turns these into whatever the processor has: one AVX-512 register,
two of AVX2, four of NEON. Arrays are passed as addresses (`array.ctypes.data`) and offsets in
floats; nothing checks their bounds.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

LANES = 16

# Its type is that of a definition, with the typing context; calls leave that out.
intrinsic: Any = extending.intrinsic

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_ADDRESS, _OFFSET = types.uintp, types.int64


def padded(size: int) -> int:
    """`size` rounded up to whole vectors."""
    return -(-size // LANES) * LANES


def aligned_empty(shape: tuple[int, ...]) -> np.ndarray:
    """A float32 array that starts on a cache line, so that no whole vector lies across two."""
    size, line = int(np.prod(shape)), 64
    memory = np.empty(size * 4 + line, np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : start + size * 4].view(np.float32).reshape(shape)


def _pointer(builder, address, offset, kind):
    offset = builder.shl(offset, ir.Constant(ir.IntType(64), 2))
    return builder.inttoptr(builder.add(address, offset), kind.as_pointer())


def _load(builder, address, offset):
    return builder.load(_pointer(builder, address, offset, _VECTOR), align=4)


def _store(builder, value, address, offset):
    builder.store(value, _pointer(builder, address, offset, _VECTOR), align=4)


@intrinsic
def transpose_lanes(typing_context, target, at, step, source, start, offsets, first):
    """target[at + r * step + i] = source[start + offsets[first + i] + r], for i, r < 16.

    Offsets are int64, by address.
    """

    def code(context, builder, signature, arguments):
        target, at, step, source, start, offsets, first = arguments
        word = ir.IntType(64)
        vectors = []
        for i in range(LANES):
            place = builder.shl(builder.add(first, ir.Constant(word, i)), ir.Constant(word, 3))
            place = builder.inttoptr(builder.add(offsets, place), word.as_pointer())
            vectors.append(_load(builder, source, builder.add(start, builder.load(place))))
        half = LANES // 2
        order = [[x for i in range(half) for x in (i + at, i + at + LANES)] for at in (0, half)]
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes) for lanes in order]
        # Each round moves the highest bit of the row behind the lowest of the column: after four,
        # they have changed places.
        for _ in range(LANES.bit_length() - 1):
            vectors = [
                builder.shuffle_vector(vectors[i], vectors[i + half], mask)
                for i in range(half)
                for mask in masks
            ]
        for row, vector in enumerate(vectors):
            place = builder.add(at, builder.mul(step, ir.Constant(word, row)))
            _store(builder, vector, target, place)
        return context.get_dummy_value()

    source_types = (_ADDRESS, _OFFSET, _ADDRESS, _OFFSET)
    return types.void(_ADDRESS, _OFFSET, _OFFSET, *source_types), code


@intrinsic
def add_lanes(typing_context, target, at, source, start):
    """target[at:][:16] += source[start:][:16]."""

    def code(context, builder, signature, arguments):
        target, at, source, start = arguments
        total = builder.fadd(_load(builder, target, at), _load(builder, source, start))
        _store(builder, total, target, at)
        return context.get_dummy_value()

    return types.void(_ADDRESS, _OFFSET, _ADDRESS, _OFFSET), code


@intrinsic
def scale_lanes(typing_context, target, at, factor):
    """target[at:][:16] *= factor."""

    def code(context, builder, signature, arguments):
        target, at, factor = arguments
        undefined, lane = ir.Constant(_VECTOR, ir.Undefined), ir.IntType(32)
        factors = builder.insert_element(undefined, factor, ir.Constant(lane, 0))
        first_lane = ir.Constant(ir.VectorType(lane, LANES), [0] * LANES)
        factors = builder.shuffle_vector(factors, undefined, first_lane)
        _store(builder, builder.fmul(_load(builder, target, at), factors), target, at)
        return context.get_dummy_value()

    return types.void(_ADDRESS, _OFFSET, types.float32), code


def _gatherer(vectors: int) -> Any:
    """An intrinsic that adds up rows of `vectors` x 16 columns; see `gather_wide`."""

    @intrinsic
    def gather(typing_context, target, at, source, shift, starts, first, count):
        def code(context, builder, signature, arguments):
            target, at, source, shift, starts, first, count = arguments
            word = ir.IntType(64)
            places = [builder.add(at, ir.Constant(word, LANES * x)) for x in range(vectors)]
            totals = [
                cgutils.alloca_once_value(builder, _load(builder, target, place))
                for place in places
            ]
            with cgutils.for_range(builder, count) as loop:
                place = builder.shl(builder.add(first, loop.index), ir.Constant(word, 3))
                start = builder.load(
                    builder.inttoptr(builder.add(starts, place), word.as_pointer())
                )
                start = builder.add(start, shift)
                for x, total in enumerate(totals):
                    term = _load(builder, source, builder.add(start, ir.Constant(word, LANES * x)))
                    builder.store(builder.fadd(builder.load(total), term), total)
            for place, total in zip(places, totals, strict=True):
                _store(builder, builder.load(total), target, place)
            return context.get_dummy_value()

        return types.void(_ADDRESS, _OFFSET, _ADDRESS, _OFFSET, _ADDRESS, _OFFSET, _OFFSET), code

    return gather


# target[at:][:64] += the sum over i < count of source[shift + starts[first + i]:][:64], starts by
# address: the output is loaded and stored once for all of them; and the same of 16 columns.
gather_wide = _gatherer(4)
gather_narrow = _gatherer(1)


def _products(rows: int, vectors: int) -> Any:
    """An intrinsic that multiplies `rows` rows by `vectors` x 16 columns; see `project_four`."""

    @intrinsic
    def products(
        typing_context, sums, at, sums_step, values, start, values_step, length, weights, first,
        stride,
    ):  # fmt: skip
        def code(context, builder, signature, arguments):
            (sums, at, sums_step, values, start, values_step, length, weights, first, stride) = (
                arguments
            )
            zero = ir.Constant(_VECTOR, [0.0] * LANES)
            undefined = ir.Constant(_VECTOR, ir.Undefined)
            first_lane = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            word = ir.IntType(64)
            lines = [ir.Constant(word, row) for row in range(rows)]
            across = [ir.Constant(word, LANES * vector) for vector in range(vectors)]
            totals = [
                [cgutils.alloca_once_value(builder, zero) for _ in across] for _ in range(rows)
            ]
            with cgutils.for_range(builder, length) as loop:
                line = builder.add(first, builder.mul(loop.index, stride))
                loaded = [_load(builder, weights, builder.add(line, x)) for x in across]
                for row, own in zip(lines, totals, strict=True):
                    place = builder.add(start, builder.mul(row, values_step))
                    place = builder.add(place, loop.index)
                    value = builder.load(_pointer(builder, values, place, ir.FloatType()), align=4)
                    value = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
                    value = builder.shuffle_vector(value, undefined, first_lane)
                    for weight, total in zip(loaded, own, strict=True):
                        product = builder.fmul(value, weight, flags=("contract",))
                        added = builder.fadd(builder.load(total), product, flags=("contract",))
                        builder.store(added, total)
            for row, own in zip(lines, totals, strict=True):
                place = builder.add(at, builder.mul(row, sums_step))
                for x, total in zip(across, own, strict=True):
                    _store(builder, builder.load(total), sums, builder.add(place, x))
            return context.get_dummy_value()

        source = (_ADDRESS, _OFFSET, _OFFSET)
        return types.void(*source, *source, _OFFSET, *source), code

    return products


# Sums of four rows, which share each load of the weights: sums[at + r * sums_step:][:16] = sum over
# l < length of values[start + r * values_step + l] * weights[first + l * stride:][:16], for r < 4.
# One multiply-add after the other in the order of l: equal sub-vectors project equally.
project_four = _products(4, 1)
# The same of eight rows, by 32 columns and by 16.
multiply_wide = _products(8, 2)
multiply_narrow = _products(8, 1)


@intrinsic
def bits_above(typing_context, sums, at, thresholds, start):
    """16 bits, bit h set where sums[at + h] > thresholds[start + h]."""

    def code(context, builder, signature, arguments):
        sums, at, thresholds, start = arguments
        left, right = _load(builder, sums, at), _load(builder, thresholds, start)
        above = builder.fcmp_ordered(">", left, right)
        bits = builder.bitcast(above, ir.IntType(LANES))
        return builder.zext(bits, ir.IntType(64))

    return types.uint64(_ADDRESS, _OFFSET, _ADDRESS, _OFFSET), code
