"""Metrics of outputs that are positions of the input: polygons, triangulations, tours."""
