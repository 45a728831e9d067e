"""Former place of :mod:`graphseq.data.graphs.molecules`, kept for scripts that import from here."""

from graphseq.data.graphs.molecules import MoleculeDataModule as MoleculeDataModule
from graphseq.data.graphs.molecules import scaffold as scaffold

__all__: list[str] = []
