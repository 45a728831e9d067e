"""Running an experiment: progress, rows kept on disk, and the record that follows from them."""

import contextlib
import gc
import hashlib
import inspect
import json
import multiprocessing
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing.connection import Connection
from pathlib import Path
from typing import get_args

from graphseq.bench.effects.claims import matches
from graphseq.bench.effects.effect import Effect
from graphseq.bench.effects.protocol import protocol_text
from graphseq.bench.experiment import Conclusion, Experiment, Row, Scale, SkipCell
from graphseq.bench.records.closure import source_state
from graphseq.bench.records.environment import environment
from graphseq.bench.records.files import finite
from graphseq.bench.records.rows import RowFile, default_state_dir, fingerprint, plain

__all__ = ["run_experiment"]

_SEEDS = 5  # of an experiment that does not say


class _Progress:
    """Progress on stderr: a bar in a terminal, elsewhere one plain line for every finished cell."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total, self.finished = name, total, 0
        self.current: Row = {}
        self._bar = None
        if sys.stderr.isatty() and total:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[cell]}", style="dim"),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(name, total=total, cell="")

    def __enter__(self) -> "_Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()

    def begin(self, cell: Row) -> None:
        self.current = cell
        if self._bar:
            self._bar.update(self._task, cell=_label(cell))

    def advance(self, cells: int) -> None:
        """Count cells whose rows are kept from an earlier run."""
        self.finished += cells
        if self._bar:
            self._bar.advance(self._task, cells)

    def end(self, cell: Row, outcome: str) -> None:
        self.finished += 1
        if self._bar:
            self._bar.advance(self._task)
        else:
            self.say(f"[{self.finished}/{self.total}] {self.name} {_label(cell)}: {outcome}")

    def say(self, text: str) -> None:
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)


def _label(cell: Row) -> str:
    return " ".join(f"{key}={value}" for key, value in cell.items())


@contextlib.contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seed_generators(cell: Row) -> None:
    """Seed the global generators from the cell, so that a row does not depend on what ran before it."""
    import numpy as np
    import torch

    seed = int.from_bytes(hashlib.sha256(json.dumps(cell, sort_keys=True).encode()).digest()[:4], "little")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the generator that libraries use unasked)
    torch.manual_seed(seed)


def _check_arguments(scale: str, seeds: int, threads: int) -> None:
    if scale not in get_args(Scale):
        raise ValueError(f"scale is {scale!r}; it is one of {', '.join(get_args(Scale))}")
    if seeds < 1 or threads < 1:
        raise ValueError(f"seeds is {seeds} and threads {threads}; both are at least 1")


def _plain_cells(experiment: Experiment, scale: Scale, seeds: int | None) -> list[Row]:
    cells = plain(experiment.cells(scale, seeds), f"the cells of {experiment.name}")
    keys = [json.dumps(cell, sort_keys=True) for cell in cells]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"{experiment.name} lists the cell {twice[0]} more than once; each needs keys of its own")
    return cells


def _run_cell(experiment: Experiment, cell: Row, scale: Scale) -> Row:
    _seed_generators(cell)
    begin = time.monotonic()
    result = plain(experiment.run(dict(cell), scale), f"the row of {experiment.name} {_label(cell)}")
    if time.monotonic() - begin > 1:  # a collection takes part of a second
        gc.collect()  # a trainer and its data refer to each other: without this, data of many cells stay in memory
    clash = sorted(key for key in cell.keys() & result.keys() if cell[key] != result[key])
    if clash:
        raise ValueError(
            f"the row of {experiment.name} {_label(cell)} has other values for {', '.join(clash)} than its cell; "
            "give results other names"
        )
    return {**cell, **result}


def _timed_cell(experiment: Experiment, cell: Row, scale: Scale, threads: int) -> tuple[Row, str, bool]:
    """Run one cell; return its row, the text of its progress line, and whether to keep the row on disk."""
    start = time.perf_counter()
    try:
        with _torch_threads(threads):
            row = _run_cell(experiment, cell, scale)
    except SkipCell as reason:
        return {**cell, "skipped": str(reason)}, f"skipped, {reason}", False
    return row, f"{time.perf_counter() - start:.1f} s", True


def _outcomes(
    experiment: Experiment, cells: list[Row], scale: Scale, threads: int, processes: int, progress: _Progress
) -> Iterator[tuple[Row, tuple[Row, str, bool]]]:
    """Yield each cell with its outcome: in order with one process, in order of completion with several."""
    if processes == 1 or len(cells) < 2:
        for cell in cells:
            progress.begin(cell)
            yield cell, _timed_cell(experiment, cell, scale, threads)
        return
    # spawned: a fork of a process whose torch has threads may hang
    context = multiprocessing.get_context("spawn")
    watched, held = context.Pipe(duplex=False)  # held here only: it closes when this process ends, however it does
    pool = ProcessPoolExecutor(min(processes, len(cells)), context, _end_with, (watched,))
    try:
        running: dict[Future[tuple[Row, str, bool]], Row] = {
            pool.submit(_timed_cell, experiment, cell, scale, threads): cell for cell in cells
        }
        for future in as_completed(running):
            progress.begin(running[future])
            yield running[future], future.result()
        pool.shutdown()
    finally:
        held.close()  # after an error or Ctrl-C: cells that still run are not waited for
        pool.shutdown(wait=False, cancel_futures=True)


def _end_with(watched: Connection) -> None:
    """Let this process end at once, with the cell that it runs, when the other end of a pipe closes.

    A killed parent cannot tell its workers to stop, and they would train on.
    """

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            watched.recv_bytes()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _rule(experiment: Experiment) -> str:
    """The protocol of an experiment, or the docstring of its own class; that of a base class is not inherited."""
    if isinstance(experiment, Effect):
        return f"{experiment.summary}\n\nSource: {experiment.source}.\n\n{protocol_text(experiment)}"
    return inspect.cleandoc(experiment.protocol or vars(type(experiment)).get("__doc__") or "")


def run_experiment(
    experiment: Experiment,
    *,
    scale: Scale = "default",
    seeds: int | None = None,
    only: str | None = None,
    threads: int = 1,
    processes: int = 1,
    state_dir: Path | None = None,
    fresh: bool = False,
) -> Row:
    """Run the cells that are not yet measured, draw the conclusion, and return the record.

    Each finished row is written to ``<state_dir>/<name>.jsonl`` and synced at once. The next run uses it again if
    cell, scale, source of the experiment, versions, processor and threads are the same; what was skipped is tried
    again. Progress goes to stderr.

    Args:
        experiment: experiment to run.
        scale: name of the scale: ``quick``, ``default`` or ``full``.
        seeds: number of seeds of each arm, at least 1; None for an effect's own number, else 5.
        only: condition ``axis=value``; only cells that match it are run. None for all.
        threads: number of torch threads of each cell, at least 1.
        processes: number of cells that run at the same time, at least 1; more than one only for effects, because times
            of cells that share a machine say nothing. Rows do not depend on it.
        state_dir: folder of measured rows; None for :func:`~graphseq.bench.records.rows.default_state_dir`.
        fresh: whether to delete the measured rows first.

    Returns:
        Plain data with the keys ``name, kind, scale, seeds, verdict, rule, rows, checks, table, environment, source``;
        skipped rows carry the reason as ``skipped``, numbers that are not finite are None.

    Raises:
        ValueError: for an unknown scale, fewer than one seed, thread or process, several processes for a speed
            experiment, or cells that are not distinct.
        TypeError: if a cell or row is not plain data.

    Example:
        >>> import tempfile
        >>> class Square(Experiment):
        ...     name, kind = "speed.square", "speed"
        ...     def cells(self, scale, seeds): return [{"size": size} for size in (1, 2)]
        ...     def run(self, cell, scale): return {"area": cell["size"] ** 2}
        ...     def conclude(self, rows): return Conclusion(None, table=rows)
        >>> record = run_experiment(Square(), state_dir=Path(tempfile.mkdtemp()))
        >>> record["rows"]
        [{'size': 1, 'area': 1}, {'size': 2, 'area': 4}]
    """
    _check_arguments(scale, 1 if seeds is None else seeds, threads)
    if processes < 1 or (processes > 1 and experiment.kind == "speed"):
        raise ValueError(f"processes is {processes}; it is at least 1, and 1 for a speed experiment")
    if seeds is None and not isinstance(experiment, Effect):
        seeds = _SEEDS
    cells = _plain_cells(experiment, scale, seeds)
    if only is not None:
        keys = ", ".join(sorted({key for cell in cells for key in cell}))
        cells = [cell for cell in cells if matches(only, cell)]
        if not cells:
            raise ValueError(f"only is {only!r}, and {experiment.name} has no such cell; its keys are {keys}")
    path = (state_dir or default_state_dir()) / f"{experiment.name}.jsonl"
    if fresh:
        path.unlink(missing_ok=True)
    with _torch_threads(threads), _Progress(experiment.name, len(cells)) as progress:
        where = environment()
        context = {key: value for key, value in where.items() if key != "date"}
        kept = RowFile(path, {**context, "scale": scale, "fingerprint": fingerprint(experiment)})
        known = sum(kept.get(cell) is not None for cell in cells)
        if known:
            progress.say(f"{experiment.name}: {known} of {len(cells)} cells are taken from {path} (--fresh runs them)")
        done: dict[str, Row | None] = {json.dumps(cell, sort_keys=True): kept.get(cell) for cell in cells}
        missing = [cell for cell in cells if kept.get(cell) is None]
        progress.advance(len(cells) - len(missing))
        try:
            for cell, (row, outcome, keep) in _outcomes(experiment, missing, scale, threads, processes, progress):
                if keep:
                    kept.append(cell, row)
                done[json.dumps(cell, sort_keys=True)] = row
                progress.end(cell, outcome)
        except BaseException as error:
            saved = sum(kept.get(cell) is not None for cell in cells)
            cause = (
                "interrupted"
                if isinstance(error, KeyboardInterrupt)
                else f"{type(error).__name__} in {_label(progress.current)}"
            )
            progress.say(
                f"{experiment.name}: {cause}; {saved} of {len(cells)} cells are kept in {path}, "
                "the same command continues from there"
            )
            raise
        rows = [known_row for known_row in (done[json.dumps(cell, sort_keys=True)] for cell in cells) if known_row]
        finished = [row for row in rows if "skipped" not in row]
        conclusion = experiment.conclude([dict(row) for row in finished]) if finished else Conclusion(None)
    # with a part of the cells, claims on the others cannot be checked
    checks = [check for check in conclusion.checks if only is None or check.value is not None]
    record = {
        "name": experiment.name,
        "kind": experiment.kind,
        "scale": scale,
        "seeds": seeds or len({cell.get("seed") for cell in cells}),
        "verdict": conclusion.verdict,
        "rule": _rule(experiment),
        "rows": rows,
        "checks": plain([vars(check) for check in checks], f"the checks of {experiment.name}"),
        "table": plain(conclusion.table, f"the table of {experiment.name}"),
        "environment": where,
        "source": source_state(),
        **({"only": only} if only else {}),
    }
    return finite(record)
