"""Several processes: the weight of each one's loss, by which their mean is the mean over all samples."""

import torch
import torch.distributed
from torch import Tensor

__all__: list[str] = []


def share_of_processes(size: int | Tensor, world_size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the factor that turns DDP's mean over processes into the mean over all samples.

    Args:
        size: denominator of the mean loss of this process.
        world_size: number of processes.
        device: device of the sizes that the processes exchange.
        dtype: data type of the factor.
    """
    total = torch.as_tensor(size, dtype=torch.float64, device=device).clone()
    mine = total.clone()
    torch.distributed.all_reduce(total)
    # without known targets on any process all losses are 0, and the factor may be 0 as well
    return (mine * world_size / total.clamp(min=torch.finfo(total.dtype).tiny)).to(dtype)
