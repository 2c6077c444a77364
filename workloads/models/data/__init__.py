"""Weights of this project's own; each has a model card beside it."""
