"""Former place of :mod:`graphseq.data.graphs.molecules`; scripts that import it from here go on working."""

from graphseq.data.graphs.molecules import MoleculeDataModule as MoleculeDataModule
from graphseq.data.graphs.molecules import scaffold as scaffold

__all__: list[str] = []
