"""Geometry of representations by definition: kernels with explicit centring, loops over pairings and splits."""

import itertools
import math

import numpy as np


def centred(kernel):
    n = len(kernel)
    h = np.eye(n) - np.ones((n, n)) / n
    return h @ kernel @ h


def alignment(k, m):
    k, m = centred(k), centred(m)
    return (k * m).sum() / math.sqrt((k * k).sum() * (m * m).sum())


def unbiased_product(k, m):
    """The sums over different indices that the estimate stands for."""
    n = len(k)
    pairs = triples = fours = 0.0
    for i, j in itertools.permutations(range(n), 2):
        pairs += k[i, j] * m[i, j]
        for q in range(n):
            if q not in (i, j):
                triples += k[i, j] * m[i, q]
                fours += sum(k[i, j] * m[q, r] for r in range(n) if r not in (i, j, q))
    return pairs / (n * (n - 1)) - 2 * triples / (n * (n - 1) * (n - 2)) + fours / (n * (n - 1) * (n - 2) * (n - 3))


def unbiased_alignment(k, m):
    return unbiased_product(k, m) / math.sqrt(unbiased_product(k, k) * unbiased_product(m, m))


def partial(r12, r13, r23):
    return (r12 - r13 * r23) / math.sqrt((1 - r13**2) * (1 - r23**2))


def participation(z):
    values = np.linalg.eigvalsh(centred(z @ z.T))
    return values.sum() ** 2 / (values**2).sum()


def parallelism(z, sides):
    positive = [row for row, side in zip(z, sides, strict=True) if side]
    negative = [row for row, side in zip(z, sides, strict=True) if not side]
    best = -math.inf
    for order in itertools.permutations(negative):
        steps = [p - q for p, q in zip(positive, order, strict=True)]
        cosines = [a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in itertools.combinations(steps, 2)]
        best = max(best, sum(cosines) / len(cosines))
    return best


def ridge(train, sides, test, penalty):
    """Signs of test rows, by least squares with an intercept that is not penalised."""
    centre, level = train.mean(0), sides.mean()
    x, y = train - centre, sides - level
    smaller = min(x.shape)
    weight = np.linalg.solve(x.T @ x + penalty * (x**2).sum() / smaller * np.eye(x.shape[1]), x.T @ y)
    scores = (test - centre) @ weight + level
    return np.where(np.abs(scores) < 1e-9 * np.abs(scores).max(initial=1.0), 0, np.sign(scores))


def generalization(z, sides, count, penalty):
    sides = np.where(np.asarray(sides) > 0, 1.0, -1.0)
    first, second = np.flatnonzero(sides > 0), np.flatnonzero(sides < 0)
    right = []
    for one in itertools.combinations(first, count):
        for other in itertools.combinations(second, count):
            train = [*one, *other]
            test = [k for k in range(len(z)) if k not in train]
            found = ridge(z[train], sides[train], z[test], penalty)
            right.append(np.mean(0.5 + 0.5 * found * sides[test]))
    return np.mean(right)


def decodability(z, penalty):
    count, right = len(z), []
    for chosen in itertools.combinations(range(count), count // 2):
        sides = np.array([1.0 if k in chosen else -1.0 for k in range(count)])
        right.append(np.mean(0.5 + 0.5 * ridge(z, sides, z, penalty) * sides))
    return np.mean(right)
