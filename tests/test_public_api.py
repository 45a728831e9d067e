"""The public names are a committed list: removing or renaming one is a deliberate edit."""

import importlib
from pathlib import Path

import graphseq

LIST = Path(__file__).parent / "public_api.txt"


def public_names():
    names = [f"graphseq.{name}" for name in graphseq.__all__]
    for room in graphseq._ROOMS:
        names += [f"graphseq.{room}.{name}" for name in importlib.import_module(f"graphseq.{room}").__all__]
    return sorted(names)


def test_public_names():
    committed = LIST.read_text().split()
    assert public_names() == committed, (
        "the public names have changed; if that is meant, write the new list with "
        "`python -m tests.test_public_api` and note it in CHANGELOG.md"
    )


def test_names_of_the_package():
    assert set(dir(graphseq)) == set(graphseq.__all__)
    assert callable(graphseq.load)


if __name__ == "__main__":
    LIST.write_text("\n".join(public_names()) + "\n")
