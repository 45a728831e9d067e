"""The update of memories from mail: node by node and gate by gate in double precision, and once with torch's cell.

``mail_gru`` is the definition; its gradients come from autograd through plain vector operations. ``with_cell`` is what
one would write with torch's own modules, and what a faster function has to be faster than.
"""

import torch


def dot(rows, vector):
    return torch.stack([(row * vector).sum() for row in rows])


def mail_gru(own, mail, dt, weight_ih, weight_hh, bias_ih, bias_hh, time_weight=None, time_bias=None):
    rows = []
    for node in range(own.shape[0]):
        encoded = dt[node] if time_weight is None else torch.cos(dt[node].double() * time_weight + time_bias)
        message, state = torch.cat([own[node], mail[node], encoded]), own[node]
        from_message, from_state = dot(weight_ih, message) + bias_ih, dot(weight_hh, state) + bias_hh
        (reset_in, update_in, new_in), (reset_by, update_by, new_by) = from_message.chunk(3), from_state.chunk(3)
        reset = 1 / (1 + torch.exp(-(reset_in + reset_by)))
        update = 1 / (1 + torch.exp(-(update_in + update_by)))
        new = torch.tanh(new_in + reset * new_by)
        rows.append((1 - update) * new + update * state)
    return torch.stack(rows)


def with_cell(own, mail, dt, weight_ih, weight_hh, bias_ih, bias_hh, time_weight, time_bias):
    encoded = torch.cos(dt.to(own.dtype).unsqueeze(-1) * time_weight + time_bias)
    message = torch.cat([own, mail, encoded], dim=-1)
    return torch.gru_cell(message, own, weight_ih, weight_hh, bias_ih, bias_hh)
