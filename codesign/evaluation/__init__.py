"""Evaluates one design on a workload."""
