"""Clusters and what stands for them as operations of PyTorch, where a layer's tensors are."""
