"""Quantised, pruned and clustered models."""
