"""Sees every product that a model computes, and gives it other results."""
