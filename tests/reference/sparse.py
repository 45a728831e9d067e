"""Sparse linear layers, correlations and rewiring, by loops in float64."""


def linear(x, weight, mask, bias):
    """Return the outputs of each sample, over the weights that exist."""
    return [
        [
            (bias[j] if bias is not None else 0.0)
            + sum(weight[j][i] * sample[i] for i in range(len(sample)) if mask[j][i])
            for j in range(len(weight))
        ]
        for sample in x
    ]


def densities(shapes, density):
    """Return ER densities: the largest factor for which all layers together have the density, by bisection."""
    sizes = [n * m for n, m in shapes]
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        found = [min(1.0, middle * (n + m) / (n * m)) for n, m in shapes]
        total = sum(share * size for share, size in zip(found, sizes, strict=True))
        low, high = (middle, high) if total < density * sum(sizes) else (low, middle)
    return found


def rewired(active, prune, grow, count):
    """Return which of a list of connections go and come: the lowest of one score, the highest of the other."""
    present = sorted((i for i in range(len(active)) if active[i]), key=lambda i: prune[i])[:count]
    absent = sorted((i for i in range(len(active)) if not active[i]), key=lambda i: -grow[i])[:count]
    return set(present), set(absent)
