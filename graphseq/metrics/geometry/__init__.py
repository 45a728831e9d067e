"""Geometry of representations: alignment with inputs and targets, dimension, parallelism, generalisation."""
