"""Chains of layers: which layers of a trained network to run, and in which order, for one input."""
