"""Figures of the CPU model; see SOURCES.md."""
