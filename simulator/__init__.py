"""Replays a captured workload on an accelerator: cycles, energy, area and accuracy of one decision.

from accelerators import preset
from simulator import LshReuse, simulate

report = simulate(trace, preset("reuse_16x16"), LshReuse(hashes=10, length=10))
print(report.verdict)
"""

from simulator.error_bound import ErrorAnalysis, ErrorBound, LayerBound, error_bound
from simulator.forward import ReusedForward
from simulator.functional import ReuseRun, calibrate, decide, decide_stream
from simulator.report.design import DesignReport, LayerReport
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
from simulator.simulate import simulate
from simulator.timing.layer import ActionCounts, LayerTiming
from simulator.timing.schedule import BLOCKS, LIMITS

__all__ = [
    "BLOCKS",
    "LIMITS",
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
    "LayerTiming",
    "LshReuse",
    "NoReuse",
    "PerLayer",
    "PerforationReuse",
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
    "load_memory",
    "save_memory",
    "simulate",
]
