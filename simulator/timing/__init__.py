"""Cycles: what decisions leave of a layer, its tiles, the stages that they pass, the engines."""
