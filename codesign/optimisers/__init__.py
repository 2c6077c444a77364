"""Ask-and-tell optimisers."""
