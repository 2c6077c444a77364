"""Suites to inherit: what every policy keeps, whoever wrote it. They need pytest.

from simulator.testing import PolicySuite

class TestMine(PolicySuite):
    policy = Mine(...)
"""

from simulator.testing.above_layers import FrameSuite, TokenSuite
from simulator.testing.policies import ColumnSuite, DepthSuite, PolicySuite, RowSuite

__all__ = ["ColumnSuite", "DepthSuite", "FrameSuite", "PolicySuite", "RowSuite", "TokenSuite"]
