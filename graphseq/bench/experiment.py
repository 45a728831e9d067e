"""Base class of experiments: cells that run independently, and a conclusion drawn from their rows."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

__all__ = ["Check", "Conclusion", "Experiment", "Kind", "Row", "Scale", "SkipCell", "Verdict"]

Row: TypeAlias = dict[str, Any]
"""Plain JSON data with string keys: a cell, the result of one, or a line of a table."""

Kind: TypeAlias = Literal["effect", "speed"]
"""``effect``: a published claim with a verdict; ``speed``: ours and a peer, timed side by side."""

Scale: TypeAlias = Literal["quick", "default", "full"]
"""``quick``: one minute, tries the code path; ``default``: about 15 minutes on two cores; ``full``: as published."""

Verdict: TypeAlias = Literal["reproduced", "partly", "not reproduced"]
"""What an effect experiment concludes, by the rule its docstring states beforehand."""


class SkipCell(Exception):
    """Raised inside :meth:`Experiment.run` when a cell cannot run here, usually for a peer that is not installed.

    The row stays visible as skipped, with the reason; a skipped cell is tried again in the next run.

    Example:
        >>> raise SkipCell("torch_scatter is not installed")
        Traceback (most recent call last):
        graphseq.bench.experiment.SkipCell: torch_scatter is not installed
    """


@dataclass(frozen=True)
class Check:
    """One claim, the number that was measured, its bound, and whether the claim holds.

    Args:
        claim: a sentence, such as "at least twice as fast as the peer on every data set".
        value: the number measured.
        bound: the number or interval it is compared with.
        holds: whether the claim is true.

    Example:
        >>> Check("at least twice as fast", value=3.1, bound=2.0, holds=True).holds
        True
    """

    claim: str
    value: float | str | None
    bound: float | str | None
    holds: bool


@dataclass(frozen=True)
class Conclusion:
    """What follows from the rows of an experiment.

    Args:
        verdict: ``reproduced``, ``partly`` or ``not reproduced``; None for a speed experiment, or if rows are missing.
        checks: the claims with the numbers that were measured.
        table: lines of the summary table, each column name -> value, in the order in which they are shown.

    Raises:
        ValueError: if ``verdict`` is another word.

    Example:
        >>> Conclusion("reproduced").table
        []
    """

    verdict: Verdict | None
    checks: list[Check] = field(default_factory=list)
    table: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.verdict is not None and self.verdict not in get_args(Verdict):
            raise ValueError(f"verdict is {self.verdict!r}; it is one of {', '.join(get_args(Verdict))}, or None")


class Experiment(ABC):
    """Base class of experiments: a named set of cells, a way to run one, and the rule that concludes from them.

    The docstring of a subclass starts with one line on what is compared, and states the rule of the verdict before
    anything is run; it is copied into the record. A cell is run at most once: its row is kept on disk, so cells
    must not depend on each other. Global random generators are seeded from the cell before each.

    Attributes:
        name: ``<kind>.<name>``, such as ``effect.pres``.
        kind: ``"effect"`` or ``"speed"``.
        protocol: description of the comparison and the rule, for the record; the docstring of the class if empty.
        origin: file and variable that the experiment was loaded from; None for one that was built in a script.

    Example:
        >>> class Coin(Experiment):
        ...     name, kind = "effect.coin", "effect"
        ...     def cells(self, scale, seeds):
        ...         return [{"seed": seed} for seed in range(seeds)]
        ...     def run(self, cell, scale):
        ...         return {"heads": cell["seed"] % 2}
        ...     def conclude(self, rows):
        ...         share = sum(row["heads"] for row in rows) / len(rows)
        ...         return Conclusion("partly", [Check("fair", share, 0.5, share == 0.5)])
        >>> Coin().conclude([{"heads": 1}, {"heads": 0}]).checks[0].holds
        True
    """

    name: str
    kind: Kind
    protocol: str = ""
    origin: "tuple[Path, str] | None" = None

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Pickle the experiment as its file and variable, so that functions it holds need not be pickled."""
        if self.origin is None:
            return super().__reduce_ex__(protocol)
        from graphseq.bench.discovery import load_file

        return load_file, self.origin

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        name, kind = getattr(cls, "name", None), getattr(cls, "kind", None)
        if name is None:
            return  # a base of several experiments
        if kind not in get_args(Kind) or not name.startswith(f"{kind}."):
            raise TypeError(
                f"{cls.__name__} has name {name!r} and kind {kind!r}; the kind is 'effect' or 'speed' and the name "
                "starts with it, as in 'speed.segment'"
            )

    def files(self) -> "Sequence[Path]":
        """Return further files that the rows depend on, such as configs; none by default."""
        return ()

    @abstractmethod
    def cells(self, scale: Scale, seeds: Any) -> list[Row]:
        """Return the cells to run, as plain data such as ``{"arm": …, "data": …, "seed": …}``.

        Args:
            scale: name of the scale: ``quick``, ``default`` or ``full``.
            seeds: number of seeds of each arm, at least 1.
        """

    @abstractmethod
    def run(self, cell: Row, scale: Scale) -> Row:
        """Run one cell and return its measurements as plain JSON data; the runner adds the keys of the cell.

        Args:
            cell: one of :meth:`cells`.
            scale: name of the scale: ``quick``, ``default`` or ``full``.

        Raises:
            SkipCell: if the cell cannot run on this machine.
        """

    @abstractmethod
    def conclude(self, rows: list[Row]) -> Conclusion:
        """Draw the conclusion; not called when every cell was skipped.

        Args:
            rows: the cells that ran, each with its result, in the order of :meth:`cells`; skipped ones are left out.
        """

    def draw(self, record: Row, axes: "Axes") -> None:
        """Draw the figure of a record; an experiment without this method has none.

        Args:
            record: the whole record, as it is written to JSON.
            axes: one empty matplotlib Axes; ``axes.figure`` gives the figure for more than one panel.
        """
        raise NotImplementedError(f"{type(self).__name__} draws no figure")
