"""Labelled sequences of different lengths: stores, readers and data modules."""
