"""Residual blocks of sequence layers, and stacks of them."""
