"""Callbacks that record a training, and their figures."""
