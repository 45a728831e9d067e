"""Segment reductions and their gradients: plain Python loops over rows, columns and segments, in double precision.

``rows`` is a list of N rows of D numbers, ``index`` a list of N segments, ``weights`` the gradient that arrives at the
output. Gradients are written out from the definitions, not derived by a machine.
"""

import math


def members(index, segment):
    return [row for row, own in enumerate(index) if own == segment]


def reduce(operation, rows, index, num_segments, width):
    """Output (G rows; N rows for softmax) of an operation."""
    if operation == "softmax":
        return softmax(rows, index)
    output = []
    for segment in range(num_segments):
        inside = members(index, segment)
        output.append([one_column(operation, rows, inside, column) for column in range(width)])
    return output


def one_column(operation, rows, inside, column):
    if not inside:
        return len(rows) if operation == "argmax" else 0
    entries = [rows[row][column] for row in inside]
    if operation == "sum":
        return math.fsum(entries)
    if operation == "mean":
        return math.fsum(entries) / len(entries)
    highest, winner = entries[0], inside[0]
    for entry, row in zip(entries, inside, strict=True):
        better = entry < highest if operation == "min" else entry > highest
        if better or (math.isnan(entry) and not math.isnan(highest)):
            highest, winner = entry, row
    return winner if operation == "argmax" else highest


def softmax(rows, index):
    output = []
    for row, own in zip(rows, index, strict=True):
        inside = members(index, own)
        line = []
        for column, entry in enumerate(row):
            highest = max(rows[other][column] for other in inside)
            if highest == -math.inf:
                line.append(0.0)
                continue
            total = math.fsum(math.exp(rows[other][column] - highest) for other in inside)
            line.append(math.exp(entry - highest) / total)
        output.append(line)
    return output


def gradient(operation, rows, index, weights):
    """Gradient of the sum of output times weights with respect to the rows; ties of an extremum share equally."""
    result = []
    soft = softmax(rows, index) if operation == "softmax" else None
    for number, (row, own) in enumerate(zip(rows, index, strict=True)):
        inside = members(index, own)
        line = []
        for column, entry in enumerate(row):
            if operation == "sum":
                line.append(weights[own][column])
            elif operation == "mean":
                line.append(weights[own][column] / len(inside))
            elif operation == "softmax":
                # sum over outputs j of weights_j * dy_j/dx_i = y_i (w_i - sum_j y_j w_j)
                mean = math.fsum(soft[other][column] * weights[other][column] for other in inside)
                line.append(soft[number][column] * (weights[number][column] - mean))
            else:
                best = one_column(operation, rows, inside, column)
                tied = [other for other in inside if rows[other][column] == best]
                line.append(weights[own][column] / len(tied) if entry == best else 0.0)
        result.append(line)
    return result
