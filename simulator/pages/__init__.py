"""Pages of a simulation, and its timeline."""
