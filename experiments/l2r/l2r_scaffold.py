"""Learned weights on molecules that shift in scaffold (arXiv 2312.12475)."""

from experiments.l2r.graphs import L2RByScaffold

effect = L2RByScaffold()
