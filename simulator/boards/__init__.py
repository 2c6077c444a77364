"""A model of processors: what layers take on a Raspberry Pi, dense and under reuse in software."""
