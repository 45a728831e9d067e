"""The gated update as the equation has it: the definition that the other forms are tested against."""

import torch
from torch import Tensor
from torch.nn import functional

from graphseq.ops.time_encoding.plain import encode_times

__all__: list[str] = []


def mail_gru(
    own: Tensor,
    mail: Tensor,
    dt: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    time_weight: Tensor | None,
    time_bias: Tensor | None,
) -> Tensor:
    """Return the new memories of :func:`graphseq.ops.mail_gru`."""
    encoded = dt if time_weight is None or time_bias is None else encode_times(dt, time_weight, time_bias)
    message = torch.cat([own, mail, encoded], dim=1)  # (U, 2 D + D_e + D_t)
    reset_m, update_m, candidate_m = functional.linear(message, weight_ih, bias_ih).chunk(3, dim=1)  # (U, D) each
    reset_s, update_s, candidate_s = functional.linear(own, weight_hh, bias_hh).chunk(3, dim=1)
    reset, update = (reset_m + reset_s).sigmoid(), (update_m + update_s).sigmoid()
    candidate = (candidate_m + reset * candidate_s).tanh()
    return (1 - update) * candidate + update * own
