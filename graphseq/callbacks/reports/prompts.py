"""Report of prompts: which nodes of some graphs are prompted and how strongly, and the return over the epochs."""

import importlib.util
import os
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from graphseq.callbacks.files import report_folder, save_figure
from graphseq.callbacks.reports.figures import PromptedGraph, draw_prompts, draw_returns
from graphseq.core.batches import batch_field
from graphseq.nn import EmbeddedGraphs

__all__ = ["PromptReport"]


@runtime_checkable
class _Prompting(Protocol):
    def prompts(self, batch: Any) -> tuple[EmbeddedGraphs, Tensor, Tensor]: ...


class PromptReport(Callback):
    """Draw the prompts of some validation graphs and the return over the epochs when training ends.

    Files:
        ``prompts.png``: the first graphs of the validation split, each node coloured by the mean absolute entry of its
        prompt; molecules as chemists draw them, other graphs by the second and third eigenvector of their Laplacian.
        ``returns.png``: decrease of the loss by the prompts, in training and in validation.

    The returns are in the checkpoint, so that a resumed run draws all its epochs. It works with any task that has
    ``prompts``, such as :class:`graphseq.tasks.ReinforcedPromptTuning`; files are written where the logger writes, else
    into the trainer's root folder.

    Args:
        num_graphs: number of graphs that are drawn, at least 1.
        folder: folder for the files; None for that of the logger.

    Raises:
        ValueError: if ``num_graphs`` is below 1.
        TypeError: at the start of training, if the task has no prompts.

    Example:
        >>> PromptReport(num_graphs=2).returns
        {'training': {}, 'validation': {}}
    """

    def __init__(self, num_graphs: int = 3, folder: str | os.PathLike[str] | None = None) -> None:
        if num_graphs < 1:
            raise ValueError(f"num_graphs is {num_graphs}; it must be at least 1")
        self.num_graphs = num_graphs
        self.folder = folder
        self.returns: dict[str, dict[int, float]] = {"training": {}, "validation": {}}
        self._batch: Any = None

    def state_dict(self) -> dict[str, Any]:
        """Return the returns so far."""
        return {name: dict(values) for name, values in self.returns.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the returns.

        Args:
            state_dict: state that :meth:`state_dict` returned.
        """
        self.returns = {name: dict(values) for name, values in state_dict.items()}

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Refuse a task without prompts."""
        if stage == "fit" and not isinstance(pl_module, _Prompting):
            raise TypeError(
                f"{type(pl_module).__name__} has no prompts; PromptReport needs a task that places some, such as "
                "graphseq.tasks.ReinforcedPromptTuning"
            )

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Forget the returns of an earlier run of this object."""
        if trainer.global_step == 0:
            self.returns = {"training": {}, "validation": {}}

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the first batch."""
        if batch_idx == 0:
            self._batch = batch

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Record the return in validation."""
        self._record(trainer, "validation", "val/return")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Record the return in training."""
        self._record(trainer, "training", "train/return")

    def _record(self, trainer: Trainer, name: str, metric: str) -> None:
        value = trainer.callback_metrics.get(metric)
        if value is not None and not trainer.sanity_checking:
            self.returns[name][trainer.current_epoch] = float(value)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Draw the figures."""
        folder = None if trainer.fast_dev_run else report_folder(trainer, self.folder)  # type: ignore[attr-defined]
        if folder is None:
            return
        if any(self.returns.values()):
            save_figure(draw_returns(self.returns), folder / "returns.png")
        if self._batch is not None:
            save_figure(draw_prompts(self._graphs(pl_module)), folder / "prompts.png")

    @torch.no_grad()
    def _graphs(self, task: Any) -> list[PromptedGraph]:
        graphs, prompt, order = task.prompts(self._batch)
        smiles, target = batch_field(self._batch, "smiles"), batch_field(self._batch, "y")
        found: list[PromptedGraph] = []
        for number in range(min(self.num_graphs, len(graphs))):
            place = int((order == number).nonzero())  # in the order of sizes
            nodes = slice(int(graphs.ptr[place]), int(graphs.ptr[place + 1]))
            edges = graphs.edge_index[:, int(graphs.edge_ptr[place]) : int(graphs.edge_ptr[place + 1])] - nodes.start
            size = prompt[nodes].abs().mean(1).cpu()
            of_graph = target is not None and len(target) == len(graphs)
            values = target[number].flatten().tolist() if of_graph else []
            label = f"label {', '.join(f'{value:g}' for value in values)}: " if values else ""
            title = f"{label}{int((size > 0).sum())} of {len(size)} nodes prompted"
            drawn = None if smiles is None else _molecule(smiles[number], len(size))
            spot, names = (_spectral(edges.cpu(), len(size)), None) if drawn is None else drawn
            found.append((spot, edges.cpu(), size, names, title))
        return found


def _molecule(smiles: str, count: int) -> tuple[Tensor, list[str]] | None:
    """Return places and symbols of the atoms; None without rdkit, or where its atoms are not the nodes."""
    if importlib.util.find_spec("rdkit") is None:
        return None
    from rdkit import Chem
    from rdkit.Chem import rdDepictor

    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or molecule.GetNumAtoms() != count:
        return None
    rdDepictor.Compute2DCoords(molecule)
    place = torch.tensor(molecule.GetConformer().GetPositions())[:, :2]
    return place, [atom.GetSymbol() for atom in molecule.GetAtoms()]


def _spectral(edges: Tensor, count: int) -> Tensor:
    """Return places of the nodes: eigenvectors of the Laplacian, those of the smallest eigenvalues but the first."""
    adjacent = torch.zeros(count, count, dtype=torch.float64)
    adjacent[edges[0], edges[1]] = 1
    adjacent = torch.maximum(adjacent, adjacent.T).fill_diagonal_(0)
    vectors = torch.linalg.eigh(adjacent.sum(1).diag() - adjacent).eigenvectors
    place = torch.zeros(count, 2, dtype=torch.float64)
    place[:, : vectors[:, 1:3].size(1)] = vectors[:, 1:3]
    return place
