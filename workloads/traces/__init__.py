"""Captured workloads: layers, tensors, files."""
