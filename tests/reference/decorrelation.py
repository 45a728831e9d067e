"""Weighted covariances of random features, and dissimilarities of correlations, in plain loops."""

import itertools
import math


def cross_covariance(features, weight, estimator):
    """features[n][j][q] -> covariance[i][j][p][q]."""
    samples, variables, each = len(features), len(features[0]), len(features[0][0])
    total = sum(weight)
    result = [[[[0.0] * each for _ in range(each)] for _ in range(variables)] for _ in range(variables)]
    for i, j in itertools.product(range(variables), repeat=2):
        for p, q in itertools.product(range(each), repeat=2):
            left = [features[n][i][p] for n in range(samples)]
            right = [features[n][j][q] for n in range(samples)]
            if estimator == "weighted":
                share = [w / total for w in weight]
                joint = sum(s * a * b for s, a, b in zip(share, left, right, strict=True))
                mean_left = sum(s * a for s, a in zip(share, left, strict=True))
                mean_right = sum(s * b for s, b in zip(share, right, strict=True))
                result[i][j][p][q] = joint - mean_left * mean_right
            else:
                left = [w * a for w, a in zip(weight, left, strict=True)]
                right = [w * b for w, b in zip(weight, right, strict=True)]
                mean_left, mean_right = sum(left) / samples, sum(right) / samples
                result[i][j][p][q] = sum(
                    (a - mean_left) * (b - mean_right) for a, b in zip(left, right, strict=True)
                ) / (samples - 1)
    return result


def loss(features, weight, cluster, estimator):
    """Sum over pairs of different clusters, and its mean over pairs and pairs of features."""
    covariance = cross_covariance(features, weight, estimator)
    pairs = [(i, j) for i, j in itertools.combinations(range(len(cluster)), 2) if cluster[i] != cluster[j]]
    each = len(features[0][0])
    total = sum(entry**2 for i, j in pairs for row in covariance[i][j] for entry in row)
    return total, total / max(len(pairs), 1) / each**2


def _correlation(left, right):
    count = len(left)
    mean_left, mean_right = sum(left) / count, sum(right) / count
    joint = sum((a - mean_left) * (b - mean_right) for a, b in zip(left, right, strict=True))
    square_left = sum((a - mean_left) ** 2 for a in left)
    square_right = sum((b - mean_right) ** 2 for b in right)
    if square_left == 0 or square_right == 0:
        return None
    return joint / math.sqrt(square_left * square_right)


def dissimilarity(z, group, min_count):
    """None where a pair has fewer than two groups with a correlation."""
    variables = len(z[0])
    result = [[0.0] * variables for _ in range(variables)]
    for i, j in itertools.permutations(range(variables), 2):
        values = []
        for label in sorted(set(group)):
            rows = [row for row, own in zip(z, group, strict=True) if own == label]
            if len(rows) >= min_count:
                values.append(_correlation([row[i] for row in rows], [row[j] for row in rows]))
        values = [value for value in values if value is not None]
        if len(values) < 2:
            result[i][j] = None
            continue
        mean = sum(values) / len(values)
        result[i][j] = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return result


def best_clusters(dissimilarities, num_clusters):
    """The least mean dissimilarity within clusters over all assignments, by trying each."""
    size, best = len(dissimilarities), math.inf
    for labels in itertools.product(range(num_clusters), repeat=size):
        if len(set(labels)) == num_clusters:
            best = min(best, within(dissimilarities, labels))
    return best


def within(dissimilarities, labels):
    """Sum over clusters of the dissimilarities of their pairs."""
    pairs = itertools.combinations(range(len(labels)), 2)
    return sum(dissimilarities[i][j] for i, j in pairs if labels[i] == labels[j])
