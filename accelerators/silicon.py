"""Area, leakage and energy per action of every part of an accelerator.

Each part is a bill of components, priced by the accelerator's cost table. Wires, clock tree,
control, input and output pads and pipeline registers are not modelled. Nothing here enters timing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from accelerators.accelerator import Accelerator
from accelerators.cost_table import CostTable, Size, cost_table
from accelerators.dram import dram_energy_pj_per_byte
from accelerators.parts import CentroidCache, LshFrontEnd, SramBuffer

PARTS = (
    "array",
    "activation_buffer",
    "weight_buffer",
    "output_buffer",
    "front_end",
    "cache",
    "centroid_buffer",
    "reconstructor",
)
"""Every part that has area, in the order that data takes through the dense design, then reuse."""

# A sparse projection's coefficients are fixed, so nothing stores them.
COEFFICIENT_BITS = {"sign": 1, "sparse": 0, "int8": 8}
# Achlioptas' projections leave two thirds of the elements out.
SPARSE_SHARE = 1 / 3
THRESHOLD_BITS = 16
COUNT_BITS = 16
_INT8_SUM_BITS = 32


@dataclass(frozen=True)
class _Item:
    """A number of equal components."""

    count: float
    component: str
    size: Size


def area_by_part(accelerator: Accelerator) -> dict[str, float]:
    """Area of every part in mm2; 0 for a part that the design lacks.

    Returns:
        The keys are :data:`PARTS`; their sum is the area of the accelerator. A new dictionary.
    """
    return dict(_areas(accelerator, cost_table(accelerator.technology)))


def leakage_by_part(accelerator: Accelerator) -> dict[str, float]:
    """Leakage of every part in mW, with the keys of :func:`area_by_part`.

    The built-in tables give no leakage for registers (0), and SRAM and logic cells of different
    kinds: see ``data/SOURCES.md``.
    """
    return dict(_leakages(accelerator, cost_table(accelerator.technology)))


def energy_per_action(accelerator: Accelerator) -> dict[tuple[str, str], float]:
    """Energy in pJ of ONE action of each part that the design has.

    ``(array, mac)``: one multiply-accumulate without its registers;
    ``(array, register_byte)``: one byte read from or written to a register of a unit;
    ``(<buffer>, read_byte)`` and ``(<buffer>, write_byte)``: an access of the full width over its
    bytes, so a partly used access must be counted in full by the caller;
    ``(front_end, project)``: one element times one coefficient, added;
    ``(front_end, compare)``: one sum against its threshold;
    ``(cache, lookup)``: the tags and valid bits of one set read and compared;
    ``(cache, read_row)`` and ``(cache, write_row)``: the running sums and the count of one entry;
    ``(cache, accumulate)``: one element added to its running sum;
    ``(cache, divide)``: one running sum scaled by a reciprocal;
    ``(cache, clear_entry)``: one valid bit cleared, priced as a register byte;
    ``(reconstructor, add)``: one partial sum added;
    ``(dram, read_byte)`` and ``(dram, write_byte)``.

    Returns:
        ``{(part, action): pJ}``, a new dictionary. Parts that the design lacks have no key.
    """
    return dict(_energies(accelerator, cost_table(accelerator.technology)))


def hash_sum_bits(accelerator: Accelerator, front_end: LshFrontEnd) -> int:
    """Width of a sign projection's adders: ``max_length`` operands added, at least 8 bits more."""
    growth = (front_end.max_length - 1).bit_length()  # ceil(log2(max_length))
    return accelerator.operand_bits + max(8, growth)


def row_sum_bits(accelerator: Accelerator) -> int:
    """Width of a running sum in the centroid cache: 8 bits more than an operand (our choice).

    More than 256 equal rows of full-scale values would overflow a plain sum; design A of
    nmcicek/deepreuse-soc avoids it with a running mean, ``c += (x - c) / count``.
    """
    return accelerator.operand_bits + 8


def row_bits(accelerator: Accelerator, front_end: LshFrontEnd) -> int:
    """Bits of one cache entry's data: a running sum per element and a 16-bit count."""
    return front_end.max_length * row_sum_bits(accelerator) + COUNT_BITS


def tag_bits(front_end: LshFrontEnd, cache: CentroidCache) -> int:
    """Bits of a signature that its set does not give away; 0 if the set says it all."""
    return max(0, front_end.max_hashes - (cache.entries // cache.ways).bit_length() + 1)


def _memory(size_bits: float, width_bits: float) -> Size:
    return {"size_bytes": size_bits / 8, "width_bits": width_bits}


def _bank(buffer: SramBuffer) -> Size:
    """One port's share of a buffer."""
    return _memory(8 * buffer.capacity_bytes / buffer.ports, buffer.width_bits)


def _bill(accelerator: Accelerator) -> dict[str, list[_Item]]:
    """Every part's components."""
    operand, accumulator = accelerator.operand_bits, accelerator.accumulator_bits
    array = accelerator.array
    units = array.rows * array.columns
    bill: dict[str, list[_Item]] = {name: [] for name in PARTS}
    bill["array"] = [
        _Item(units, "int_mac", {"bits": operand, "adder_bits": accumulator}),
        _Item(units, "register", {"bits": _unit_register_bits(accelerator)}),
    ]
    for name in ("activation_buffer", "weight_buffer", "output_buffer", "centroid_buffer"):
        buffer: SramBuffer | None = getattr(accelerator, name)
        if buffer is not None:
            bill[name] = [_Item(buffer.ports, "sram", _bank(buffer))]
    front_end, cache = accelerator.front_end, accelerator.cache
    if front_end is not None:
        bill["front_end"] = _front_end_bill(accelerator, front_end)
        if cache is not None:
            bill["cache"] = _cache_bill(accelerator, front_end, cache)
    if accelerator.reconstructor is not None:
        adders = accelerator.reconstructor.ports * accelerator.reconstructor.width
        bill["reconstructor"] = [_Item(adders, "int_adder", {"bits": accumulator})]
    return bill


def _unit_register_bits(accelerator: Accelerator) -> int:
    """Two operands and a partial sum; overlapped folds double the one that stays."""
    operand, accumulator = accelerator.operand_bits, accelerator.accumulator_bits
    array = accelerator.array
    stays = accumulator if array.dataflow == "output_stationary" else operand
    return 2 * operand + accumulator + (stays if array.fold_timing == "overlapped" else 0)


def _front_end_bill(accelerator: Accelerator, front_end: LshFrontEnd) -> list[_Item]:
    """Per lane hashes x length units and a comparator per hash; one hash matrix for all lanes.

    An int8 unit is a multiplier and a 32-bit adder, so 480 of them are 480 multiply-accumulates;
    a 16-bit operand takes two int8 multipliers, one for each of its bytes.
    """
    matrix = front_end.max_hashes * front_end.max_length
    units = front_end.lanes * matrix
    if front_end.projection in ("sign", "sparse"):
        adders = units * (SPARSE_SHARE if front_end.projection == "sparse" else 1)
        projecting = [_Item(adders, "int_adder", {"bits": hash_sum_bits(accelerator, front_end)})]
    else:
        projecting = [
            _Item(units * accelerator.operand_bits // 8, "int_multiplier", {"bits": 8}),
            _Item(units, "int_adder", {"bits": _INT8_SUM_BITS}),
        ]
    stored = COEFFICIENT_BITS[front_end.projection] * matrix
    return [
        *projecting,
        # A packed lane may hold as many sub-vectors as it has elements; its comparators serve the
        # `max_hashes` sums of one, a packed one's sums are shorter. Not modelled further.
        _Item(front_end.lanes * front_end.max_hashes, "comparator", {"bits": THRESHOLD_BITS}),
        _Item(1, "register", {"bits": stored + THRESHOLD_BITS * front_end.max_hashes}),
    ]


def _cache_bill(
    accelerator: Accelerator, front_end: LshFrontEnd, cache: CentroidCache
) -> list[_Item]:
    """One bank per access a cycle, each with its share of rows and tags and its own arithmetic.

    Valid bits are registers, so that several can be cleared a cycle.
    """
    banks = cache.banks
    row, tag = row_bits(accelerator, front_end), tag_bits(front_end, cache)
    arithmetic = banks * front_end.max_length
    width = row_sum_bits(accelerator)
    items = [
        _Item(banks, "sram", _memory(cache.entries * row / banks, row)),
        _Item(1, "register", {"bits": cache.entries}),
        _Item(arithmetic, "int_adder", {"bits": width}),
        _Item(arithmetic, "int_multiplier", {"bits": width}),
    ]
    if tag:
        tags = _memory(cache.entries * tag / banks, cache.ways * tag)
        items.append(_Item(banks, "sram", tags))
        items.append(_Item(banks * cache.ways, "comparator", {"bits": tag}))
    return items


@lru_cache(maxsize=8192)
def _areas(accelerator: Accelerator, table: CostTable) -> dict[str, float]:
    return {
        name: sum((item.count * table.area_mm2(item.component, **item.size) for item in items), 0.0)
        for name, items in _bill(accelerator).items()
    }


@lru_cache(maxsize=8192)
def _leakages(accelerator: Accelerator, table: CostTable) -> dict[str, float]:
    return {
        name: sum(
            (item.count * table.leakage_mw(item.component, **item.size) for item in items), 0.0
        )
        for name, items in _bill(accelerator).items()
    }


@lru_cache(maxsize=8192)
def _energies(accelerator: Accelerator, table: CostTable) -> dict[tuple[str, str], float]:
    operand, accumulator = accelerator.operand_bits, accelerator.accumulator_bits
    energies = {
        ("array", "mac"): table.energy_pj("int_mac", "mac", bits=operand, adder_bits=accumulator),
        ("array", "register_byte"): _register_byte_pj(table),
    }
    for name in ("activation_buffer", "weight_buffer", "output_buffer", "centroid_buffer"):
        buffer: SramBuffer | None = getattr(accelerator, name)
        if buffer is not None:
            size = _bank(buffer)
            for action in ("read", "write"):
                access_pj = table.energy_pj("sram", action, **size)
                energies[name, f"{action}_byte"] = access_pj * 8 / buffer.width_bits
    front_end, cache = accelerator.front_end, accelerator.cache
    if front_end is not None:
        energies.update(_front_end_energies(accelerator, front_end, table))
        if cache is not None:
            energies.update(_cache_energies(accelerator, front_end, cache, table))
    if accelerator.reconstructor is not None:
        energies["reconstructor", "add"] = table.energy_pj("int_adder", "add", bits=accumulator)
    for action in ("read_byte", "write_byte"):
        energies["dram", action] = dram_energy_pj_per_byte(accelerator.dram.kind)
    return energies


def _register_byte_pj(table: CostTable) -> float:
    """One byte moved; the mean of a read and a write, which the built-in tables price the same."""
    return sum(table.energy_pj("register", action, bits=8) for action in ("read", "write")) / 2


def _front_end_energies(
    accelerator: Accelerator, front_end: LshFrontEnd, table: CostTable
) -> dict[tuple[str, str], float]:
    if front_end.projection in ("sign", "sparse"):
        project = table.energy_pj("int_adder", "add", bits=hash_sum_bits(accelerator, front_end))
    else:
        multiply = table.energy_pj("int_multiplier", "multiply", bits=8)
        add = table.energy_pj("int_adder", "add", bits=_INT8_SUM_BITS)
        project = accelerator.operand_bits // 8 * multiply + add
    compare = table.energy_pj("comparator", "compare", bits=THRESHOLD_BITS)
    return {("front_end", "project"): project, ("front_end", "compare"): compare}


def _cache_energies(
    accelerator: Accelerator, front_end: LshFrontEnd, cache: CentroidCache, table: CostTable
) -> dict[tuple[str, str], float]:
    banks = cache.banks
    row, tag = row_bits(accelerator, front_end), tag_bits(front_end, cache)
    width = row_sum_bits(accelerator)
    rows = _memory(cache.entries * row / banks, row)
    lookup = table.energy_pj("register", "read", bits=cache.ways)  # the valid bits of the set
    if tag:
        tags = _memory(cache.entries * tag / banks, cache.ways * tag)
        lookup += table.energy_pj("sram", "read", **tags)
        lookup += cache.ways * table.energy_pj("comparator", "compare", bits=tag)
    return {
        ("cache", "lookup"): lookup,
        ("cache", "read_row"): table.energy_pj("sram", "read", **rows),
        ("cache", "write_row"): table.energy_pj("sram", "write", **rows),
        ("cache", "accumulate"): table.energy_pj("int_adder", "add", bits=width),
        ("cache", "divide"): table.energy_pj("int_multiplier", "multiply", bits=width),
        ("cache", "clear_entry"): _register_byte_pj(table),
    }
