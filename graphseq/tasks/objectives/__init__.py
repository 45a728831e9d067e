"""Kinds of targets: how each is aligned with predictions, what its loss is, which metrics are taken of it."""
