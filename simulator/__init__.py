"""Replays a captured workload on an accelerator: cycles, energy, area and accuracy of one decision.

from accelerators import preset
from simulator import LshReuse, simulate

report = simulate(trace, preset("reuse_16x16"), LshReuse(hashes=10, length=10))
print(report.verdict)
"""

from simulator.calibration import calibrate
from simulator.error_bound import ErrorAnalysis, ErrorBound, LayerBound, error_bound
from simulator.forward import ReusedForward
from simulator.functional import ReuseRun, decide, decide_stream
from simulator.painting import paint_clusters, remaining_work
from simulator.processor import (
    PROCESSOR_LIMITS,
    PROCESSOR_PRECISIONS,
    ProcessorConstants,
    ProcessorLayer,
    ProcessorReport,
    predict,
    predict_layer,
    processor_constants,
)
from simulator.processor_work import ReuseCounts
from simulator.report.design import DesignReport, LayerReport
from simulator.report.pixel_answers import PixelAnswers, pixel_answers
from simulator.report.simulation import SimulationReport
from simulator.reuse.decisions import ReuseDecisions
from simulator.reuse.hyper_cube import HyperCubeReuse
from simulator.reuse.kept import DecisionCache
from simulator.reuse.kmeans import KMeansReuse
from simulator.reuse.lsh import LshReuse
from simulator.reuse.memory import StreamMemory, load_memory, save_memory
from simulator.reuse.perforation import PerforationReuse
from simulator.reuse.policy import NoReuse, PerLayer, ReusePolicy
from simulator.reuse.stream import ClusterCache
from simulator.reuse.sub_vectors import SubVectorPolicy
from simulator.similarity import (
    LayerSimilarity,
    input_similarity,
    layer_similarity,
    similarity_by_distance,
)
from simulator.simulate import simulate
from simulator.timing.layer import ActionCounts, LayerTiming
from simulator.timing.schedule import BLOCKS, LIMITS

__all__ = [
    "BLOCKS",
    "LIMITS",
    "PROCESSOR_LIMITS",
    "PROCESSOR_PRECISIONS",
    "ActionCounts",
    "ClusterCache",
    "DecisionCache",
    "DesignReport",
    "ErrorAnalysis",
    "ErrorBound",
    "HyperCubeReuse",
    "KMeansReuse",
    "LayerBound",
    "LayerReport",
    "LayerSimilarity",
    "LayerTiming",
    "LshReuse",
    "NoReuse",
    "PerLayer",
    "PerforationReuse",
    "PixelAnswers",
    "ProcessorConstants",
    "ProcessorLayer",
    "ProcessorReport",
    "ReuseCounts",
    "ReuseDecisions",
    "ReusePolicy",
    "ReuseRun",
    "ReusedForward",
    "SimulationReport",
    "StreamMemory",
    "SubVectorPolicy",
    "calibrate",
    "decide",
    "decide_stream",
    "error_bound",
    "input_similarity",
    "layer_similarity",
    "load_memory",
    "paint_clusters",
    "pixel_answers",
    "predict",
    "predict_layer",
    "processor_constants",
    "remaining_work",
    "save_memory",
    "similarity_by_distance",
    "simulate",
]
