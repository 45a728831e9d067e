"""Summary of a comparison with many cases: one line and one column of points for each value of a key."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from graphseq.bench.experiment import Row

__all__ = ["group_figure", "group_table"]


def _found(rows: Sequence[Row]) -> Iterator[tuple[str, Row, float]]:
    """Yield peer, row and median ratio of everything measured."""
    for row in rows:
        for pair, ratio in row.get("ratio", {}).items():
            yield pair.partition("/")[2], row, ratio["median"]


def group_table(key: str, columns: Sequence[str]) -> Callable[[Sequence[Row]], list[Row]]:
    """Return a function for ``Speed(table=…)``: one line for each value of a key.

    Each line has the geometric mean and the range of the ratios to each peer, for each combination of values of some
    other keys.

    Args:
        key: key of the cases whose values are the lines.
        columns: keys of the cases whose values, with each peer, are the columns.

    Example:
        >>> rows = [{"kind": "sum", "size": 1, "way": "up", "ratio": {"ours/PyG": {"median": 2.0}}},
        ...         {"kind": "sum", "size": 9, "way": "up", "ratio": {"ours/PyG": {"median": 8.0}}}]
        >>> group_table("kind", ["way"])(rows)
        [{'kind': 'sum', 'PyG up': '4.00 (2.00-8.00)'}]
    """

    def table(rows: Sequence[Row]) -> list[Row]:
        groups: dict[str, dict[str, dict[str, list[float]]]] = {}  # peer -> column -> value of the key -> ratios
        for peer, row, median in _found(rows):
            column = " ".join([peer, *(str(row[name]) for name in columns)])
            groups.setdefault(peer, {}).setdefault(column, {}).setdefault(row[key], []).append(median)
        found = {column: values for of_peer in groups.values() for column, values in of_peer.items()}
        return [
            {key: value}
            | {
                column: f"{statistics.geometric_mean(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
                for column, values in found.items()
                if (ratios := values.get(value))
            }
            for value in dict.fromkeys(row[key] for row in rows)
        ]

    return table


def group_figure(key: str) -> Callable[[Sequence[Row], Any, str], None]:
    """Return a function for ``Speed(draw=…)``: all ratios over the values of a key, a colour for each peer.

    Args:
        key: key of the cases whose values are the places on the horizontal axis.

    Example:
        >>> group_figure("kind")([], figure, "Nothing ran.")  # doctest: +SKIP
    """

    def draw(rows: Sequence[Row], figure: Any, finding: str) -> None:
        from graphseq.bench.speeds.figures import draw_groups

        points: dict[str, list[tuple[str, float]]] = {}
        for peer, row, median in _found(rows):
            points.setdefault(peer, []).append((str(row[key]), median))
        draw_groups(points, figure, finding)

    return draw
