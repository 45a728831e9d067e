"""Span corruption of one sequence at a time, as a collator written by loops does it."""

import math


def counts(length, rate, mean_span):
    """Tokens to take out, and spans; Python rounds halves to even, as torch does."""
    noise = min(max(round(length * rate), 1), length - 1)
    return noise, max(1, min(round(noise / mean_span) or 1, noise, length - noise))


def corrupt(tokens, mask, first_sentinel):
    """Inputs and targets of one sequence."""
    inputs, targets, span = [], [], -1
    for place, token in enumerate(tokens):
        if not mask[place]:
            inputs.append(token)
            continue
        if place == 0 or not mask[place - 1]:
            span += 1
            inputs.append(first_sentinel + span)
            targets.append(first_sentinel + span)
        targets.append(token)
    return inputs, [*targets, first_sentinel + span + 1]


def runs(mask):
    """Lengths of the runs of true entries."""
    found, size = [], 0
    for entry in [*mask, False]:
        if entry:
            size += 1
        elif size:
            found.append(size)
            size = 0
    return found


def compositions(total, parts):
    """Number of ways to split a total into parts of at least one."""
    return math.comb(total - 1, parts - 1)
