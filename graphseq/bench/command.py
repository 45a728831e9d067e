"""``graphseq bench``: run named experiments, keep their records, write RESULTS.md."""

import argparse
import difflib
import fnmatch
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from graphseq.bench import experiments, load_experiment
from graphseq.bench.discovery import summary
from graphseq.bench.docstrings import first_line
from graphseq.bench.experiment import Row, Scale

if TYPE_CHECKING:
    from graphseq.bench.experiment import Experiment

__all__ = ["main"]

_INTERRUPTED = 130  # what shells report for Ctrl-C
_TERMINATED = 143  # and for a process that SIGTERM has ended


class _UsageError(Exception):
    """Wrong arguments of ``graphseq bench``; the message is shown without a traceback."""


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} was given, a whole number of at least 1 is needed")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphseq bench",
        description="Run named experiments and print one table each. Finished cells are kept on disk: after an "
        "interruption the same command continues from there.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments, patterns such as 'speed.*', or Python "
                        "files that define an experiment")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="name all experiments and stop")
    parser.add_argument("--scale", choices=get_args(Scale), default="default", help="quick: one minute, tries the code "
                        "path; default: about 15 minutes on two cores; full: the published setting")  # fmt: skip
    parser.add_argument("--seeds", type=_positive, metavar="N", help="seeds of each arm (the experiment's own number)")
    parser.add_argument("--only", metavar="AXIS=VALUE", help="only cells with these values, such as 'batch=2000'; "
                        "in --out-dir what was found is put beside the record that is there, as a rerun")  # fmt: skip
    parser.add_argument("--threads", type=_positive, default=1, metavar="N", help="torch threads (1)")
    parser.add_argument("--processes", type=_positive, metavar="N", help="cells of an effect that run at the same time "
                        "(the number of cores); speeds are always taken one by one")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record, a list of several; figures beside")
    parser.add_argument("--out-dir", type=Path, metavar="DIR", help="write each record as DIR/<name>.json, with figure")
    parser.add_argument(
        "--report", action="store_true", help="write RESULTS.md from the records in --out-dir (results)"
    )
    parser.add_argument("--redraw", action="store_true", help="draw the figures again from the records in --out-dir "
                        "(results) and run nothing")  # fmt: skip
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="folder of kept cells (bench in GRAPHSEQ_CACHE, "
                        "or in the user's cache folder)")  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="drop kept cells of these experiments first")
    return parser


def _check_folder() -> None:
    if not Path("experiments").is_dir():
        raise _UsageError(
            f"there is no folder experiments/ in {Path.cwd()}; run it from the root of a checkout of the repository, "
            "or give the path of a file that defines an experiment"
        )


def _resolve(patterns: Sequence[str]) -> list[str]:
    found: list[str] = []
    known = experiments()
    for pattern in patterns:
        if pattern.endswith(".py"):
            if not Path(pattern).is_file():
                raise _UsageError(f"there is no file {pattern}")
            found.append(pattern)
            continue
        _check_folder()
        matches = fnmatch.filter(known, pattern)
        if not matches:
            close = difflib.get_close_matches(pattern, known, n=3, cutoff=0.5)
            # the part after the dot is what people remember
            close += [name for name in known if pattern and pattern in name and name not in close]
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
            raise _UsageError(f"there is no experiment {pattern!r}; {hint}")
        found += [name for name in matches if name not in found]
    return found


def _check_targets(json_file: Path | None, out_dir: Path | None) -> None:
    """Refuse paths that cannot be written, before anything is run."""
    if json_file is not None and json_file.is_dir():
        raise _UsageError(f"--json {json_file} is a folder; give a file, or --out-dir for a folder of records")
    if out_dir is not None and out_dir.exists() and not out_dir.is_dir():
        raise _UsageError(f"--out-dir {out_dir} is a file; give a folder, or --json for one file")
    for target in (json_file, out_dir):
        if target is not None:
            there = next(folder for folder in (target, *target.absolute().parents) if folder.exists())
            if not os.access(there, os.W_OK):
                raise _UsageError(f"{target} cannot be written: no permission in {there}")


def _print_list() -> None:
    _check_folder()
    from rich.console import Console

    from graphseq.bench.records.table import print_table

    rows = [
        {"experiment": name, "what it compares": first_line(summary(path, name.partition(".")[0]))}
        for name, path in experiments().items()
    ]
    print_table(rows, Console(), wrap=False)


def _write_report(folder: Path) -> None:
    from graphseq.bench.records.files import read_records, replacing
    from graphseq.bench.records.report import details_markdown, results_markdown

    try:
        records = read_records(folder)
    except ValueError as error:
        raise _UsageError(str(error)) from error
    if not records:
        raise _UsageError(f"there are no records in {folder}/; `graphseq bench NAME --out-dir {folder}` writes them")
    target = folder.absolute().parent / "RESULTS.md"
    with replacing(target) as temporary:
        temporary.write_text(results_markdown(records, folder, target.parent), "utf-8")
    for record in records:
        name = record["name"]
        with replacing(folder / f"{name}.md") as temporary:
            temporary.write_text(details_markdown(record, f"{name}.png" * (folder / f"{name}.png").exists()), "utf-8")
    plural = "" if len(records) == 1 else "s"
    print(f"wrote {os.path.relpath(target)} and the details from {len(records)} record{plural} in {folder}/")


def _redraw(names: Sequence[str], folder: Path) -> int:
    """Draw the figures of records again; one that cannot be drawn keeps its figure, and the status is 1."""
    from graphseq.bench.records.files import read_records, write_figure

    try:
        records = {record["name"]: record for record in read_records(folder)}
    except ValueError as error:
        raise _UsageError(str(error)) from error
    failed = False
    for name in names:
        if name not in records:
            print(f"graphseq bench: there is no record {folder / name}.json to draw", file=sys.stderr)
            failed = True
            continue
        try:
            if write_figure(folder / f"{name}.png", load_experiment(name), records[name]):
                print(f"wrote {folder / name}.png")
        except (KeyError, TypeError, ValueError) as error:
            print(f"graphseq bench: {folder / name}.json cannot be drawn by the experiment as it is now "
                  f"({type(error).__name__}: {error}); run it again", file=sys.stderr)  # fmt: skip
            failed = True
    return 1 if failed else 0


def _run_all(chosen: "Sequence[str | Experiment]", arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from graphseq.bench.records.files import add_rerun, write_figure, write_json
    from graphseq.bench.records.report import print_record
    from graphseq.bench.runner import run_experiment

    records: list[Row] = []
    failed: list[str] = []
    console = Console()
    for item in chosen:
        name = item if isinstance(item, str) else item.name
        try:
            experiment = load_experiment(item) if isinstance(item, str) else item
            name = experiment.name
            processes = (
                arguments.processes or (os.cpu_count() or 1) // arguments.threads if isinstance(item, str) else 1
            )
            record = run_experiment(
                experiment,
                processes=max(1, processes) if experiment.kind == "effect" else 1,
                scale=arguments.scale,
                seeds=arguments.seeds,
                only=arguments.only,
                threads=arguments.threads,
                state_dir=arguments.state_dir,
                fresh=arguments.fresh,
            )
            print_record(record, console)
            targets = []
            if arguments.out_dir and arguments.only and all("skipped" in row for row in record["rows"]):
                print(f"no cell of {arguments.only} has a result; the record of {name} stays as it was")
            elif arguments.out_dir and arguments.only:
                add_rerun(arguments.out_dir / f"{name}.json", record)
                print(f"added the rerun of {arguments.only} to {arguments.out_dir / f'{name}.json'}")
            elif arguments.out_dir:
                targets.append((arguments.out_dir / f"{name}.json", f"{name}.png"))
                write_json(targets[-1][0], record)
            if arguments.json:
                several = f"_{name}" if len(chosen) > 1 else ""
                targets.append((arguments.json, f"{arguments.json.stem}{several}.png"))
                records.append(record)
                write_json(arguments.json, records if len(chosen) > 1 else record)
            for file, figure in targets:
                drawn = write_figure(file.with_name(figure), experiment, record)
                print(f"wrote {file}" + (f" and {file.with_name(figure)}" if drawn else ""))
        except KeyboardInterrupt:
            return _INTERRUPTED
        except SystemExit as stop:  # Lightning's answer to SIGTERM, which has no exit status
            if type(stop).__name__ == "SIGTERMException":
                return _TERMINATED
            raise
        except Exception:
            traceback.print_exc()
            failed.append(name)
    if failed:
        print(f"graphseq bench: {', '.join(failed)} stopped with an error", file=sys.stderr)
    return 1 if failed else 0


def main(argv: Sequence[str], made: "Sequence[Experiment] | None" = None) -> int:
    """Run ``graphseq bench`` with the given arguments and return the exit status.

    0 if everything ran, whether or not the claims hold; 1 if an experiment stopped with an error; 2 for wrong
    arguments; 130 after Ctrl-C.

    Args:
        argv: words of the command line after ``bench``.
        made: experiments to run instead of those that ``argv`` names.

    Example:
        >>> main(["speed.segmant"])
        2
    """
    try:
        arguments = _parser().parse_args(list(argv))
    except SystemExit as stop:  # argparse has said what is wrong, or printed the help
        return int(stop.code or 0)
    try:
        if arguments.list:
            _print_list()
            return 0
        names = _resolve(arguments.names)
        if not names and not made and not arguments.report:
            raise _UsageError("name an experiment; `graphseq bench --list` names them")
        _check_targets(arguments.json, arguments.out_dir)
        status = 0
        if arguments.redraw:
            status = _redraw(names, arguments.out_dir or Path("results"))
        elif names or made:
            # libraries that are not torch read their thread counts when they are loaded
            for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
                os.environ[variable] = str(arguments.threads)
            status = _run_all(made or names, arguments)
        if arguments.report and status == 0:
            _write_report(arguments.out_dir or Path("results"))
        return status
    except _UsageError as error:
        print(f"graphseq bench: {error}", file=sys.stderr)
        return 2
