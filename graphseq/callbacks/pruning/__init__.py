"""Pruning during training, and its effects on the neurons."""
