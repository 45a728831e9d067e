"""Which pairs may be negatives, as Python sets."""


def pairs_of(src, dst, positions):
    return {(src[i], dst[i]) for i in positions}


def historical_candidates(src, dst, start, batch, train=None):
    """Pairs of events before `start` (in training, of training events alone) that are not in the batch."""
    seen = range(start) if train is None else [i for i in train if i < start]
    return pairs_of(src, dst, seen) - pairs_of(src, dst, batch)


def inductive_candidates(src, dst, train, split_start, start, batch):
    """Pairs seen from the start of the split until the batch, but not in the batch, in training, or between the two."""
    known = pairs_of(src, dst, train) | pairs_of(src, dst, range(max(train) + 1, split_start))
    return pairs_of(src, dst, range(split_start, start)) - known - pairs_of(src, dst, batch)


def true_destinations(src, dst, t, event):
    """Whom the source of an event met at its time."""
    return {dst[i] for i in range(len(src)) if src[i] == src[event] and t[i] == t[event]}


def ranking_candidates(src, dst, t, event):
    """Admissible earlier destinations of the source, and admissible destinations at all."""
    true = true_destinations(src, dst, t, event)
    earlier = {dst[i] for i in range(event) if src[i] == src[event]}
    return earlier - true, set(dst) - true
