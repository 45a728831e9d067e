"""A published claim as a declaration: arms of one config, paired by seed, with the rule of the verdict."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import graphseq
from graphseq.bench.directions import lower_is_better
from graphseq.bench.effects.claims import Claim, Rule, Seeds
from graphseq.bench.effects.results import Results, Score, axis_of, split_place
from graphseq.bench.experiment import Check, Conclusion, Experiment, Row, Scale, SkipCell, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Effect", "new", "over"]

Overrides = Mapping[str, Any]
_SPECIAL = ("config", "choose", "arms")


def new(class_path: str, **init_args: object) -> dict[str, object]:
    """Return the entry of a config that builds a class with some arguments.

    Args:
        class_path: public path of the class.
        init_args: arguments of the class.

    Example:
        >>> new("graphseq.nn.PRESCorrector", gamma_init=0.7)
        {'class_path': 'graphseq.nn.PRESCorrector', 'init_args': {'gamma_init': 0.7}}
    """
    return {"class_path": class_path, "init_args": init_args}


def over(overrides: Overrides, key: str, values: Sequence[object]) -> list[dict[str, object]]:
    """Return the overrides of an arm that is tried with several values of one key, see ``arms`` of :class:`Effect`.

    Args:
        overrides: overrides that apply to all of them.
        key: dotted key of the config.
        values: values of the key, one of which validation chooses.

    Example:
        >>> over({}, "model.optimizer.lr", [0.1, 0.01])
        [{'model.optimizer.lr': 0.1}, {'model.optimizer.lr': 0.01}]
    """
    return [{**overrides, key: value} for value in values]


@dataclass(kw_only=True, eq=False)
class Effect(Experiment):
    """A method, its baseline and its controls, trained from the config that users run, compared by seed.

    A cell is an arm at a point of the grid with a seed. It trains the config with the overrides of ``base``, point,
    arm, scale and seed, in this order, by ``Trainer.fit``, and tests the epoch that validation chose. Overrides map
    dotted keys to values, see :func:`~graphseq.bench.effects.training.overridden`;
    three keys are the effect's own: ``config``, another config file; ``choose``, another metric to choose by; and, in
    the grid, ``arms``, names of the only arms to run there.

    Args:
        name: ``effect.<name>``, where ``<name>`` is that of its file.
        summary: one line that says what is compared; default the first line of the file's docstring.
        source: paper that states the claim, such as ``arXiv 2402.04284``.
        protocol: procedure and results known before the run; in the record, scales, seeds, conditions and rule
            follow in words, see :func:`~graphseq.bench.effects.protocol.protocol_text`.
        arms: overrides of each arm, the baseline first. Where an arm has a list of overrides, each is trained and the
            one with the best validation score counts, see :func:`over`.
        config: config file, relative to the repository or the current folder; None where ``run`` runs all cells.
        grid: axes of the grid on which all arms are run: a dotted key with its values, or a name with overrides for
            each value.
        base: overrides that apply to every cell.
        scales: overrides of each scale, applied last.
        seeds: number of seeds of each arm, and entries of the config that take the seed, see :class:`Seeds`.
        score: number by which arms are compared: test metric ``test/<metric>``, key of a row, or function of a row.
            Of several by name, the first decides where none is named.
        better: whether ``higher`` or ``lower`` scores are better, or ``neither``, for the figure; None takes it from
            the name of the metric, and ``higher`` where the score is a function.
        choose: validation metric that selects the epoch to test, ``val/<metric>``.
        mode: ``max`` or ``min``: whether larger or smaller values of ``choose`` are better; None for the mode of the
            task.
        tests: overrides of each test, such as other negatives, by name, or a function of the cell that returns them;
            the score is that of the first.
        claims: claims to check, each named by a letter.
        verdict: rule that computes the verdict from the claims; None for an effect without a verdict.
        where: function of a cell and the scale that returns whether to run the cell; default all.
        run: function that replaces training from the config: takes a cell, the scale and the effect, and returns the
            row, or None for cells to be trained from the config.
        measure: function of the tested task and its data module that returns further columns of the row.
        derive: function of all rows that returns them with numbers that depend on several rows.
        columns: further columns of the summary, by name: the mean over seeds of a number of a row, given as ``score``.
        reported: numbers printed elsewhere, as text, by place: ``arm`` or ``arm@value``.
        table: function that returns the lines of the summary; None for means, deviations, differences to the
            baseline, ``columns`` and ``reported``.
        figure: function ``(results, figure, finding, reruns)`` that draws with matplotlib, where ``reruns`` are the
            results of cells that were run again; None for a plot of the differences to the baseline.
        unit: unit of the score, for the label of the figure's axis.
        words: names of arms spelled out, for the figure.
        finding: function of the results and the checks of a record that returns what was found, in one sentence, the
            title of the figure after the verdict; None for the number of claims that hold.
        read: function that returns a row of an earlier record in the columns of today's rows; None to take it as it
            is.

    Raises:
        ValueError: if two arms have the same overrides, an arm overwrites an axis of the grid, a claim or ``reported``
            names an arm or a value of the grid that does not exist, the grid names an unknown arm, the rule names a
            claim that does not exist, a scale is unknown, or the config does not exist.

    Example:
        >>> from graphseq.bench import Above, Rule, all_of, any_of
        >>> coin = Effect(
        ...     name="effect.coin", source="none", protocol="Heads against tails.",
        ...     arms={"tails": {"x": 0}, "heads": {"x": 1}},
        ...     run=lambda cell, scale, effect: {"up": float(cell["arm"] == "heads")},
        ...     score="up", claims=[Above("A", "heads - tails")],
        ...     verdict=Rule(all_of("A"), any_of("A")))
        >>> coin.conclude([{**cell, **coin.run(cell, "default")} for cell in coin.cells("default", 2)]).verdict
        'reproduced'
    """

    kind: ClassVar[Literal["effect"]] = "effect"  # type: ignore[misc]
    summary: str = ""

    name: str
    source: str
    protocol: str
    arms: Mapping[str, Overrides | Sequence[Overrides]]
    config: str | None = None
    grid: Mapping[str, Sequence[Any] | Mapping[str, Overrides]] = field(default_factory=dict)
    base: Overrides = field(default_factory=dict)
    scales: Mapping[str, Overrides] = field(default_factory=dict)
    seeds: Seeds = field(default_factory=Seeds)
    score: Score | Mapping[str, Score] = "test/ap"
    better: Literal["higher", "lower", "neither"] | None = None
    choose: str = "val/ap"
    mode: Literal["min", "max"] | None = None
    tests: Mapping[str, Overrides | Callable[[Row], Overrides]] = field(default_factory=lambda: {"": {}})
    claims: Sequence[Claim] = ()
    verdict: Rule | None = None
    where: Callable[[Row, Scale], bool] | None = None
    run: Callable[[Row, Scale, "Effect"], Row | None] | None = None  # type: ignore[assignment]
    measure: Callable[..., Row] | None = None
    derive: Callable[[list[Row]], list[Row]] | None = None
    columns: Mapping[str, Score] = field(default_factory=dict)
    reported: Mapping[str, str] = field(default_factory=dict)
    table: Callable[[Results], list[Row]] | None = None
    figure: Callable[[Results, Any, str, Sequence[Results]], None] | None = None
    unit: str = "score"
    words: Mapping[str, str] = field(default_factory=dict)
    finding: Callable[[Results, Sequence[Row]], str] | None = None
    read: Callable[[Row], Row] | None = None

    def __post_init__(self) -> None:
        if not self.name.startswith("effect."):
            raise ValueError(f"name is {self.name!r}; it must begin with 'effect.'")
        self._by_hand = self.run
        self.__dict__["run"] = self._run  # what the harness calls
        for scale in self.scales:
            if scale not in get_args(Scale):
                raise ValueError(f"scales has the key {scale!r}; it is one of {', '.join(get_args(Scale))}")
        self.scores: Mapping[str, Score] = self.score if isinstance(self.score, Mapping) else {"": self.score}
        self.axes: dict[str, list[Any]] = {axis: list(values) for axis, values in self.grid.items()}
        self._check_arms()
        if self._by_hand is None:
            self._check_grid()
        letters = {claim.letter for claim in self.claims}
        if self.verdict is not None and (missing := sorted(self.verdict.letters - letters)):
            there = ", ".join(sorted(letters)) or "none"
            raise ValueError(f"the rule names the claim {missing[0]!r}; there are {there}")
        for claim in self.claims:
            for place in claim.places:
                self._check_place(f"claim {claim.letter}", place)
        for place in self.reported:
            self._check_place("reported", place)

    def _check_arms(self) -> None:
        if len(self.arms) < 2:
            raise ValueError(f"arms are {list(self.arms)}; a comparison needs a baseline and another arm")
        seen: dict[str, str] = {}
        for arm, given in self.arms.items():
            tried = [self._resolved(self.base, overrides) for overrides in self._tried(arm)]
            text = json.dumps(tried, sort_keys=True, default=str)
            if text in seen:
                raise ValueError(f"the arm {arm!r} changes nothing against {seen[text]!r}: {given!r}")
            seen[text] = arm
        named = {arm for values in self.grid.values() if isinstance(values, Mapping)
                 for change in values.values() for arm in change.get("arms", ())}  # fmt: skip
        if unknown := sorted(named - set(self.arms)):
            raise ValueError(f"the grid names the arm {unknown[0]!r}; there are {', '.join(self.arms)}")

    def _check_grid(self) -> None:
        """Refuse an arm that overwrites an axis of the grid: all its values would train the same config."""
        for axis, values in self.grid.items():
            changes = list(values.values()) if isinstance(values, Mapping) else [{axis: value} for value in values]
            for arm in self.arms:
                tried = [self._resolved(self.base, change, self._tried(arm)[0]) for change in changes]
                if len({json.dumps(config, sort_keys=True, default=str) for config in tried}) < len(tried):
                    raise ValueError(
                        f"two values of the axis {axis!r} are the same for the arm {arm!r}, which overwrites them; "
                        "let the arm name single keys such as model.model.class_path"
                    )

    def _check_place(self, what: str, place: str) -> None:
        arm, values = split_place(place)
        if arm not in self.arms:
            raise ValueError(f"{what} names the arm {arm!r}; there are {', '.join(self.arms)}")
        try:
            fixed = {axis_of(self.axes, value) for value in values}
        except ValueError as error:
            raise ValueError(f"{what} at {place!r}: {error}") from None
        open_axes = [axis for axis, known in self.axes.items() if axis not in fixed and len(known) > 1]
        if open_axes:
            raise ValueError(f"{what} at {place!r} leaves {open_axes[0]} open; write arm@value")

    # configs

    def files(self) -> list[Path]:
        """Return all config files of the effect."""
        changes = [overrides for arm in self.arms for overrides in self._tried(arm)]
        changes += [
            change for values in self.grid.values() if isinstance(values, Mapping) for change in values.values()
        ]
        names = [self.config, *(change.get("config") for change in changes)]
        return [_found(name) for name in dict.fromkeys(names) if name is not None]

    def _tried(self, arm: str) -> Sequence[Overrides]:
        given = self.arms[arm]
        return [given] if isinstance(given, Mapping) else list(given)

    def _resolved(self, *changes: Overrides) -> dict[str, Any]:
        """Return the whole config after some overrides, with the effect's own keys."""
        import yaml

        from graphseq.bench.effects.training import overridden

        merged = {key: value for change in changes for key, value in change.items()}
        own = {key: merged.pop(key) for key in _SPECIAL if key in merged}
        name = own.get("config", self.config)
        config = yaml.safe_load(_found(name).read_text("utf-8")) if name else {}
        return {"config": overridden(config, merged), "choose": own.get("choose", self.choose)}

    def _point(self, cell: Row) -> list[Overrides]:
        changes: list[Overrides] = []
        for axis, values in self.grid.items():
            changes.append(values[str(cell[axis])] if isinstance(values, Mapping) else {axis: cell[axis]})
        return changes

    # cells

    def cells(self, scale: Scale, seeds: int | None) -> list[Row]:
        """Return every arm at every point of the grid with every seed.

        Args:
            scale: name of the scale: ``quick``, ``default`` or ``full``.
            seeds: number of seeds of each arm; None for the effect's own number.

        Raises:
            ValueError: for one seed, unless the scale is quick.
        """
        if seeds is not None and seeds < 2 and scale != "quick":
            raise ValueError(f"seeds is {seeds}; an effect needs at least 2, for one seed has no interval")
        cells = [
            {**dict(zip(self.axes, point, strict=True)), "arm": arm}
            for point in itertools.product(*self.axes.values())
            for arm in self.arms
        ]
        cells = [cell for cell in cells if all(cell["arm"] in at.get("arms", self.arms) for at in self._point(cell))]
        chosen = [cell for cell in cells if self.where is None or self.where(cell, scale)]
        seeded = [(place, {**cell, "seed": seed}) for cell in chosen
                  for place, seed in enumerate(self.seeds.of(cell, scale, seeds))]  # fmt: skip
        # seed by seed, so that what is there after an interruption can be compared
        return [cell for _, cell in sorted(seeded, key=lambda entry: entry[0])]

    def config_of(self, cell: Row, scale: Scale) -> dict[str, Any]:
        """Return the whole config of a cell; for an arm with a list of overrides, that of the first.

        Args:
            cell: one of :meth:`cells`.
            scale: name of the scale: ``quick``, ``default`` or ``full``.
        """
        return self._cell(cell, scale, self._tried(cell["arm"])[0], {})["config"]

    def _cell(self, cell: Row, scale: Scale, overrides: Overrides, more: Overrides) -> dict[str, Any]:
        seeded = {"seed_everything": cell["seed"], **{key: cell["seed"] for key in self.seeds.into}}
        return self._resolved(self.base, *self._point(cell), overrides, more, self.scales.get(scale, {}), seeded)

    def _run(self, cell: Row, scale: Scale) -> Row:
        from graphseq.core import DataError, OptionalDependencyError

        try:
            row = self._by_hand(cell, scale, self) if self._by_hand else None
            return self.train(cell, scale) if row is None else row
        except (DataError, OptionalDependencyError) as error:
            if isinstance(error, DataError) and not _is_missing(error):
                raise
            raise SkipCell(f"{' '.join(str(value) for value in cell.values())}: {error}") from error

    def train(
        self, cell: Row, scale: Scale, more: Overrides | None = None, measure: Callable[..., Row] | None = None
    ) -> Row:
        """Train one cell from the config, and test it.

        Args:
            cell: one of :meth:`cells`.
            scale: name of the scale: ``quick``, ``default`` or ``full``.
            more: overrides applied after those of the cell.
            measure: function that replaces the effect's own ``measure``, see :class:`Effect`.
        """
        from graphseq.bench.effects.training import fit_and_test

        best: Row = {}
        tried: dict[str, float] = {}
        tests = {name: change(cell) if callable(change) else change for name, change in self.tests.items()}
        for number, overrides in enumerate(self._tried(cell["arm"])):
            resolved = self._cell(cell, scale, overrides, more or {})
            row = fit_and_test(
                resolved["config"], resolved["choose"], tests, mode=self.mode, measure=measure or self.measure
            )
            tried[str(number)] = row["val"]
            down = self.mode == "min" or (self.mode is None and lower_is_better(resolved["choose"]))
            if not best or (row["val"] < best["val"] if down else row["val"] > best["val"]):
                best = {**row, "tried": number}
        return {**best, "tried_val": tried} if len(tried) > 1 else {k: v for k, v in best.items() if k != "tried"}

    # conclusions

    def results(self, rows: Sequence[Row]) -> Results:
        """Return the rows as :class:`Results`, which compares arms.

        Args:
            rows: the cells that ran.
        """
        derived = self.derive(list(rows)) if self.derive else rows
        return Results(derived, self.axes, next(iter(self.scores.values())))

    def conclude(self, rows: list[Row]) -> Conclusion:
        """Check the claims and apply the rule; there is no verdict while a claim of the rule lacks rows.

        Args:
            rows: the cells that ran.
        """
        from graphseq.bench.effects.summary import arm_table

        results = self.results(rows)
        checks: list[Check] = []
        held: dict[str, bool] = {}
        complete = True
        for claim in self.claims:
            found = claim.check(results)
            checks += found
            holds = bool(found) and all(check.holds for check in found)
            held[claim.letter] = held.get(claim.letter, True) and holds  # a letter may stand at several claims
            if self.verdict is not None and claim.letter in self.verdict.letters:
                complete &= bool(found) and all(check.value is not None for check in found)
        verdict: Verdict | None = self.verdict.verdict(held) if self.verdict is not None and complete else None
        return Conclusion(verdict, checks, self.table(results) if self.table else arm_table(self, results))

    def draw(self, record: Row, axes: "Axes") -> None:
        """Draw the figure of a record.

        Args:
            record: record of the effect, as it is written to JSON.
            axes: one empty matplotlib Axes.
        """
        from graphseq.bench.effects.figures import draw_differences
        from graphseq.bench.records.report import verdict_sentence

        results = self.results(self.rows_of(record))
        reruns = [self.results(self.rows_of(rerun)) for rerun in record.get("reruns", [])]
        finding = verdict_sentence(record)
        if self.finding is not None and record["verdict"] is not None:
            finding = f"{finding.partition(':')[0]}: {self.finding(results, record['checks'])}"
        figure = axes.figure
        axes.remove()
        if self.figure is not None:
            return self.figure(results, figure, finding, reruns)
        score = next(iter(self.scores.values()))
        lower = isinstance(score, str) and lower_is_better(score)
        draw_differences(
            results,
            figure,
            reruns=reruns,
            baseline=next(iter(self.arms)),
            finding=finding,
            unit=self.unit,
            words=self.words,
            better=self.better or ("lower" if lower else "higher"),
        )

    def rows_of(self, record: Row) -> list[Row]:
        """Return the rows of a record that ran, an earlier one's in today's columns.

        Args:
            record: record of the effect, as it is written to JSON.
        """
        rows = [row for row in record["rows"] if "skipped" not in row]
        return [self.read(row) for row in rows] if self.read else rows


def _found(name: str) -> Path:
    """Return the path of a config file, relative to the current folder or to the checkout of this package."""
    for folder in (Path(), Path(graphseq.__file__).parents[1]):
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"config is {name!r}; there is no such file in {Path.cwd()}")


def _is_missing(error: BaseException) -> bool:
    """Whether an error says that data are missing, not that they are wrong."""
    return "GRAPHSEQ_MIRROR" in str(error)
