"""Ranks and ranking curves by counting, in plain Python."""

import math


def rank(row):
    """Mean of the best and the worst place of the first score; NaN is the worst that could be."""
    event, negatives = row[0], row[1:]
    if math.isnan(event):
        return float(1 + len(negatives))
    best = 1 + sum(1 for score in negatives if math.isnan(score) or score > event)
    worst = 1 + sum(1 for score in negatives if math.isnan(score) or score >= event)
    return (best + worst) / 2


def mean_reciprocal_rank(rows):
    return sum(1 / rank(row) for row in rows) / len(rows)


def hits_at_k(rows, k):
    return sum(rank(row) <= k for row in rows) / len(rows)


def average_precision(scores, labels):
    """Sum over distinct thresholds of precision times the gain in recall."""
    value, previous = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [label for score, label in zip(scores, labels, strict=True) if score >= threshold]
        recall = sum(chosen) / sum(labels)
        value += (recall - previous) * sum(chosen) / len(chosen)
        previous = recall
    return value


def auroc(scores, labels):
    """Share of pairs of a positive and a negative that are in order, ties half."""
    good = [score for score, label in zip(scores, labels, strict=True) if label]
    bad = [score for score, label in zip(scores, labels, strict=True) if not label]
    return sum((g > b) + (g == b) / 2 for g in good for b in bad) / (len(good) * len(bad))
