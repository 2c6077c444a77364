"""What had to be looked at to make a decision: it names the units that pay for looking."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from accelerators import PROJECTIONS
from accelerators.rules import integer, quoted, refuse, show
from simulator.decisions.table import ClusterCache

# One signed word.
SIGNATURE_BITS = 62


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was looked at; a kind of it is a subclass.

    Attributes:
        units: fields of an `Accelerator` that do the looking. A design without one of them can't
            run what was decided; neither can any design, where no accelerator has such a field.
        words: what it is, for messages and pages.
        replaces: units that what is decided on rows would ask for, in whose place those that look
            tell the array which rows are computed.
    """

    units: ClassVar[tuple[str, ...]]
    words: ClassVar[str]
    replaces: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True, kw_only=True)
class Static(Evidence):
    """Nothing was looked at: what is decided holds for every input."""

    units: ClassVar[tuple[str, ...]] = ()
    words: ClassVar[str] = "nothing that depends on the input"


@dataclass(frozen=True, kw_only=True)
class Signatures(Evidence):
    """Hashes of sub-vectors: equal ones form a cluster, which is found in a table.

    Attributes:
        hashes: H, bits of a signature.
        projection: what the front-end multiplies by, one of `PROJECTIONS`.
        values: `(total clusters,)` uint64, in the order (GEMM, sub-matrix, group, id).
        cache: the table that a stream's clusters are kept in; `None` without a stream.
    """

    units: ClassVar[tuple[str, ...]] = ("front_end", "cache")
    words: ClassVar[str] = "signatures of sub-vectors"

    hashes: int
    projection: str
    values: np.ndarray = field(repr=False)
    cache: ClusterCache | None = None

    def check(self, where: str, clusters: np.ndarray) -> None:
        """What the hardware would be priced by must be what was decided.

        Args:
            where: names the decisions in messages.
            clusters: `(count, s, groups)` int, number of clusters of each.

        Raises:
            ConfigError: signatures are claimed, but do not fit into H bits or do not tell clusters
                of a sub-matrix and group apart.
        """
        broken = integer(1, SIGNATURE_BITS)["rule"](self.hashes, f"{where} hashes")
        if self.projection not in PROJECTIONS:
            broken.append(
                f"{where} projection must be {quoted(PROJECTIONS)}, got {show(self.projection)}; "
                "name what the front-end multiplies by"
            )
        if not broken and int(self.values.max(initial=0)) >> self.hashes:
            broken.append(
                f"{where} must have signatures of hashes={self.hashes} bits, got "
                f"{int(self.values.max())}; claim as many in evidence() as are computed"
            )
        # In a stream's finite cache a cluster that was evicted comes again under its signature.
        if not broken and self.cache is None:
            places = np.repeat(np.arange(clusters.size), clusters.ravel())
            order = np.lexsort((self.values, places))
            same = np.diff(self.values[order]) == 0
            if np.any(same & (np.diff(places[order]) == 0)):
                broken.append(
                    f"{where} must have a signature for each cluster, as hashing units with "
                    f"hashes={self.hashes} tell clusters apart by it, got one for several; give "
                    "other evidence where clusters are not those of equal signatures"
                )
        refuse(broken)


@dataclass(frozen=True, kw_only=True)
class Neighbours(Evidence):
    """Comparisons of vectors with earlier neighbours, the most similar of which each points to.

    Clusters are what points to the same vector in the end, which is the first of them: ids are
    numbered, within each (view, tile), in the order in which these first vectors appear.

    Attributes:
        comparisons: `(count, v, tiles)` int64, pairs of vectors that are compared.
        reach: vectors of its tile, at most, that a vector is behind one that it is compared with.
    """

    units: ClassVar[tuple[str, ...]] = ("neighbour_matcher",)
    words: ClassVar[str] = "neighbouring vectors"

    comparisons: np.ndarray = field(repr=False)
    reach: int

    def check(self, where: str, clusters: np.ndarray) -> None:
        """What the hardware would be priced by must be of the layer.

        Args:
            where: names the decisions in messages.
            clusters: `(count, v, tiles)` int, number of clusters of each.

        Raises:
            ConfigError: comparisons are not counted for each view and tile.
        """
        broken = integer(1, 2**31 - 1)["rule"](self.reach, f"{where} reach")
        if self.comparisons.shape != clusters.shape:
            broken.append(
                f"{where} must have comparisons of shape (count, v, tiles) = {clusters.shape}, got "
                f"{self.comparisons.shape}; count them for each view and tile"
            )
        refuse(broken)


@dataclass(frozen=True, kw_only=True)
class Leaders(Evidence):
    """Distances of each vector to the latest leaders of its tile before it.

    Clusters are numbered, within each (view, tile), in the order in which their leaders appear.

    Attributes:
        entries: leaders held at a time.
    """

    units: ClassVar[tuple[str, ...]] = ("leader_table",)
    words: ClassVar[str] = "distances to leaders"

    entries: int

    def check(self, where: str, clusters: np.ndarray) -> None:
        """A table has a place at least.

        Args:
            where: names the decisions in messages.
            clusters: `(count, v, tiles)` int, number of clusters of each.

        Raises:
            ConfigError: there is none.
        """
        refuse(integer(1, 2**31 - 1)["rule"](self.entries, f"{where} entries"))


@dataclass(frozen=True, kw_only=True)
class ArraySignatures(Evidence):
    """Signatures that the array makes, looked up in a table that replaces nothing.

    Attributes:
        hashes: H, bits of a signature.
        entries: signatures that the table holds.
        ways: entries of one of its sets.
        kept: `(total clusters,)` bool, clusters that took an entry; the others, of one vector each,
            found their set full.
    """

    units: ClassVar[tuple[str, ...]] = ("result_cache",)
    words: ClassVar[str] = "signatures of sub-vectors that the array makes"

    hashes: int
    entries: int
    ways: int
    kept: np.ndarray = field(repr=False)

    def check(self, where: str, clusters: np.ndarray) -> None:
        """What the hardware would be priced by must be what was decided.

        Args:
            where: names the decisions in messages.
            clusters: `(count, v, tiles)` int, number of clusters of each.

        Raises:
            ConfigError: it is not told of each cluster whether it was kept.
        """
        broken = integer(1, SIGNATURE_BITS)["rule"](self.hashes, f"{where} hashes")
        total = int(clusters.sum(dtype=np.int64))
        if self.kept.shape != (total,) or self.kept.dtype != bool:
            broken.append(
                f"{where} must tell of each of its {total} clusters whether it was kept, got "
                f"{self.kept.dtype} of shape {self.kept.shape}; mark those that took an entry"
            )
        refuse(broken)


@dataclass(frozen=True, kw_only=True)
class Changes(Evidence):
    """Differences of a layer's input to a reference that is kept from frame to frame.

    Attributes:
        compared: values of the input that are compared with the reference, in all frames of the
            batch; 0 where another layer's list of changed positions is passed on.
        updated: values of the reference that are written.
        line_bits: marks of changed places that must be at hand for the kernel to reach over them.
        kept_elements: values that are kept between frames: the reference, and the layer's results.
        copies: whether the reference is the input of the frame before as it lies in the DRAM, where
            nothing is written for it; on the chip it is written whole.
    """

    units: ClassVar[tuple[str, ...]] = ("change_detector",)
    words: ClassVar[str] = "changes since the frame before"
    replaces: ClassVar[tuple[str, ...]] = ("address_list",)

    compared: int
    updated: int
    line_bits: int
    kept_elements: int
    copies: bool = False


@dataclass(frozen=True, kw_only=True)
class LastAnswer(Changes):
    """The answer of the frame before, which marks positions; the detector lists them.

    Not modelled: what grows the marks from layer to layer, and the loading of them.
    """

    words: ClassVar[str] = "the answer of the frame before"


@dataclass(frozen=True, kw_only=True)
class Ranges(Evidence):
    """Ranges that the elements of sub-vectors lie in; equal ones of all elements form a cluster.

    Attributes:
        key_bits: bits that tell the ranges of a sub-vector's elements.
        cache: the table in which a stream's clusters are kept.
    """

    units: ClassVar[tuple[str, ...]] = ("range_table",)
    words: ClassVar[str] = "ranges of all elements"

    key_bits: int
    cache: ClusterCache


@dataclass(frozen=True, kw_only=True)
class Differences(Evidence):
    """Differences of a layer's inputs, as they are stored, to earlier ones.

    Attributes:
        remembered_bits: of each input, kept for the frame after; `None`: as many as an operand has;
            0: none, as the earlier ones are inputs of the same frame.
        quantises: whether inputs are brought to levels before they are compared.
        stored_bits: all bits of the inputs of one product as they lie in the DRAM, where they are
            packed by what their differences need; `None` where they lie there as operands.
    """

    units: ClassVar[tuple[str, ...]] = ("difference_unit",)
    words: ClassVar[str] = "differences to earlier inputs"

    remembered_bits: int | None = None
    quantises: bool = False
    stored_bits: int | None = None


@dataclass(frozen=True, kw_only=True)
class Buckets(Evidence):
    """Numbers of buckets along projections, as Euclidean LSH makes them, in place of bits."""

    units: ClassVar[tuple[str, ...]] = ("bucket_front_end",)
    words: ClassVar[str] = "buckets of Euclidean LSH"


@dataclass(frozen=True, kw_only=True)
class Bins(Evidence):
    """The bin of every element of a sub-vector."""

    units: ClassVar[tuple[str, ...]] = ("bin_front_end",)
    words: ClassVar[str] = "bins of all elements"


@dataclass(frozen=True, kw_only=True)
class Distances(Evidence):
    """Distances of every sub-vector to many centres, as k-means finds the nearest one."""

    units: ClassVar[tuple[str, ...]] = ("distance_unit",)
    words: ClassVar[str] = "distances to all centres"


@dataclass(frozen=True, kw_only=True)
class PartialSums(Evidence):
    """Sums so far, or of other numbers in their place, that tell which results will be below 0.

    Attributes:
        checks: comparisons of such a sum with a threshold, or of its sign.
        products: multiplications of a network that predicts, which are none of the layer's.
        additions: of signed numbers in place of products, likewise.
    """

    units: ClassVar[tuple[str, ...]] = ("sum_predictor",)
    words: ClassVar[str] = "the sign of partial sums"

    checks: int
    products: int = 0
    additions: int = 0
