"""What several processes would compute, without starting any."""

import torch
from torchmetrics.utilities import dim_zero_cat


def gathered(metric, other):
    """The value of a metric in a group of two processes: every state is gathered as torchmetrics does it."""

    def state(value):
        if isinstance(value, list):
            return dim_zero_cat(value) if value else torch.tensor([])
        return value

    theirs = iter([state(value) for value in other.metric_state.values()])
    metric.dist_sync_fn = lambda tensor, group=None: [tensor, next(theirs)]
    metric.distributed_available_fn = lambda: True
    return metric.compute()
