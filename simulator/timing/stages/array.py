"""The array: multiplies what is left of each tile."""

from functools import partial
from typing import Any

from simulator.timing.dataflows.dataflow import dataflow_of, register_bytes
from simulator.timing.stages.stage import Counts, Stage, Work, register
from simulator.timing.tiles import Tiles
from simulator.timing.transfers import port_cycles


@register
class Multiplying(Stage):
    """Every tile that has anything to multiply passes the array, fed by its buffers."""

    units = ("array",)
    track = "array"

    def work(self, tiles: Tiles) -> Work:
        """Rows and weights stream in, partial sums travel to their buffer and back."""
        accelerator, m, n, k = self.accelerator, tiles.m, tiles.n, tiles.k
        dataflow = dataflow_of(accelerator.array)
        cycles, latency = dataflow.cycles(accelerator.array, m, n, k)
        if self.left.decisions is not None:
            # A tile that has nothing to multiply streams nothing.
            working = n > 0
            cycles, latency = cycles * working, latency * working
        moved = dataflow.product_bytes(
            accelerator,
            m,
            n,
            k,
            inputs=getattr(accelerator, tiles.inputs),
            sums=getattr(accelerator, tiles.sums),
        )
        return Work(
            limits={"array": cycles, **self.port_limits(tiles, *moved)},
            latency_cycles=latency,
            busy_cycles={"array": cycles},
            actions=partial(self._actions, tiles, *moved),
        )

    def port_limits(
        self, tiles: Tiles, input_reads: Any, weight_reads: Any, sum_writes: Any, sum_reads: Any
    ) -> dict[str, Any]:
        """Cycles that each buffer's ports need for the bytes that pass them."""
        ports = {tiles.inputs: input_reads, "weight_buffer": weight_reads}
        ports[tiles.sums] = ports.pop(tiles.sums, 0) + sum_writes + sum_reads
        accelerator = self.accelerator
        return {name: port_cycles(each, getattr(accelerator, name)) for name, each in ports.items()}

    def _actions(
        self, tiles: Tiles, input_reads: Any, weight_reads: Any, sum_writes: Any, sum_reads: Any
    ) -> Counts:
        # The buffer that outputs leave from reads each of them once more, to store it; a sum that
        # the reconstructor takes is read there.
        stays = tiles.sums == "output_buffer" and not self.left.handed_out
        products = tiles.shape[0] // tiles.m.shape[0]  # those that the sizes stand for
        m = tiles.m if self.left.decisions is None else tiles.m * (tiles.n > 0)
        registers = register_bytes(self.accelerator, m, tiles.n, tiles.k)
        counts = {
            ("array", "mac"): self.left.macs,
            ("array", "register_byte"): products * registers,
            (tiles.inputs, "read_byte"): tiles.total(input_reads),
            ("weight_buffer", "read_byte"): tiles.total(weight_reads),
            (tiles.sums, "write_byte"): tiles.total(sum_writes),
        }
        read = tiles.sums, "read_byte"
        counts[read] = counts.get(read, 0) + tiles.total(sum_writes if stays else sum_reads)
        return counts
