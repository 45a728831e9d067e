"""Summary table of an effect: one line for each arm at each point of the grid, and for each score."""

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphseq.bench.effects.results import Results, interval_text, read_score
from graphseq.bench.experiment import Row

if TYPE_CHECKING:
    from graphseq.bench.effects.effect import Effect

__all__ = ["arm_table"]


def arm_table(effect: "Effect", results: Results) -> list[Row]:
    """Return one line for each arm: mean score and deviation, difference to the first arm, and the effect's columns.

    Args:
        effect: effect whose columns and reported numbers are shown.
        results: its rows.

    Example:
        >>> from graphseq.bench import load_experiment
        >>> made = load_experiment("effect.snn")  # doctest: +SKIP
        >>> arm_table(made, made.results(rows))  # doctest: +SKIP
    """
    first = next(iter(effect.arms))
    lines: list[Row] = []
    for point in results.places():
        for name, score in effect.scores.items():
            for arm in results.arms(**point):
                rows = list(results.select(arm, **point).values())
                values = list(results.values(arm, score, **point).values())
                if not values and len(effect.scores) > 1:
                    continue  # this point has another score
                less = None if arm == first else interval_text(results.difference(arm, first, score, **point))
                line: Row = {axis.rpartition(".")[2]: value for axis, value in point.items()}
                line |= {"score of": name} if len(effect.scores) > 1 else {}
                line |= {"arm": arm, "score": statistics.fmean(values) if values else None}
                line |= {"deviation": statistics.stdev(values) if len(values) > 1 else None, f"less {first}": less}
                line |= {"seeds": len(rows)}
                for column, value in effect.columns.items():
                    found = [read_score(row, value) for row in rows]
                    line[column] = _average([entry for entry in found if entry is not None])
                if effect.reported:
                    place = "@".join([arm, *(str(value) for value in point.values())])
                    line["reported elsewhere"] = effect.reported.get(place)
                lines.append(line)
    # columns that no arm fills say nothing
    filled = {key for line in lines for key, value in line.items() if value is not None}
    return [{key: value for key, value in line.items() if key in filled} for line in lines]


def _average(found: list[Any]) -> Any:
    """Return the mean of numbers; of lists and dictionaries, the mean of each entry."""
    if not found:
        return None
    if isinstance(found[0], Mapping):
        return {key: _average([entry[key] for entry in found]) for key in found[0]}
    if isinstance(found[0], list | tuple):
        return [_average(list(entries)) for entries in zip(*found, strict=True)]
    return statistics.fmean(found)
