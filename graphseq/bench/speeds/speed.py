"""Declaration of a speed comparison: cases, contenders, comparison of outputs, claims."""

import dataclasses
import importlib.metadata
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast, get_args

from graphseq.bench.experiment import Conclusion, Experiment, Kind, Row, Scale, SkipCell
from graphseq.bench.speeds.comparison import OutputsDiffer, same_outputs
from graphseq.bench.speeds.limits import Bytes, Operations
from graphseq.bench.speeds.ratio_claims import MEASURED, AtLeast, Claim, Linear, TakesAtMost, case_label, case_of
from graphseq.bench.speeds.timing import alternate, exhaust, interleave, peak_memory, ratios
from graphseq.core import DataError, OptionalDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "AtLeast",
    "Bytes",
    "Call",
    "Claim",
    "Operations",
    "OutputsDiffer",
    "Setting",
    "Speed",
    "TakesAtMost",
    "combinations",
    "same_outputs",
]

Call: TypeAlias = Callable[[], Any]
"""What is timed: a call without arguments; where contenders take turns, one that returns an iterator over steps."""

_ROUNDS: Mapping[Scale, int] = {"quick": 3, "default": 9, "full": 25}
_SECONDS: Mapping[Scale, float] = {"quick": 0.02, "default": 0.35, "full": 0.5}


@dataclass(frozen=True)
class Setting:
    """Scale and device of a measurement.

    Args:
        scale: name of the scale: ``quick``, ``default`` or ``full``.
        device: device of the tensors, ``"cpu"`` or ``"cuda"``.

    Example:
        >>> Setting("quick").device
        'cpu'
    """

    scale: Scale
    device: str = "cpu"


def combinations(**values: Sequence[Any]) -> list[Row]:
    """Return every combination of values as a list of cases, the last key varying fastest.

    Args:
        **values: the values of each key.

    Example:
        >>> combinations(data=["NCI1"], batch_size=[32, 128])
        [{'data': 'NCI1', 'batch_size': 32}, {'data': 'NCI1', 'batch_size': 128}]
    """
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


class Speed(Experiment):
    """Comparison with a peer in one process, alternating, with the same data and threads, outputs compared first.

    For each case: the subject is prepared; every contender makes its call from it; outputs are compared, and a
    difference stops the experiment before anything is timed; the calls alternate, each repeated until a measurement
    takes a third of a second; the ratio is the median over rounds of the pairwise quotients, beside the smallest and
    the largest. A contender that is not installed is left out and named; a case with fewer than two is a visible skip.

    Args:
        name: ``speed.<name>``, where ``<name>`` is that of its file.
        protocol: description of the comparison and the claim, as stated before the run; its first line is a title.
        cases: plain dictionaries of the same keys, or a function that gives those of a scale.
        contenders: name -> function of the subject that returns the call to time, or None for a case without this
            contender. The first contender is the one whose speed is claimed.
        equal: ``(subject, calls)`` -> columns for the row; raises :class:`OutputsDiffer`. See :func:`same_outputs`.
        claims: claims that are checked on the rows measured on a CPU.
        prepare: ``(case, setting)`` -> subject, not timed; the case by default. :class:`graphseq.core.DataError` and
            :class:`graphseq.core.OptionalDependencyError` make the case a visible skip.
        limit: subject -> :class:`Bytes` or :class:`Operations` that one call needs at least; None states none.
        turn: subject -> number of steps that one contender takes before the next one; calls then return iterators.
        notes: ``(subject, seconds of each contender by name)`` -> further columns for the row.
        pairs: further ratios to report, such as ``"other/PyG"``, beside those of the first contender to each other one.
        packages: name of a contender -> distribution whose version is recorded.
        memory: whether to measure the peak memory that one call adds.
        rounds: scale -> number of measurements of each contender.
        seconds: scale -> smallest duration of one measurement, in seconds.
        columns: names of the columns of ``equal`` and ``notes`` that the printed table shows.
        run: ``(case, setting)`` -> row, which replaces the measurement above for comparisons that contenders cannot
            express.
        table: rows -> lines of the printed table, in place of the general one.
        draw: ``(rows, figure, finding)``, in place of the general figure.
        finding: rows -> what was found, in one sentence, the title of the figure; by default the smallest and largest
            ratio, and the number of claims that hold.
        read: rows of an earlier record -> the same in the columns of today's rows; as they are by default.

    Raises:
        ValueError: if there are no cases, cases differ in their keys, fewer than two contenders, nothing compares
            outputs, or a claim names a contender or a key that does not exist.

    Example:
        >>> speed = Speed(
        ...     name="speed.sum",
        ...     protocol="Sum of a list by the interpreter and by a loop.",
        ...     cases=[{"size": 100}],
        ...     prepare=lambda case, setting: list(range(case["size"])),
        ...     contenders={"ours": lambda items: lambda: sum(items), "copy": lambda items: lambda: sum(list(items))},
        ...     equal=same_outputs(),
        ...     claims=[AtLeast("ours/copy", 0.01)],
        ... )
        >>> row = speed.run({"size": 100}, "quick")
        >>> sorted(row["ms"]), speed.conclude([{"size": 100, **row}]).checks[0].holds
        (['copy', 'ours'], True)
    """

    kind: Kind = "speed"

    def __init__(
        self,
        *,
        name: str,
        protocol: str,
        cases: Sequence[Row] | Callable[[Scale], Sequence[Row]],
        contenders: Mapping[str, Callable[[Any], Call | None]] | None = None,
        equal: Callable[[Any, Mapping[str, Call]], Row | None] | None = None,
        claims: Sequence[Claim] = (),
        prepare: Callable[[Row, Setting], Any] | None = None,
        limit: Callable[[Any], Bytes | Operations | None] | None = None,
        turn: Callable[[Any], int] | None = None,
        notes: Callable[[Any, Mapping[str, list[float]]], Row] | None = None,
        pairs: Sequence[str] = (),
        packages: Mapping[str, str] | None = None,
        memory: bool = False,
        rounds: Mapping[Scale, int] = _ROUNDS,
        seconds: Mapping[Scale, float] = _SECONDS,
        columns: Sequence[str] = (),
        run: Callable[[Row, Setting], Row] | None = None,
        table: Callable[[Sequence[Row]], list[Row]] | None = None,
        draw: Callable[[Sequence[Row], Any, str], None] | None = None,
        finding: Callable[[Sequence[Row]], str] | None = None,
        read: Callable[[Sequence[Row]], list[Row]] | None = None,
    ) -> None:
        self.name, self.protocol, self.claims = name, protocol, tuple(claims)
        self.cases, self.contenders, self.equal = cases, dict(contenders or {}), equal
        self.prepare, self.limit, self.turn, self.notes = prepare, limit, turn, notes
        self.pairs = tuple(pairs)
        self.packages, self.memory, self.columns = dict(packages or {}), memory, tuple(columns)
        self.rounds, self.seconds = dict(rounds), dict(seconds)
        self.device = "cpu"
        self._run, self._table, self._draw, self._finding, self._read = run, table, draw, finding, read
        self._check()

    def _check(self) -> None:
        if not self.name.startswith("speed."):
            raise ValueError(f"name is {self.name!r}; it starts with 'speed.'")
        for scale in get_args(Scale):
            cases = self.cells(scale, 1)
            if not cases:
                raise ValueError(f"{self.name}: cases is empty for scale {scale}; give at least one dictionary")
            if len({tuple(case) for case in cases}) > 1:
                raise ValueError(f"{self.name}: cases have different keys, {cases[0]} and others; give all the same")
            clash = sorted({*MEASURED, "device"} & set(cases[0]))
            if clash:
                raise ValueError(f"{self.name}: cases have the key {clash[0]!r}, which is a column of every row")
        if self._run is None:
            if len(self.contenders) < 2:
                raise ValueError(f"{self.name}: contenders is {list(self.contenders)}; give ours and at least one peer")
            if self.equal is None:
                raise ValueError(f"{self.name}: equal is missing; outputs are compared before they are timed")
        self._check_claims()

    def _check_claims(self) -> None:
        known = {scale: self.cells(scale, 1) for scale in get_args(Scale)}
        named = [claim for claim in self.claims if isinstance(claim, AtLeast | Linear | TakesAtMost)]
        for claim in named + [AtLeast(pair, 1) for pair in self.pairs]:
            unknown = [name for name in claim.contenders if name not in self.contenders]
            if unknown and (self._run is None or self.contenders):
                raise ValueError(
                    f"{self.name}: a claim is on the contender {unknown[0]!r}; there are {', '.join(self.contenders)}"
                )
            if not any(claim.where.items() <= case.items() for cases in known.values() for case in cases):
                raise ValueError(f"{self.name}: a claim is on cases where {dict(claim.where)}; there are none")

    def on(self, device: str) -> "Speed":
        """Return the same comparison on another device; its rows name it, and no claim is checked on them.

        Args:
            device: ``"cpu"`` or ``"cuda"``.

        Example:
            >>> speed = Speed(name="speed.nothing", protocol="", cases=[{"size": 1}], run=lambda case, setting: {})
            >>> speed.on("cuda").cells("quick", 1)
            [{'size': 1, 'device': 'cuda'}]
        """
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.device = device
        return twin

    def cells(self, scale: Scale, seeds: int) -> list[Row]:
        """Return the cases.

        Args:
            scale: name of the scale: ``quick``, ``default`` or ``full``.
            seeds: ignored, since the rounds are the repetitions.
        """
        cases = self.cases(scale) if callable(self.cases) else self.cases
        where = {} if self.device == "cpu" else {"device": self.device}
        return [{**case, **where} for case in cases]

    def run(self, cell: Row, scale: Scale) -> Row:
        """Compare the outputs of one case, then time it.

        Args:
            cell: one of :meth:`cells`.
            scale: name of the scale: ``quick``, ``default`` or ``full``.

        Raises:
            SkipCell: if the data or all peers are missing.
            OutputsDiffer: if contenders give different outputs.
        """
        case = {key: value for key, value in cell.items() if key != "device"}
        setting = Setting(scale, self.device)
        try:
            if self._run is not None:
                return self._run(case, setting)
            subject = case if self.prepare is None else self.prepare(case, setting)
            calls, absent = self._calls(subject)
        except (DataError, OptionalDependencyError) as error:
            raise SkipCell(f"the data are not here: {error}") from error
        try:
            noted = dict(cast(Any, self.equal)(subject, calls) or {})
        except OutputsDiffer as error:
            raise OutputsDiffer(f"{self.name}, {case_label(case)}: {error}; nothing was timed") from error
        row = self._time(calls, subject, scale)
        seconds = row.pop("seconds")
        noted |= self.notes(subject, seconds) if self.notes else {}
        clash = sorted({*MEASURED, "device", *case} & set(noted))
        if clash:
            raise ValueError(f"{self.name}: equal or notes give the column {clash[0]!r}, which the row has already")
        if self.memory:
            row["peak_mb"] = {name: _peak(call, self.device, self.turn is not None) for name, call in calls.items()}
        return {**row, "versions": self._versions(calls), **({"absent": absent} if absent else {}), **noted}

    def _calls(self, subject: Any) -> tuple[dict[str, Call], dict[str, str]]:
        """Return the calls of the contenders that are available, and the reasons why others are not."""
        calls: dict[str, Call] = {}
        absent: dict[str, str] = {}
        for place, (name, make) in enumerate(self.contenders.items()):
            try:
                call = make(subject)
            except (ImportError, SkipCell, DataError) as error:
                if place == 0:
                    raise  # ours cannot be built: a fault, or a case without data
                absent[name] = str(error)
                continue
            if call is not None:
                calls[name] = call
        if len(calls) < 2 or (absent and next(iter(self.contenders)) in absent):
            raise SkipCell(
                "; ".join(f"{name}: {reason}" for name, reason in absent.items()) or "nothing to compare with"
            )
        return calls, absent

    def _time(self, calls: dict[str, Call], subject: Any, scale: Scale) -> Row:
        rounds = self.rounds[scale]
        limit = self.limit(subject) if self.limit else None
        timed, factor = dict(calls), 1.0
        if limit is not None:
            timed["limit"], factor = limit.contender(self.device)
        if self.turn is not None:
            repeats = dict.fromkeys(calls, 1)
            seconds = interleave(calls, rounds, self.turn(subject))
            if limit is not None:
                seconds |= alternate({"limit": timed["limit"]}, rounds)
        else:
            repeats = _repeats(timed, self.seconds[scale])
            totals = alternate({name: _repeated(call, repeats[name]) for name, call in timed.items()}, rounds, warmup=0)
            seconds = {name: [total / repeats[name] for total in totals[name]] for name in timed}
        row: Row = {
            "rounds": rounds,
            "calls": {name: repeats[name] for name in calls},
            "ms": {name: 1e3 * statistics.median(seconds[name]) for name in calls},
            "ratio": {
                f"{ours}/{peer}": dataclasses.asdict(ratios(seconds, ours, peer)) for ours, peer in self._pairs(calls)
            },
        }
        first = next(iter(calls))
        if limit is not None:
            bound = [factor * second for second in seconds.pop("limit")]
            times = statistics.median(own / least for own, least in zip(seconds[first], bound, strict=True))
            row["limit"] = {**limit.describe(), "ms": 1e3 * statistics.median(bound), "times": times}
        return {**row, "seconds": seconds}

    def _pairs(self, calls: Mapping[str, Call]) -> list[tuple[str, str]]:
        """Return the pairs to report: the first contender with each other one, and the pairs of the claims."""
        first, *others = calls
        pairs = [(first, other) for other in others]
        pairs += [AtLeast(pair, 1).contenders for pair in self.pairs]
        pairs += [claim.contenders for claim in self.claims if isinstance(claim, AtLeast | Linear | TakesAtMost)]
        return [pair for pair in dict.fromkeys(pairs) if set(pair) <= set(calls)]

    def _versions(self, calls: Mapping[str, Call]) -> Row:
        found = {name: package for name, package in self.packages.items() if name in calls}
        return {name: f"{package} {importlib.metadata.version(package)}" for name, package in found.items()}

    def conclude(self, rows: list[Row]) -> Conclusion:
        """Check the claims on the rows.

        Args:
            rows: rows of the cases that ran.
        """
        on_processor = [row for row in rows if "device" not in row]
        checks = [check for claim in self.claims for check in claim(on_processor)] if on_processor else []
        lines = self._table(rows) if self._table else [line for row in rows for line in self._lines(row)]
        return Conclusion(None, checks, lines)

    def _lines(self, row: Row) -> Iterator[Row]:
        """Yield one line for each ratio of a row; the first also has the columns that do not depend on the peer."""
        for place, (pair, ratio) in enumerate(row.get("ratio", {}).items()):
            ours, peer = pair.split("/")
            line: Row = case_of(row)
            line["pair"] = f"{ours} / {row['versions'].get(peer, peer)}"
            line |= {"ms": row["ms"][ours], "other ms": row["ms"][peer]}
            line |= {"ratio": ratio["median"], "lowest": ratio["low"], "highest": ratio["high"]}
            if "limit" in row:
                line["times limit"] = row["limit"]["times"] if place == 0 else None
            if "peak_mb" in row:
                line |= {"MB": row["peak_mb"][ours], "other MB": row["peak_mb"][peer]}
            yield line | {name: row.get(name) if place == 0 else None for name in self.columns}

    def draw(self, record: Row, axes: "Axes") -> None:
        """Draw each ratio with its range, and the bounds of the claims.

        Args:
            record: whole record, as it is written to JSON.
            axes: one empty matplotlib Axes.
        """
        from graphseq.bench.records.report import verdict_sentence
        from graphseq.bench.speeds.figures import draw_ratios, ratios_in_words

        rows = self.rows_of(record)
        finding = self._finding(rows) if self._finding else ratios_in_words(rows)
        verdict = verdict_sentence(record)
        finding = f"{finding[0].upper()}{finding[1:]}; {verdict[0].lower()}{verdict[1:]}" if finding else verdict
        figure = axes.figure
        axes.remove()
        if self._draw is not None:
            return self._draw(rows, figure, finding)
        claims = [claim for claim in self.claims if isinstance(claim, AtLeast)]
        return draw_ratios(rows, figure, finding, lambda row, pair: [
            bound
            for claim in claims if claim.ratio == pair and claim.where.items() <= row.items()
            for bound in (claim.bound, claim.aim) if bound is not None
        ])  # fmt: skip

    def rows_of(self, record: Row) -> list[Row]:
        """Return the rows of a record that ran, those of an earlier one in today's columns.

        Args:
            record: record of the comparison, as it is written to JSON.
        """
        rows = [row for row in record["rows"] if "skipped" not in row]
        return self._read(rows) if self._read else rows


def _peak(call: Call, device: str, steps: bool) -> float | None:
    """Peak memory that a call adds, in megabytes; None if it cannot be measured."""
    whole = (lambda: exhaust(call())) if steps else call
    try:
        return peak_memory(whole, device) / 1e6
    except OSError:
        return None


def _repeated(call: Call, repeats: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(repeats):
            call()

    return run


def _repeats(calls: Mapping[str, Call], seconds: float) -> dict[str, int]:
    """Return the number of calls of each contender that fit into a duration; this also warms the contenders up."""
    once = {name: times[0] for name, times in alternate(calls, rounds=1).items()}
    return {name: max(1, math.ceil(seconds / max(took, 1e-9))) for name, took in once.items()}
