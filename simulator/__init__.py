"""Replays a captured workload on an accelerator: cycles, energy, area and accuracy of one decision.

from accelerators import preset
from simulator import LshReuse, simulate

report = simulate(trace, preset("reuse_16x16"), LshReuse(hashes=10, length=10))
print(report.verdict)
"""

import simulator.policies.not_evaluated
import simulator.policies.octave_convolutions
import simulator.policies.of_transformers  # noqa: F401  entries of the catalogue
from simulator.analysis.effectual_bits import effectual_bits
from simulator.analysis.error_bound import ErrorAnalysis, ErrorBound, LayerBound, error_bound
from simulator.analysis.memoisation import Memoisation, RememberedProducts, multiply_memoisation
from simulator.analysis.painting import paint_clusters, remaining_work
from simulator.analysis.pixel_answers import PixelAnswers, pixel_answers
from simulator.analysis.position_choice import (
    GreedyStep,
    greedy_perforation,
    perforation_impacts,
    virtual_pooling_layers,
)
from simulator.analysis.similarity import (
    LayerSimilarity,
    input_similarity,
    layer_similarity,
    similarity_by_distance,
)
from simulator.boards.processor import (
    PROCESSOR_LIMITS,
    PROCESSOR_PRECISIONS,
    ProcessorConstants,
    ProcessorLayer,
    ProcessorReport,
    predict,
    predict_layer,
    processor_constants,
)
from simulator.boards.work import ReuseCounts
from simulator.decisions.box import Decisions
from simulator.decisions.columns import ColumnDecisions
from simulator.decisions.depth import DepthDecisions
from simulator.decisions.evidence import (
    ArraySignatures,
    Changes,
    Differences,
    Evidence,
    Leaders,
    Neighbours,
    PartialSums,
    Ranges,
    Signatures,
    Static,
)
from simulator.decisions.frame_evidence import FrameEvidence
from simulator.decisions.frames import FrameDecisions
from simulator.decisions.incremental import IncrementalRows, incremental
from simulator.decisions.looks import Looks
from simulator.decisions.motion import Motion
from simulator.decisions.rows import FilledRows, KeptRows, SharedRows
from simulator.decisions.table import ClusterCache
from simulator.decisions.tokens import TokenPlan
from simulator.decisions.weights import WeightPlan
from simulator.policies.adascale import (
    ScaleRegressor,
    least_loss,
    looks_at_maps,
    map_means,
    sizes_by_texture,
)
from simulator.policies.answered_regions import AnsweredRegions
from simulator.policies.block_matching import BlockMatching, luma
from simulator.policies.cached_answers import CachedAnswers
from simulator.policies.changed_positions import ChangedPositions
from simulator.policies.clockwork import Clockwork
from simulator.policies.deep_feature_flow import DeepFeatureFlow
from simulator.policies.differences import DifferencePolicy
from simulator.policies.dropped_columns import DroppedColumns
from simulator.policies.dropped_tokens import DroppedTokens
from simulator.policies.early import relu_after, why_dense
from simulator.policies.eva2 import Eva2
from simulator.policies.every_nth_frame import EveryNthFrame
from simulator.policies.feature_boosting import ChannelMeans, FeatureBoosting
from simulator.policies.fine_changes import FineChanges
from simulator.policies.hyper_cube import HyperCubeReuse
from simulator.policies.k_means import KMeansReuse
from simulator.policies.leaders import LeaderReuse
from simulator.policies.lsh import LshReuse
from simulator.policies.neighbours import NeighbourReuse
from simulator.policies.noscope import NoScope
from simulator.policies.perforation import PerforationMask, PerforationReuse
from simulator.policies.policy import NoReuse, Operands, PerLayer, ReusePolicy, affine_of
from simulator.policies.position_differences import PositionDifferences
from simulator.policies.predicted_part import PredictedPart
from simulator.policies.quantised_differences import QuantisedDifferences
from simulator.policies.range_table import RangeTableReuse
from simulator.policies.region_of_interest import RegionOfInterest
from simulator.policies.result_cache import ResultCacheReuse
from simulator.policies.similar_filters import SimilarFilters
from simulator.policies.skipped_outputs import SkippedOutputs
from simulator.policies.snapea import SnapeaReuse
from simulator.policies.spatial_differences import SpatialDifferences
from simulator.policies.sub_flow import SubFlow
from simulator.policies.sub_vectors import SubVectorPolicy
from simulator.policies.sum_merge import SumMerge
from simulator.policies.technique import Technique, techniques
from simulator.policies.together import Together
from simulator.policies.virtual_pooling import VirtualPooling
from simulator.policies.weight_repetition import WeightRepetition
from simulator.policies.zap import ZapReuse
from simulator.results.design import DesignReport, LayerReport
from simulator.running.calibration import calibrate
from simulator.running.decide import decide, decide_stream
from simulator.running.forward import ReusedForward
from simulator.running.importance import importance_by_gradient
from simulator.running.remembered import DecisionCache
from simulator.running.reuse_run import ReuseRun
from simulator.running.stream_memory import StreamMemory, load_memory, save_memory
from simulator.running.sums import bits_of_sums
from simulator.running.tuning import Tuned, tuned_changes
from simulator.running.variants import VariantsReport, simulate_variants
from simulator.simulate import simulate
from simulator.simulation_report import SimulationReport
from simulator.timing.fitting import fitted_design
from simulator.timing.layer import ActionCounts, LayerTiming
from simulator.timing.remembering import remembered_bytes
from simulator.timing.schedule import BLOCKS, LIMITS

__all__ = [
    "BLOCKS",
    "LIMITS",
    "PROCESSOR_LIMITS",
    "PROCESSOR_PRECISIONS",
    "ActionCounts",
    "AnsweredRegions",
    "ArraySignatures",
    "BlockMatching",
    "CachedAnswers",
    "ChangedPositions",
    "Changes",
    "ChannelMeans",
    "Clockwork",
    "ClusterCache",
    "ColumnDecisions",
    "DecisionCache",
    "Decisions",
    "DeepFeatureFlow",
    "DepthDecisions",
    "DesignReport",
    "DifferencePolicy",
    "Differences",
    "DroppedColumns",
    "DroppedTokens",
    "ErrorAnalysis",
    "ErrorBound",
    "Eva2",
    "EveryNthFrame",
    "Evidence",
    "FeatureBoosting",
    "FilledRows",
    "FineChanges",
    "FrameDecisions",
    "FrameEvidence",
    "GreedyStep",
    "HyperCubeReuse",
    "IncrementalRows",
    "KMeansReuse",
    "KeptRows",
    "LayerBound",
    "LayerReport",
    "LayerSimilarity",
    "LayerTiming",
    "LeaderReuse",
    "Leaders",
    "Looks",
    "LshReuse",
    "Memoisation",
    "Motion",
    "NeighbourReuse",
    "Neighbours",
    "NoReuse",
    "NoScope",
    "Operands",
    "PartialSums",
    "PerLayer",
    "PerforationMask",
    "PerforationReuse",
    "PixelAnswers",
    "PositionDifferences",
    "PredictedPart",
    "ProcessorConstants",
    "ProcessorLayer",
    "ProcessorReport",
    "QuantisedDifferences",
    "RangeTableReuse",
    "Ranges",
    "RegionOfInterest",
    "RememberedProducts",
    "ResultCacheReuse",
    "ReuseCounts",
    "ReusePolicy",
    "ReuseRun",
    "ReusedForward",
    "ScaleRegressor",
    "SharedRows",
    "Signatures",
    "SimilarFilters",
    "SimulationReport",
    "SkippedOutputs",
    "SnapeaReuse",
    "SpatialDifferences",
    "Static",
    "StreamMemory",
    "SubFlow",
    "SubVectorPolicy",
    "SumMerge",
    "Technique",
    "Together",
    "TokenPlan",
    "Tuned",
    "VariantsReport",
    "VirtualPooling",
    "WeightPlan",
    "WeightRepetition",
    "ZapReuse",
    "affine_of",
    "bits_of_sums",
    "calibrate",
    "decide",
    "decide_stream",
    "effectual_bits",
    "error_bound",
    "fitted_design",
    "greedy_perforation",
    "importance_by_gradient",
    "incremental",
    "input_similarity",
    "layer_similarity",
    "least_loss",
    "load_memory",
    "looks_at_maps",
    "luma",
    "map_means",
    "multiply_memoisation",
    "paint_clusters",
    "perforation_impacts",
    "pixel_answers",
    "predict",
    "predict_layer",
    "processor_constants",
    "relu_after",
    "remaining_work",
    "remembered_bytes",
    "save_memory",
    "similarity_by_distance",
    "simulate",
    "simulate_variants",
    "sizes_by_texture",
    "techniques",
    "tuned_changes",
    "virtual_pooling_layers",
    "why_dense",
]
