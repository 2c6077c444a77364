"""Suites to inherit: what every policy keeps, whoever wrote it. They need pytest."""
