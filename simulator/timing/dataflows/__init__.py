"""The dataflows of the array, a file each; `register` adds one of a user's own."""

from simulator.timing.dataflows.dataflow import DATAFLOWS, Dataflow, register
from simulator.timing.dataflows.input_stationary import InputStationary
from simulator.timing.dataflows.output_stationary import OutputStationary
from simulator.timing.dataflows.weight_stationary import WeightStationary

__all__ = [
    "DATAFLOWS",
    "Dataflow",
    "InputStationary",
    "OutputStationary",
    "WeightStationary",
    "register",
]
