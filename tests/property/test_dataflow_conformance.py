"""Every dataflow that ships keeps what a user's own must keep."""

from simulator.testing.dataflows import DataflowSuite
from simulator.timing.dataflows import InputStationary, OutputStationary, WeightStationary


class TestWeightStationary(DataflowSuite):
    dataflow = WeightStationary()


class TestOutputStationary(DataflowSuite):
    dataflow = OutputStationary()


class TestInputStationary(DataflowSuite):
    dataflow = InputStationary()
