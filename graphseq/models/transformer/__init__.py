"""Transformers: networks built from one residual block and the layers that are handed to it."""
