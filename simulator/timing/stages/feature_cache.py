"""The feature cache: sums of maps, and their products with features that were kept."""

from functools import partial

import numpy as np

from accelerators import ConfigError
from accelerators.units import FeatureCache
from simulator.decisions.frame_evidence import FEATURE_BYTES, Features
from simulator.timing.stages.above import AboveStage, register_above
from simulator.timing.stages.stage import Counts, Work
from simulator.timing.transfers import Transfer, byte_count, ceil_div


@register_above
class Summing(AboveStage):
    """The input of a layer is read from the DRAM, where it lies, and summed up map by map.

    Then the feature is multiplied by each that is kept, and by itself for its length.

    Not modelled: summing maps up as they leave the array.
    """

    units = ("feature_cache",)
    evidence: Features

    @property
    def unit(self) -> FeatureCache:
        """The unit."""
        unit = self.accelerator.feature_cache
        assert unit is not None
        return unit

    def check(self) -> None:
        """Features of all layers that are looked at fit into the memory together."""
        wanted = [each for each in self.frames.evidence if isinstance(each, Features)]
        needed = FEATURE_BYTES * sum(each.places * each.channels for each in wanted)
        if needed > self.unit.capacity_bytes:
            raise ConfigError(
                f"Accelerator.feature_cache.capacity_bytes must hold {needed} bytes of features "
                f"before {', '.join(each.layer for each in wanted)}, got "
                f"{self.unit.capacity_bytes}; use {needed} or more, or keep fewer"
            )

    def work(self) -> Work:
        """Lanes add up one map at a time; a short one leaves lanes idle."""
        evidence, unit = self.evidence, self.unit
        maps = evidence.channels * int(ceil_div(evidence.positions, unit.lanes))
        products = evidence.products * int(ceil_div(evidence.channels, unit.macs))
        cycles = evidence.sums * maps + products
        moved = byte_count(evidence.channels * evidence.positions, self.accelerator.operand_bits)
        return Work(
            limits={"feature_cache": cycles},
            busy_cycles={"feature_cache": cycles},
            latency_cycles=unit.latency_cycles * (evidence.sums > 0),
            transfers=(Transfer(kind="summed_maps", moved_bytes=evidence.sums * np.int64(moved)),),
            actions=partial(self._actions, int(evidence.sums.sum())),
        )

    def _actions(self, sums: int) -> Counts:
        evidence = self.evidence
        products = int(evidence.products.sum())
        others = products - sums  # one of a frame's products is with itself
        return {
            ("feature_cache", "add"): sums * evidence.channels * evidence.positions,
            ("feature_cache", "multiply"): products * evidence.channels,
            ("feature_cache", "test"): others,
            ("feature_cache", "read_word"): others * evidence.channels,
            ("feature_cache", "write_word"): int(evidence.kept.sum()) * evidence.channels,
        }
