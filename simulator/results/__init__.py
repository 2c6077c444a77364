"""Numbers of a simulation, without HTML."""
