"""Policies, a technique a file: they decide, and compute nothing."""
