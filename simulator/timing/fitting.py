"""A design whose memories and reuse units are as large as the tiles of a workload need them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from accelerators import (
    Accelerator,
    ConfigError,
    LeaderTable,
    NeighbourMatcher,
    Reconstructor,
    SramBuffer,
)
from accelerators.rules import show
from simulator.decisions.left import layer_of_rows
from simulator.decisions.looks import Looks
from simulator.policies.leaders import LeaderReuse
from simulator.policies.neighbours import NeighbourReuse
from simulator.policies.policy import ReusePolicy
from simulator.policies.together import Together
from simulator.timing.dataflows.dataflow import dataflow_of
from simulator.timing.dense_baseline import BUFFERS, with_rates
from simulator.timing.pacing import with_paced_units
from simulator.timing.transfers import byte_count, ceil_div
from workloads.traces.layer import Layer

# Of a tile's vectors, so many are multiplied: our choice, the most that tiles of 100 to 300 rows of
# a ResNet-18 left on street video.
REMAINING = 0.75
_LEAST_BYTES, _MOST_BYTES = 2**11, 2**20  # as of the dense designs of equal area
_MOST_ENTRIES, _MOST_WAYS = 2**13, 8
_CLEARING_CYCLES = 16  # as of the presets: valid bits are registers
# Of the multiply-accumulates, those of layers whose inputs, or weights, a buffer holds: our choice.
_HELD_SHARE = 0.6
# Rows of a dense tile, in times of what filling and draining the array takes.
_DENSE_ROWS = 4
_MOST_PORTS = 64
_WIDEST_LANE = 64  # elements of a lane of a leader table: our choice, as of its presets
_MOST_LANES = 64  # of a neighbour matcher, by its rule
_MOST_UNDECIDED = 64  # of a leader table, likewise


def fitted_design(
    accelerator: Accelerator,
    layers: Sequence[Layer],
    policy: ReusePolicy,
    *,
    columns: int | None = None,
    remaining: float = REMAINING,
) -> Accelerator:
    """The design with memories that hold what tiles need, and reuse units that keep up.

    Given are the array, the widths of operands and sums, and which units there are; of these the
    following are replaced:

    - capacities of buffers, powers of two from 2 KiB to 1 MiB, so that no tile's sums, results or
      ids travel and nothing is loaded twice, see `simulator.timing.passes`: half of the output
      buffer holds the sums that a tile has begun, of `columns` columns; half of the centroid buffer
      the centroids, their results for all taps, and ids; half of the activation buffer the window
      of inputs that following tiles share; the weight buffer all weights, or twice those of
      `columns` columns. Dense layers need rows enough that the array is rarely filled anew.
    - widths of ports, so that the array is fed and a vector is read in the time of its hashing;
    - the front-end: as many hashes at a time, and lanes, as hash a vector no slower than the array
      multiplies; the largest layer that reuses decides;
    - the cache: an entry for each vector of a tile, up to 8,192, cleared in 16 cycles;
    - the leader table: as many leaders, as long, as are decided with; as few lanes as compare a
      vector with all of them, and divide what is left, no slower than the array multiplies;
    - the neighbour matcher: entries back to the farthest neighbour, and as few lanes, likewise;
    - the address list: an entry for each row of the longest layer;
    - the reconstructor: as wide as it takes to hand results out in the time of the product;
    - what looks at whole maps or frames, and banks of units that work by themselves (lanes, weight
      tables): see `simulator.timing.pacing`.

    Where more of a tile's vectors are multiplied than `remaining`, what does not fit travels, and
    is charged; where fewer are, units do not keep up with the array.

    Args:
        accelerator: the design.
        layers: the workload.
        policy: what is decided on each; layers that it does not look at in tiles of vectors are
            dense here.
        columns: of a layer's n that are multiplied in one pass, 1 or more; `None`: the array's.
        remaining: of a tile's vectors, those that are multiplied; above 0 and at most 1.

    Raises:
        ConfigError: the number of columns or what remains breaks its rule; the array is too wide
            for any buffer's ports; or L is longer than a layer's rows.
    """
    if columns is not None and (type(columns) is not int or columns < 1):
        raise ConfigError(
            f"fitted_design.columns must be an integer of at least 1, got {show(columns)}; leave "
            "it out for the array's"
        )
    if not (isinstance(remaining, float | int) and 0 < remaining <= 1):
        raise ConfigError(
            f"fitted_design.remaining must be above 0 and at most 1, got {show(remaining)}; leave "
            f"it out for {REMAINING}"
        )
    shared = []
    for layer in layers:
        own = policy.policy_of(layer.name)
        each, own = _looked_at(_one_image(layer, own), own)
        looks = _looks(own, each) if own.applies_to(layer) else None
        if looks is not None:
            wide = min(columns or accelerator.array.columns, layer.gemm.n)
            shared.append(
                _Shared(layer=each, looks=looks, policy=own, columns=wide, remaining=remaining)
            )
    reused = {each.layer.name for each in shared}
    dense = [layer for layer in layers if layer.name not in reused]
    capacities = [_capacity(accelerator, name, shared, dense) for name in BUFFERS]
    capacities = [
        max(capacity, _power_of_two(least_bytes(accelerator, name)))
        for name, capacity in zip(BUFFERS, capacities, strict=True)
    ]
    design = with_rates(
        accelerator.without_reuse(accelerator.name), accelerator.array, tuple(capacities)
    )
    kept = {name: getattr(accelerator, name) for name in accelerator.units if name not in BUFFERS}
    design = replace(design, **kept)
    if design.address_list is not None:
        entries = _power_of_two(max(layer.gemm.m for layer in layers), 1, 2**24)
        design = replace(
            design,
            address_list=replace(
                design.address_list,
                entries=entries,
                address_bits=max(1, (entries - 1).bit_length()),
            ),
        )
    design = _with_units(design, shared) if shared else _with_handing_out(design)
    return with_paced_units(design, layers, remaining)


def _with_handing_out(design: Accelerator) -> Accelerator:
    """An output buffer that keeps a reconstructor busy which fills rows in: results are read, and
    what is made of them written, on ports as wide as its own."""
    unit = design.reconstructor
    if unit is None:
        return design
    outputs = design.output_buffer
    width_bits = max(outputs.width_bits, unit.width * design.accumulator_bits)
    return replace(
        design, output_buffer=_held(outputs, width_bits, max(outputs.ports, 2 * unit.ports))
    )


def least_bytes(design: Accelerator, name: str) -> int:
    """Bytes below which a buffer of a design can't work: an access on each of its ports, and two of
    what the array takes at once (`simulator.timing.dataflows.dataflow.check_feeds`)."""
    inputs, weights = dataflow_of(design.array).fed(design.array)
    fed = {"activation_buffer": inputs, "weight_buffer": weights}.get(name, 0)
    return max(getattr(design, name).bytes_per_cycle, 2 * byte_count(fed, design.operand_bits))


def _one_image(layer: Layer, policy: ReusePolicy) -> Layer:
    """A convolution on one image where all are cut alike: far fewer vectors to look at."""
    images = layer.row_images
    tile = getattr(policy, "tile", None)
    alike = getattr(policy, "scope", None) in ("tile", "image") and (
        tile is None or tile.frames == 1
    )
    if layer.convolution is None or layer.input_shape[0] != images or images == 1 or not alike:
        return layer
    return replace(
        layer,
        gemm=replace(layer.gemm, m=layer.gemm.m // images),
        images=1,
        row_images=1,
        input_shape=(1, *layer.input_shape[1:]),
        output_shape=(1, *layer.output_shape[1:]),
    )


def _looked_at(layer: Layer, policy: ReusePolicy) -> tuple[Layer, ReusePolicy]:
    """The one of several techniques that looks at vectors, and the layer as it sees it, with all
    its rows."""
    while isinstance(policy, Together) and not hasattr(policy.first, "looks"):
        layer = layer_of_rows(layer) if policy.first.applies_to(layer) else layer
        policy = policy.second
    return layer, policy.first if isinstance(policy, Together) else policy


def _looks(policy: ReusePolicy, layer: Layer) -> Looks | None:
    """How a policy looks at a layer's vectors; `None` where it has none, or each is alone."""
    look = getattr(policy, "looks", None)
    looks = None if look is None else look(layer)
    return None if looks is None or looks.are_alone else looks


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """A layer whose vectors are looked at.

    Attributes:
        layer: the layer.
        looks: how.
        policy: by what.
        columns: of n in a pass.
        remaining: of the vectors, those that are multiplied.
    """

    layer: Layer
    looks: Looks
    policy: Any
    columns: int
    remaining: float

    @property
    def vectors(self) -> int:
        """Of a view in a tile, at most."""
        return int(self.looks.vectors_of_kind.max())

    @property
    def length(self) -> int:
        """Elements of a vector, at most."""
        return int(self.looks.widths.max())

    @property
    def taps(self) -> int:
        """That multiply by a vector, at most."""
        return int(self.looks.taps_of_kind.max())

    def bytes_in(self, name: str, design: Accelerator) -> int:
        """Bytes that one of the buffers needs, both of its halves."""
        operand, accumulator = design.operand_bits, design.accumulator_bits
        gemm, columns = self.layer.gemm, self.columns
        match name:
            case "activation_buffer":
                elements = self.layer.input_elements // gemm.count
                loaded = self.looks.loaded
                share = elements // self.looks.tiles
                if loaded is not None:
                    share = ceil_div(loaded.window * elements, loaded.positions)
                return 2 * byte_count(share, operand)
            case "weight_buffer":
                return byte_count(gemm.k * min(gemm.n, 2 * columns), operand)
            case "output_buffer":
                return 2 * byte_count(int(self.looks.open_rows.max()) * columns, accumulator)
            case "centroid_buffer":
                clusters = math.ceil(self.remaining * self.vectors)
                held = byte_count(clusters * self.length, operand)
                held += byte_count(clusters * columns * self.taps, accumulator)
                return 2 * (held + byte_count(self.vectors, max(1, self.vectors.bit_length())))
            case _:
                raise ValueError(f"no tile has anything in {name}")

    def product_cycles(self, design: Accelerator) -> float:
        """That the array takes for each vector that is looked at."""
        array = design.array
        folds = ceil_div(self.length, array.rows)
        return self.remaining * folds * ceil_div(self.columns * self.taps, array.columns)

    def handed_sums(self, design: Accelerator) -> float:
        """Partial sums that are handed out a cycle, so that the array need not wait."""
        each_vector = int(self.looks.handed.sum()) / max(1, int(self.looks.vectors.sum()))
        return each_vector * self.columns / self.product_cycles(design)


def _capacity(
    design: Accelerator, name: str, shared: Sequence["_Shared"], dense: Sequence[Layer]
) -> int:
    """A power of two that holds what layers need.

    Sums that do not fit travel for every view, so all of what is shared counts. Inputs and weights
    that do not are loaded again, which a layer of few tiles can bear: layers with most of the work
    count.
    """
    needs = [(each.bytes_in(name, design), each.layer.gemm.macs) for each in shared]
    if shared and name == "output_buffer":
        return _power_of_two(max(need for need, _ in needs))
    needs += [(_dense_bytes(design, name, layer), layer.gemm.macs) for layer in dense]
    needs.sort()
    if not shared:
        return _power_of_two(max((need for need, _ in needs), default=1))
    total, held = sum(macs for _, macs in needs), 0
    for need, macs in needs:
        held += macs
        if held >= _HELD_SHARE * total:
            return _power_of_two(need)
    raise AssertionError("shares of the work add up to all of it")


def _dense_bytes(design: Accelerator, name: str, layer: Layer) -> int:
    """Bytes that a dense layer's tiles need."""
    array, gemm = design.array, layer.gemm
    rows = min(gemm.m, _DENSE_ROWS * (array.rows + array.columns))
    columns = min(gemm.n, array.columns)
    match name:
        case "activation_buffer":
            inputs = ceil_div(layer.input_elements // gemm.count * rows, gemm.m)
            return 2 * byte_count(inputs, design.operand_bits)
        case "weight_buffer":
            return byte_count(gemm.k * min(gemm.n, 2 * columns), design.operand_bits)
        case "output_buffer":
            return 2 * byte_count(rows * columns, design.accumulator_bits)
        case _:
            raise ValueError(f"no dense tile has anything in {name}")


def _power_of_two(least: float, low: int = _LEAST_BYTES, high: int = _MOST_BYTES) -> int:
    """The smallest of at least a number, within bounds."""
    return max(low, min(high, 1 << max(0, math.ceil(least) - 1).bit_length()))


def _with_units(design: Accelerator, shared: Sequence[_Shared]) -> Accelerator:
    """Reuse units and the ports that serve them; those that the design lacks stay out."""
    largest = max(shared, key=lambda each: each.layer.gemm.macs)
    changes: dict[str, Any] = {}
    hashing = [each for each in shared if hasattr(each.policy, "hashes")]
    reading_bits, lanes = 0, 1
    if design.front_end is not None and hashing:
        busiest = max(hashing, key=lambda each: each.layer.gemm.macs)
        hashes = max(each.policy.hashes for each in hashing)
        length = max(each.length for each in hashing)
        cycles = busiest.product_cycles(design)
        passes = max(1, min(hashes, math.floor(cycles)))
        lanes = _power_of_two(1 / cycles, 1, _MOST_PORTS)
        reading_bits = ceil_div(length * design.operand_bits, 8 * passes) * 8
        changes["front_end"] = replace(
            design.front_end, max_hashes=ceil_div(hashes, passes), max_length=length, lanes=lanes
        )
        if design.cache is not None:
            changes["cache"] = _cache(design, hashing, lanes)
    following = [each for each in shared if isinstance(each.policy, LeaderReuse)]
    if design.leader_table is not None and following:
        changes["leader_table"], bits = _leader_table(design, design.leader_table, following)
        reading_bits = max(reading_bits, bits)
    matching = [
        each
        for each in shared
        if isinstance(each.policy, NeighbourReuse) and each.policy.pairs(each.layer).reach
    ]
    if design.neighbour_matcher is not None and matching:
        changes["neighbour_matcher"], bits = _neighbour_matcher(
            design, design.neighbour_matcher, matching
        )
        reading_bits = max(reading_bits, bits)
    activations = design.activation_buffer
    changes["activation_buffer"] = _held(
        activations, max(activations.width_bits, reading_bits), lanes
    )
    if design.reconstructor is None or design.centroid_buffer is None:
        return replace(design, **changes)
    sums = _power_of_two(largest.handed_sums(design), 8, 4096)
    # Ports as wide as the given design's, but not wider than a row has columns in a pass, and as
    # many as it takes: a further port is dearer than a wider one, in wires and banks that the area
    # model does not see.
    width = min(sums, design.reconstructor.width, largest.columns)
    ports = min(_MOST_PORTS // 2, ceil_div(sums, width))
    sum_bits = width * design.accumulator_bits
    needed = max(each.bytes_in("centroid_buffer", design) for each in shared)
    outputs = design.output_buffer
    changes |= {
        "reconstructor": Reconstructor(ports=ports, width=width),
        # Every row gathered reads a result, reads the sum so far and writes it back.
        "output_buffer": _held(outputs, max(outputs.width_bits, sum_bits), 2 * ports),
        # The array reads a centroid and writes a result in a cycle, and where a vector takes
        # several folds reads what the one before left of it.
        "centroid_buffer": _held(
            replace(design.centroid_buffer, capacity_bytes=_power_of_two(needed)),
            _multiple_of_8(sum_bits),
            max(2 if largest.length <= design.array.rows else 3, ports),
        ),
    }
    return replace(design, **changes)


def _cache(design: Accelerator, hashing: Iterable[_Shared], lanes: int) -> Any:
    """A table with an entry for each vector of a tile; every lane asks a bank of its own."""
    needed = max(min(each.vectors, 2**each.policy.hashes) for each in hashing)
    entries = _power_of_two(needed, lanes, _MOST_ENTRIES)
    return replace(
        design.cache,  # type: ignore[type-var]
        entries=entries,
        ways=min(_MOST_WAYS, entries // lanes),
        banks=lanes,
        clear_entries_per_cycle=max(1, entries // _CLEARING_CYCLES),
    )


def _leader_table(
    design: Accelerator, unit: LeaderTable, following: Sequence[_Shared]
) -> tuple[LeaderTable, int]:
    """A table for all leaders, and bits of a vector that are read a cycle meanwhile."""
    busiest = max(following, key=lambda each: each.layer.gemm.macs)
    entries = max(each.policy.entries for each in following)
    length = max(each.length for each in following)
    width, cycles = min(length, _WIDEST_LANE), busiest.product_cycles(design)
    steps = ceil_div(length, width)
    # As few wait undecided as let a vector come in the time of the product.
    undecided = min(_MOST_UNDECIDED, ceil_div(unit.latency_cycles, max(1, math.floor(cycles))))
    undecided = max(0, undecided - 1)
    compared = entries + undecided
    turns = max(1, min(compared, math.floor(cycles / steps)))
    fitted = replace(
        unit,
        entries=entries,
        max_length=length,
        width=width,
        lanes=ceil_div(compared, turns),
        undecided=undecided,
        means=_take_means(following),
        divided_elements=min(length, math.ceil(busiest.remaining * length / cycles)),
    )
    return fitted, _bits_read(design, length, turns * steps)


def _neighbour_matcher(
    design: Accelerator, unit: NeighbourMatcher, matching: Sequence[_Shared]
) -> tuple[NeighbourMatcher, int]:
    """A matcher for all neighbours, and bits of a vector that are read a cycle meanwhile."""
    busiest = max(matching, key=lambda each: each.layer.gemm.macs)
    pairs = busiest.policy.pairs(busiest.layer)
    steps = ceil_div(busiest.length, unit.width)
    compared = steps * int(pairs.comparisons.sum()) / int(busiest.looks.vectors_of_kind.sum())
    lanes = min(_MOST_LANES, max(1, math.ceil(compared / busiest.product_cycles(design))))
    reached = max(
        each.policy.pairs(each.layer).reach * ceil_div(each.length, unit.width) for each in matching
    )
    fitted = replace(
        unit, lanes=lanes, line_entries=max(lanes, reached), means=_take_means(matching)
    )
    each_vector = max(steps, math.floor(compared / lanes))
    return fitted, _bits_read(design, busiest.length, each_vector)


def _take_means(shared: Sequence[_Shared]) -> bool:
    """Whether any layer's clusters take their mean."""
    return any(each.policy.representative == "centroid" for each in shared)


def _bits_read(design: Accelerator, length: int, cycles: int) -> int:
    """Bits of a vector that are read a cycle, whole bytes."""
    return _multiple_of_8(ceil_div(length * design.operand_bits, cycles))


def _held(buffer: SramBuffer, width_bits: int, ports: int) -> SramBuffer:
    """The buffer with other ports, and room for an access on each."""
    width_bits = _multiple_of_8(width_bits)
    while width_bits > 4096:
        width_bits, ports = _multiple_of_8(ceil_div(width_bits, 2)), 2 * ports
    least = ports * width_bits // 8
    capacity = max(buffer.capacity_bytes, _power_of_two(least))
    return replace(buffer, capacity_bytes=capacity, width_bits=width_bits, ports=ports)


def _multiple_of_8(bits: int) -> int:
    return 8 * ceil_div(bits, 8)
