"""Speeds: contenders timed in turns on the same data, their outputs compared first."""
