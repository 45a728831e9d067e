"""Objectives for each kind of target: alignment with predictions, loss, and metrics."""
