"""Cycles: the array, the pipeline of blocks, the cache, dense layers and layers under reuse."""
