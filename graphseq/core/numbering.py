"""External ids of nodes, such as names, and the numbers from 0 that tensors know them by."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError

if TYPE_CHECKING:
    import pandas

__all__: list[str] = []

Role = Literal["source", "destination"]

_BOTH, _SOURCE, _DESTINATION = 0, 1, 2
_CODE: dict[Role, int] = {"source": _SOURCE, "destination": _DESTINATION}


class NodeNumbering:
    """Two-way table between the ids of nodes and their numbers.

    In a bipartite graph sources and destinations are separate: an id that occurs as both is two nodes, and a source is
    never taken for a destination.

    Args:
        ids: id of each node by its number, text or int64 (N,).
        num_sources: number of source nodes, which are numbered first; None for a graph that is not bipartite.

    Example:
        >>> nodes = NodeNumbering(["ann", "bob"])
        >>> nodes.find(["bob", "eve"], "source").tolist(), nodes.ids_of(torch.tensor([[1, 0]])).tolist()
        ([1, -1], [['bob', 'ann']])
    """

    def __init__(self, ids: Tensor | Sequence[str], num_sources: int | None = None) -> None:
        self.ids = _as_array(ids)
        roles = np.full(len(self.ids), _BOTH if num_sources is None else _DESTINATION, np.int8)
        roles[: num_sources or 0] = _SOURCE
        self.roles = roles
        self._indexes: dict[Role, tuple[pandas.Index, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NodeNumbering):
            return NotImplemented
        return np.array_equal(self.roles, other.roles) and np.array_equal(self.ids, other.ids)

    __hash__ = None  # type: ignore[assignment]  # tables change

    @property
    def num_sources(self) -> int | None:
        """Number of source nodes; None if the graph is not bipartite."""
        return int((self.roles == _SOURCE).sum()) if bool((self.roles != _BOTH).any()) else None

    @property
    def is_text(self) -> bool:
        """Whether ids are text, not integers."""
        return self.ids.dtype == object

    def checked(self, name: str, given: Any) -> np.ndarray:
        """Return given ids as an array of the kind of the known ids.

        Args:
            name: name of the argument for error messages.
            given: one id, or ids of any shape.

        Raises:
            DataError: if they are of another kind.
        """
        values = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
        kind = values.dtype.kind
        if self.is_text:
            values = values.astype(object)
            if not all(isinstance(value, str) for value in values.flat):
                raise DataError(
                    f"{name} holds {next(value for value in values.flat if not isinstance(value, str))!r}, and the "
                    f"nodes have names, such as {self.ids[0]!r}; give names as text"
                )
        elif kind not in "iu" and values.size:
            raise DataError(f"{name} is {values.dtype}; nodes have integer ids, such as {self.ids[0]}")
        else:
            values = values.astype(np.int64)
        return values.reshape(1) if values.ndim == 0 else values

    def find(self, ids: Any, role: Role) -> Tensor:
        """Return the number of each id in a role, -1 where it is unknown.

        Args:
            ids: ids that :meth:`checked` returned, of any shape.
            role: ``source`` or ``destination``, which are the same in a graph that is not bipartite.
        """
        values = np.asarray(ids, dtype=self.ids.dtype)
        index, numbers = self._index(role)
        found = index.get_indexer(values.ravel())
        return torch.from_numpy(np.where(found < 0, -1, numbers[found]).reshape(values.shape))

    def ids_of(self, numbers: Tensor) -> Tensor | np.ndarray:
        """Return the ids of numbered nodes: int64, or an array of text.

        Args:
            numbers: numbers of nodes, int64 of any shape.
        """
        found = self.ids[numbers.cpu().numpy()]
        return found if self.is_text else torch.from_numpy(found)

    def add(self, ids: np.ndarray, role: Role) -> None:
        """Append new ids, which take the next numbers.

        Args:
            ids: distinct ids that the role does not have (M,).
            role: role of the new nodes; it counts only in a bipartite graph.
        """
        bipartite = bool((self.roles != _BOTH).any())
        self.ids = np.concatenate([self.ids, ids])
        self.roles = np.append(self.roles, np.full(len(ids), _CODE[role] if bipartite else _BOTH, np.int8))
        self._indexes = {}

    def keep(self, count: int) -> None:
        """Forget all nodes but the first.

        Args:
            count: number of nodes that are kept.
        """
        self.ids, self.roles, self._indexes = self.ids[:count], self.roles[:count], {}

    def state(self) -> dict[str, Any]:
        """Return ids and roles as tensors and plain data."""
        ids = self.ids.tolist() if self.is_text else torch.from_numpy(self.ids.copy())
        return {"ids": ids, "roles": torch.from_numpy(self.roles.copy())}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "NodeNumbering":
        """Return the table of :meth:`state`.

        Args:
            state: dictionary that :meth:`state` returned.
        """
        nodes = cls(state["ids"])
        nodes.roles = state["roles"].numpy().copy()
        return nodes

    def _index(self, role: Role) -> tuple["pandas.Index", np.ndarray]:
        if role not in self._indexes:
            import pandas

            numbers = np.flatnonzero((self.roles == _BOTH) | (self.roles == _CODE[role]))
            self._indexes[role] = (pandas.Index(self.ids[numbers]), numbers)
        return self._indexes[role]


def _as_array(ids: Tensor | Sequence[str]) -> np.ndarray:
    if isinstance(ids, Tensor):
        return ids.cpu().numpy().astype(np.int64)
    array = np.empty(len(ids), dtype=object)
    array[:] = list(ids)
    return array
