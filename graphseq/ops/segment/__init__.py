"""Reductions and softmax over the segments of a sorted index."""
