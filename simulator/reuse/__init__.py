"""Reuse policies and their decisions."""
