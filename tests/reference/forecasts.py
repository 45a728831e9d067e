"""Forecasts by loops over steps, in numpy; a window is (T,) of one variable unless said otherwise."""

import math

import numpy as np

Array = np.ndarray


def drift(x: Array, horizon: int) -> Array:
    slope = (x[-1] - x[0]) / (len(x) - 1)
    return np.array([x[-1] + h * slope for h in range(1, horizon + 1)])


def seasonal(x: Array, horizon: int, season: int) -> Array:
    found = []
    for h in range(1, horizon + 1):
        place = len(x) - 1 + h
        while place > len(x) - 1:
            place -= season
        found.append(x[place])
    return np.array(found)


def holt(x: Array, horizon: int, alpha: float, beta: float, phi: float) -> Array:
    level, trend = x[0], x[1] - x[0]
    for value in x[1:]:
        before = level
        level = alpha * value + (1 - alpha) * (level + phi * trend)
        trend = beta * (level - before) + (1 - beta) * phi * trend
    return np.array([level + sum(phi**k for k in range(1, h + 1)) * trend for h in range(1, horizon + 1)])


def moving_average(x: Array, size: int) -> Array:
    half = size // 2
    return np.array(
        [np.mean([x[min(max(t + k, 0), len(x) - 1)] for k in range(-half, half + 1)]) for t in range(len(x))]
    )


def regression(pasts: Array, futures: Array, ridge: float) -> tuple[Array, Array]:
    """Weights (width, Z) and intercept (Z,) of rows (n, width) to (n, Z), by the augmented least-squares problem."""
    count, width = pasts.shape
    top = np.concatenate([pasts, np.ones((count, 1))], 1)
    bottom = np.concatenate([np.sqrt(ridge * count) * np.eye(width), np.zeros((width, 1))], 1)
    design = np.concatenate([top, bottom])
    targets = np.concatenate([futures, np.zeros((width, futures.shape[1]))])
    solution = np.linalg.lstsq(design, targets, rcond=None)[0]
    return solution[:-1], solution[-1]


def causal_convolution(x: Array, weight: Array, bias: Array, dilation: int) -> Array:
    """x (C, T), weight (D, C, k) -> (D, T); values before the window are 0."""
    size = weight.shape[2]
    out = np.zeros((len(weight), x.shape[1]))
    for t in range(x.shape[1]):
        for tap in range(size):
            place = t - (size - 1 - tap) * dilation
            if place >= 0:
                out[:, t] += weight[:, :, tap] @ x[:, place]
        out[:, t] += bias
    return out


def mean_neighbours(x: Array, edges: Array, weights: Array, own: Array, other: Array, bias: Array) -> Array:
    """GraphConv with mean: x (S, D), edges (2, E), weights (E,)."""
    out = np.zeros((len(x), len(own)))
    for node in range(len(x)):
        incoming = [weights[e] * x[edges[0, e]] for e in range(edges.shape[1]) if edges[1, e] == node]
        mean = sum(incoming) / len(incoming) if incoming else np.zeros(x.shape[1])
        out[node] = other @ mean + bias + own @ x[node]
    return out


def gru(x: Array, p: dict[str, Array]) -> Array:
    """Last output of a GRU over (L, F), gates in torch's order."""
    w, u, b, c = p["weight_ih_l0"], p["weight_hh_l0"], p["bias_ih_l0"], p["bias_hh_l0"]
    h = np.zeros(u.shape[1])
    for row in x:
        r_i, z_i, n_i = np.split(w @ row + b, 3)
        r_h, z_h, n_h = np.split(u @ h + c, 3)
        r, z = 1 / (1 + np.exp(-(r_i + r_h))), 1 / (1 + np.exp(-(z_i + z_h)))
        h = (1 - z) * np.tanh(n_i + r * n_h) + z * h
    return h


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    """x (D,)."""
    mean = x.sum() / len(x)
    variance = ((x - mean) ** 2).sum() / len(x)
    return (x - mean) / math.sqrt(variance + 1e-5) * weight + bias


def attention(rows: Array, p: dict[str, Array], heads: int) -> Array:
    """Attention between rows (P, D), one head and one row after the other; names of parameters are torch's."""
    count, dim = rows.shape
    q, k, v = np.split(rows @ p["self_attn.in_proj_weight"].T + p["self_attn.in_proj_bias"], 3, axis=1)
    joined, width = np.zeros_like(rows), dim // heads
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for row in range(count):
            scores = np.array([q[row, part] @ k[other, part] / math.sqrt(width) for other in range(count)])
            shares = np.exp(scores - scores.max())
            joined[row, part] = sum(shares[other] / shares.sum() * v[other, part] for other in range(count))
    return joined @ p["self_attn.out_proj.weight"].T + p["self_attn.out_proj.bias"]


def patch_transformer(x: Array, p: dict[str, Array], patch: int, stride: int, heads: int, layers: int) -> Array:
    """Forecast of one variable x (T,) by PatchTST with layer norm first; names of parameters are torch's."""
    mean = x.sum() / len(x)
    scale = max(math.sqrt(((x - mean) ** 2).sum() / len(x)), 1e-5)
    scaled = (x - mean) / scale
    padded = np.concatenate([scaled, np.repeat(scaled[-1], stride)])
    starts = range(0, len(padded) - patch + 1, stride)
    rows = np.stack([p["embedding.weight"] @ padded[start : start + patch] + p["embedding.bias"] for start in starts])
    rows = rows + p["position"]
    for number in range(layers):
        head = f"encoder.layers.{number}."
        own = {name.removeprefix(head): value for name, value in p.items() if name.startswith(head)}
        rows = rows + attention(
            np.stack([layer_norm(row, own["norm1.weight"], own["norm1.bias"]) for row in rows]), own, heads
        )
        normed = np.stack([layer_norm(row, own["norm2.weight"], own["norm2.bias"]) for row in rows])
        inner = normed @ own["linear1.weight"].T + own["linear1.bias"]
        inner = np.vectorize(lambda value: value * 0.5 * (1 + math.erf(value / math.sqrt(2))))(inner)
        rows = rows + inner @ own["linear2.weight"].T + own["linear2.bias"]
    return (p["head.weight"] @ rows.flatten() + p["head.bias"]) * scale + mean
