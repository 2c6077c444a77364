"""Measured boards beside the model of them."""
