"""Infinitely wide networks of any depth: dual activations, kernels, and the classifiers that they tend to."""
