"""Reuse by a range table: sub-vectors whose elements lie in the same ranges share a result."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numba import njit

from accelerators.rules import integer, optional, real, refuse, true_of, violations
from simulator.decisions.box import Decisions
from simulator.decisions.evidence import SIGNATURE_BITS, Ranges
from simulator.decisions.looks import Looks
from simulator.decisions.rows import SharedRows
from simulator.decisions.table import ClusterCache
from simulator.policies.activations import check_activations, check_rows, check_state
from simulator.policies.looking import looks_of
from simulator.policies.policy import LayerMemory, LayerState, ReadWeights, ReusePolicy
from simulator.policies.stream_tables import check_memory, empty_memory, serve_batch
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer

_TABLE = true_of(
    lambda value: isinstance(value, ClusterCache),
    "be a ClusterCache",
    "try ClusterCache(entries=1024, ways=4)",
)


@dataclass(frozen=True, kw_only=True)
class RangeTableReuse(ReusePolicy):
    """Sub-vectors with equal ranges in all elements take the result of the first of them.

    De Moura et al. (SAMOS 2019): tables map the inputs of a layer, grouped in ranges of near
    values, to outputs; what is in the table is looked up. Their networks run on a processor, with
    tables made beforehand; here the table of a layer fills as a stream comes, and keeps the results
    of its first inputs. A range has the same width everywhere in a layer. Two keys are told apart
    by a hash of 62 bits, where hardware compares them whole.

    Attributes:
        range_width: of a range, as a multiple of the standard deviation of the layer's calibration
            activations.
        length: L, at least 1, or `None` for whole rows, the paper's.
        range_bits: of one element's range, 1 to 16; the ranges at both ends hold all beyond.
        cache: the table, by default that of the ready design `ranging_16x16`.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide`, where L is longer than
            a row, activations are not finite or a layer's right-hand matrix changes, naming it.
    """

    range_width: float = field(metadata=real(1e-6, 100))
    length: int | None = field(default=None, metadata=optional(integer(1, 2**20)))
    range_bits: int = field(default=8, metadata=integer(1, 16))
    cache: ClusterCache = field(default=ClusterCache(entries=1024, ways=4), metadata=_TABLE)

    def __post_init__(self) -> None:
        """Check every rule."""
        refuse(violations(self, "RangeTableReuse"))

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """No row may be shorter than L, and kept results need weights that stay."""
        broken = [
            f"RangeTableReuse.length must not exceed the row length k={layer.gemm.k} of layer "
            f"{layer.name!r}, got {self.length}; use {layer.gemm.k} or less"
            for layer in layers
            if self.length is not None and self.length > layer.gemm.k
        ]
        changing = [layer.name for layer in layers if not layer.weights_are_parameters]
        if changing:
            broken.append(
                "RangeTableReuse must be of layers whose right-hand matrix stays, got "
                f"{', '.join(changing)}; give these layers a policy of their own or NoReuse()"
            )
        refuse(broken)

    def length_in(self, layer: Layer) -> int:
        """L in a layer."""
        return layer.gemm.k if self.length is None else self.length

    def looks(self, layer: Layer) -> Looks:
        """How the layer's vectors are looked at."""
        return looks_of(layer, self.length_in(layer), images=1, tile=None, once=False)

    def needs_calibration(self, layer: Layer) -> bool:
        """For the width of ranges."""
        return True

    def calibrate(
        self, layer: Layer, rows: np.ndarray, weights: ReadWeights | None = None
    ) -> LayerState:
        """`deviation` `(1,)` float32, the standard deviation of the activations."""
        check_activations(layer, rows)
        return {"deviation": np.array([rows.std(dtype=np.float64)], np.float32)}

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """As a stream's first batch."""
        return self.decide_next(layer, rows, state, None)[0]

    def decide_next(
        self, layer: Layer, rows: np.ndarray, state: LayerState, memory: LayerMemory | None
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """Look a batch's sub-vectors up among the keys kept in `memory`."""
        check_rows(layer, rows)
        self.check_layers([layer])
        check_activations(layer, rows)
        check_state(layer, state, {"deviation": (1,)})
        gemm, length = layer.gemm, self.length_in(layer)
        shape = gemm.count, gemm.k, length
        memory = empty_memory(*shape) if memory is None else memory
        check_memory(layer.name, memory, self.cache, shape, SIGNATURE_BITS)
        # A layer that is 0 all over has one range.
        width = np.float32(self.range_width) * (state["deviation"][0] or np.float32(1))
        most = 2 ** (self.range_bits - 1)

        def sign(
            columns: np.ndarray, own: np.ndarray, place: tuple[int, int], signatures: np.ndarray
        ) -> None:
            _keys_of_ranges(columns, own, width, most, signatures)

        served = serve_batch(
            rows, np.arange(gemm.k), self.cache, sign, memory,
            length=length, bits=SIGNATURE_BITS, first_only=True,
        )  # fmt: skip
        shared = SharedRows(
            gemm=gemm,
            looks=self.looks(layer),
            ids=served.ids,
            clusters=served.clusters,
            centroids=served.representatives,
            ages=served.ages,
            representative="first",
        )
        evidence = Ranges(key_bits=length * self.range_bits, cache=self.cache)
        made = Decisions(layer=layer.name, gemm=gemm, rows=shared, evidence=evidence)
        return made, served.memory

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "range_table", **asdict(self)}


@njit(cache=True, nogil=True)
def _keys_of_ranges(columns, own, width, most, keys):
    """Write a hash of 62 bits of the ranges of each sub-vector's elements.

    Args:
        columns: `(k, m)` float32.
        own: `(L or fewer,)` int64, the sub-vector's columns.
        width: of a range.
        most: ranges on either side of 0.
        keys: out, `(m,)` uint64.
    """
    keys[:] = np.uint64(0)
    for column in own:
        values = columns[column]
        for row in range(keys.size):
            place = min(max(np.floor(values[row] / width), -most), most - 1)
            # A linear congruential step (Knuth's MMIX), then the high bits folded onto the low.
            key = (keys[row] ^ np.uint64(np.int64(place) + most)) * np.uint64(6364136223846793005)
            key += np.uint64(1442695040888963407)
            keys[row] = key ^ (key >> np.uint64(29))
    for row in range(keys.size):
        keys[row] >>= np.uint64(2)


register(
    Technique(
        name="range_table",
        title="Range table",
        axis="rows",
        word="keep",
        grain="row",
        rule="A row whose elements all lie in the ranges of an earlier one takes the result that "
        "a table keeps of that; another is computed and kept. The paper's network and its "
        "tables made beforehand are not reproduced.",
        evidence="the range of every element, looked up whole",
        source="de Moura et al., SAMOS 2019",
        policy=RangeTableReuse,
        units=("range_table", "centroid_buffer", "reconstructor"),
        published=("range table memoisation",),
        choices={
            "range_width": (0.1, 0.25, 0.5, 1.0, 2.0),
            "length": (8, 16, 32),
        },
        start={"range_width": 0.5, "length": 16},
        own=("range_width",),
    )
)

register(
    Technique(
        name="similar_features",
        title="Similar feature skipping",
        axis="rows",
        word="share",
        grain="feature",
        rule="Within a tile of the input map features are clustered hierarchically; duplicated "
        "ones skip their multiplications. The chip and its face recognition network are not "
        "reproduced; of its operations clustering took 3.1 points (38.9 % skipped, 35.8 % net).",
        evidence="distances of features within a tile",
        source="Kim et al., IEEE TCAS-I 67(4), 2020",
        how="use leaders with scope='tile', which also clusters a tile's vectors by distance",
        units=("leader_table", "centroid_buffer", "reconstructor"),
        published=("similar feature skipping",),
    )
)
