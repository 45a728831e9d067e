"""Summary of a comparison with many cases: one line and one column of points for each value of a key."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from graphseq.bench.experiment import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


def group_figure(key: str) -> Callable[[Row, "Axes"], None]:
    """Return a function for ``Speed(draw=…)``: all ratios over the values of a key, a colour for each peer.

    Args:
        key: key of the cases whose values are the places on the horizontal axis.

    Example:
        >>> group_figure("kind")({"rows": []}, axes)  # doctest: +SKIP
    """

    def draw(record: Row, axes: "Axes") -> None:
        rows = [row for row in record["rows"] if "skipped" not in row]
        places = list(dict.fromkeys(row[key] for row in rows))
        points: dict[str, list[tuple[int, float]]] = {}
        for peer, row, median in _found(rows):
            points.setdefault(peer, []).append((places.index(row[key]), median))
        for number, (peer, found) in enumerate(points.items()):
            shift = 0.3 * (number - (len(points) - 1) / 2)
            axes.scatter([at + shift for at, _ in found], [ratio for _, ratio in found], s=12, alpha=0.5, label=peer)
        axes.axhline(1.0, color="black", linewidth=0.8)
        axes.set(yscale="log", ylabel="times as fast as the peer (log)")
        axes.set_xticks(range(len(places)), [str(place) for place in places])
        axes.legend(frameon=False)

    return draw
