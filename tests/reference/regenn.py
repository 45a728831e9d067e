"""ReGENN by loops over series, steps and variables, in numpy."""

import numpy as np

Array = np.ndarray


def co_occurrence(x: Array, present: Array) -> Array:
    """x and present (S, T, V)."""
    series, steps, count = x.shape
    graph = np.zeros((count, count))
    for s in range(series):
        for t in range(steps):
            for b in range(count):
                for c in range(count):
                    if present[s, t, c]:
                        graph[b, c] += x[s, t, b]
    alone = graph.copy()
    for b in range(count):
        alone[b, b] = max(0.0, graph[b, b] - sum(graph[b, c] for c in range(count) if c != b))
    return alone


def evolution(x: Array, adjacency: Array, p: dict[str, Array]) -> tuple[Array, Array]:
    """Graph soft evolution of (S, T, V), without activation; p holds the parameters by name."""
    count = x.shape[2]
    hidden = np.zeros((count, count))
    for b in range(count):
        for c in range(count):
            hidden[b, c] = sum(adjacency[b, k] * p["graph_weight"][k, c] for k in range(count)) + p["graph_bias"][b, 0]
    mixing = np.zeros((count, count))
    for b in range(count):
        for c in range(count):
            norm = max(np.sqrt((hidden[b] ** 2).sum()), 1e-12) * max(np.sqrt((hidden[c] ** 2).sum()), 1e-12)
            cosine = sum(hidden[b, k] * hidden[c, k] for k in range(count)) / norm
            mixing[b, c] = cosine * p["cosine_weight"][b, c] + p["cosine_bias"][b, c]
    y = np.zeros_like(x)
    for s in range(x.shape[0]):
        for t in range(x.shape[1]):
            for a in range(count):
                y[s, t, a] = sum(mixing[a, b] * x[s, t, b] for b in range(count))
    return y, hidden


def time_map(y: Array, weight: Array, bias: Array) -> Array:
    """Map the steps of (S, T, V); weight (T', T)."""
    out = np.zeros((y.shape[0], weight.shape[0], y.shape[2]))
    for s in range(y.shape[0]):
        for d in range(weight.shape[0]):
            for c in range(y.shape[2]):
                out[s, d, c] = sum(weight[d, b] * y[s, b, c] for b in range(y.shape[1])) + bias[d]
    return out


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def lstm(x: Array, p: dict[str, Array], reverse: bool = False) -> Array:
    """Outputs of an LSTM over (L, F), gates in torch's order."""
    suffix = "_reverse" if reverse else ""
    w, u = p["weight_ih_l0" + suffix], p["weight_hh_l0" + suffix]
    bias = p["bias_ih_l0" + suffix] + p["bias_hh_l0" + suffix]
    size = u.shape[1]
    h, c = np.zeros(size), np.zeros(size)
    out = np.zeros((len(x), size))
    for t in range(len(x))[::-1] if reverse else range(len(x)):
        i, f, g, o = np.split(w @ x[t] + u @ h + bias, 4)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        h = _sigmoid(o) * np.tanh(c)
        out[t] = h
    return out


def _layer_norm(x: Array, p: dict[str, Array], name: str) -> Array:
    deviation = np.sqrt(((x - x.mean()) ** 2).mean() + 1e-5)
    return (x - x.mean()) / deviation * p[name + ".weight"] + p[name + ".bias"]


def encoder(rows: Array, p: dict[str, Array]) -> Array:
    """One transformer encoder layer with one head, norm after the sum, over rows (L, D)."""
    size = rows.shape[1]
    project = rows @ p["self_attn.in_proj_weight"].T + p["self_attn.in_proj_bias"]
    q, k, v = project[:, :size], project[:, size : 2 * size], project[:, 2 * size :]
    attended = np.zeros_like(rows)
    for n in range(len(rows)):
        scores = np.array([q[n] @ k[m] / np.sqrt(size) for m in range(len(rows))])
        weights = np.exp(scores - scores.max())
        attended[n] = (weights / weights.sum()) @ v
    attended = attended @ p["self_attn.out_proj.weight"].T + p["self_attn.out_proj.bias"]
    first = np.stack([_layer_norm(row, p, "norm1") for row in rows + attended])
    hidden = np.maximum(first @ p["linear1.weight"].T + p["linear1.bias"], 0)
    second = first + hidden @ p["linear2.weight"].T + p["linear2.bias"]
    return np.stack([_layer_norm(row, p, "norm2") for row in second])


def forward(x: Array, state: dict[str, Array], attention: str | None, bidirectional: bool) -> Array:
    """ReGENN on one window (S, T, V); state holds the parameters and buffers by name."""

    def part(prefix: str) -> dict[str, Array]:
        return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}

    source, target = part("source."), part("target.")
    mixed, hidden = evolution(x, source["adjacency"], source)
    evolved = time_map(np.maximum(mixed, 0), source["time_map.weight"], source["time_map.bias"])
    steps = evolved.transpose(0, 2, 1)  # (S, V, T)
    if attention == "series":
        steps = np.stack([encoder(steps[:, v], part("encoder.")) for v in range(steps.shape[1])], 1)
    elif attention == "variables":
        steps = np.stack([encoder(steps[s], part("encoder.")) for s in range(len(steps))])
    outputs = []
    for rows in steps:  # one series (V, T)
        gate, sequencer = part("gate."), part("sequencer.")
        gated = lstm(rows, gate) + (lstm(rows, gate, reverse=True) if bidirectional else 0)  # (V, Z)
        gated = gated.T  # (Z, V)
        ordered = lstm(gated, sequencer) + (lstm(gated, sequencer, reverse=True) if bidirectional else 0)
        outputs.append(ordered + gated)
    y, _ = evolution(np.stack(outputs), hidden, target)
    return y + time_map(x, state["autoregression.weight"], state["autoregression.bias"])
