"""Learned weights on published graphs that shift in size (arXiv 2312.12475)."""

from experiments.l2r.graphs import L2RBySize

effect = L2RBySize()
