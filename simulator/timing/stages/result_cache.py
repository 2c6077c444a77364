"""The result cache: the array makes signatures before it multiplies what they leave."""

from functools import partial
from typing import Any

import numpy as np

from accelerators import ConfigError, ResultCache
from simulator.decisions.evidence import ArraySignatures
from simulator.timing.dataflows.dataflow import dataflow_of, register_bytes
from simulator.timing.passes import passes_of
from simulator.timing.stages.looking import Looking
from simulator.timing.stages.stage import Counts, Place, Work, register
from simulator.timing.tiles import Tiles
from simulator.timing.transfers import Transfer, byte_count, ceil_div, port_cycles


@register
class HashingOnArray(Looking):
    """A tile's vectors pass the array with hyperplanes for weights, then what is left of it does.

    So the array is busy with both, one after the other, and its energy is for both. Vectors come
    from the activation buffer, hyperplanes of 8 bits from the weight buffer, where they lie for the
    whole layer; sums of vectors longer than the array is high wait in the output buffer. Signatures
    are looked up as they leave the array; the table is cleared before.
    """

    units = ("result_cache",)
    track = "hashing on the array"

    @property
    def place(self) -> Place:
        """In the array itself."""
        return "beside"

    @property
    def unit(self) -> ResultCache:
        """The unit."""
        unit = self.accelerator.result_cache
        assert unit is not None
        return unit

    @property
    def evidence(self) -> ArraySignatures:
        """What the layer was decided by.

        Raises:
            ConfigError: it was decided by something else.
        """
        assert self.left.decisions is not None
        evidence = self.left.decisions.evidence
        if isinstance(evidence, ArraySignatures):
            return evidence
        raise ConfigError(
            f"decisions of layer {self.left.layer.name!r} must look signatures of the array up for "
            f"a result cache to work, got {evidence.words}; decide with ResultCacheReuse"
        )

    def check(self) -> None:
        """The table is the one that was decided with, and signatures fit."""
        unit, evidence, name = self.unit, self.evidence, self.left.layer.name
        broken = []
        if (unit.entries, unit.ways) != (evidence.entries, evidence.ways):
            broken.append(
                "Accelerator.result_cache (entries, ways) must be those that layer "
                f"{name!r} was decided with, {(evidence.entries, evidence.ways)}, got "
                f"{(unit.entries, unit.ways)}; change one of them"
            )
        if unit.max_hashes < evidence.hashes:
            broken.append(
                f"Accelerator.result_cache.max_hashes must hold signatures of layer {name!r}, "
                f"{evidence.hashes} bits, got {unit.max_hashes}; use {evidence.hashes} or more"
            )
        if broken:
            raise ConfigError(broken)

    def work(self, tiles: Tiles) -> Work:
        """What passes the array for signatures, and the table."""
        accelerator, cut, hashes = self.accelerator, passes_of(tiles), self.evidence.hashes
        dataflow = dataflow_of(accelerator.array)
        vectors = cut.of_tile(self.shared.looks.vectors[None])
        widths = np.broadcast_to(np.asarray(tiles.k), tiles.shape)
        cycles, latency = dataflow.cycles(accelerator.array, vectors, hashes, widths)
        vector_reads, plane_reads, _, sums = (
            each * tiles.looked
            for each in dataflow.product_bytes(
                accelerator,
                vectors,
                hashes,
                widths,
                inputs=accelerator.activation_buffer,
                sums=accelerator.output_buffer,
            )
        )
        ports = {
            "activation_buffer": vector_reads,
            "weight_buffer": plane_reads,
            # All sums but a vector's last are written, and read by the next fold.
            "output_buffer": 2 * sums,
        }
        looking = vectors + ceil_div(self.unit.entries, self.unit.clear_entries_per_cycle)
        waiting = {
            name: port_cycles(moved, getattr(accelerator, name)) for name, moved in ports.items()
        }
        busy = {"array": cycles * tiles.looked, "result_cache": looking * tiles.looked}
        planes = np.zeros(tiles.shape, np.int64)
        planes.reshape(-1)[0] = byte_count(hashes * self.shared.sub_vector_length, 8)
        return Work(
            limits={**busy, **waiting},
            latency_cycles=latency * tiles.looked,
            busy_cycles=busy,
            transfers=(Transfer(kind="weights", moved_bytes=planes, buffer="weight_buffer"),),
            actions=partial(self._actions, tiles, vector_reads, plane_reads, sums),
        )

    def _actions(self, tiles: Tiles, vector_reads: Any, plane_reads: Any, sums: Any) -> Counts:
        shared, evidence = self.shared, self.evidence
        times, hashes = passes_of(tiles).times_looked, evidence.hashes
        vectors = np.broadcast_to(shared.looks.vectors, shared.clusters.shape)
        widths = np.broadcast_to(shared.widths[:, None], vectors.shape)
        registers = register_bytes(self.accelerator, vectors, hashes, widths)
        between = tiles.total(sums)
        return {
            ("array", "mac"): times * int((vectors * widths).sum()) * hashes,
            ("array", "register_byte"): times * registers,
            ("activation_buffer", "read_byte"): tiles.total(vector_reads),
            ("weight_buffer", "read_byte"): tiles.total(plane_reads),
            ("output_buffer", "write_byte"): between,
            ("output_buffer", "read_byte"): between,
            ("result_cache", "compare"): times * int(vectors.sum()) * hashes,
            ("result_cache", "lookup"): times * int(vectors.sum()),
            ("result_cache", "write"): times * int(evidence.kept.sum()),
            ("result_cache", "clear_entry"): times * vectors.size * self.unit.entries,
        }
