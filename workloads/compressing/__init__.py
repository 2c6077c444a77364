"""Quantised and pruned models."""
