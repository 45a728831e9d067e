"""Losses that are functions of tensors alone."""
