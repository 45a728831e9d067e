"""Infinitely wide networks of any depth: dual activations, kernels, the classifiers that they become."""
