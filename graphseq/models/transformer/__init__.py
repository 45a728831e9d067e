"""Transformers, built from residual blocks and the layers that are given to them."""
