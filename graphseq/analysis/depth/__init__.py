"""Chains of layers: which layers of a trained network to run, in which order, to answer one input."""
