"""Group-to-group linear layer: dense within groups of units, sparse between them, executed without the zeros."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graphseq.core.elastic import Elastic
from graphseq.core.spec import Recorded
from graphseq.nn.sparse.plans import Plan
from graphseq.nn.sparse.rewirable import Preserve, kept_entries
from graphseq.sparsity import (
    block_diagonal_linear,
    choose_format,
    csr_linear,
    csr_pattern,
    from_block_diagonal,
    from_packed,
    gather_features,
    group_labels,
    group_mask,
    group_units,
    masked_linear,
    packed_index,
    packed_linear,
    to_block_diagonal,
    to_packed,
)

__all__ = ["GroupToGroupLinear"]

Backend = Literal["auto", "packed", "masked", "blockdiag+csr"]


def draw_sparse_weights_(mask: Tensor, bias: Tensor | None) -> Tensor:
    r"""Return weights :math:`U(\pm 1/\sqrt{k_j})` with :math:`k_j` inputs of unit j, and draw the bias in place.

    Args:
        mask: true where a weight exists (out_features, in_features).
        bias: bias, drawn from :math:`U(\pm 1/\sqrt{\bar k})`, or None.
    """
    fan_in = mask.sum(1, keepdim=True).clamp(min=1)
    weight = torch.empty(mask.shape, device=mask.device).uniform_(-1, 1) * mask / fan_in.sqrt()
    if bias is not None:
        bound = 1 / math.sqrt(float(fan_in.float().mean()))
        nn.init.uniform_(bias, -bound, bound)
    return weight


class GroupToGroupLinear(Recorded, Elastic):
    r"""Linear layer between groups of units: dense within a group, sparse between groups.

    .. math:: y = x\,(W \odot M)^\top + b, \qquad P(M_{ji} = 1) = p \text{ if } c(j) = c(i), \text{ else } p'

    Source: arXiv 2508.14140. Its pattern is ``granularity="edge"``; with ``column``, the default here, all units of a
    group read the same inputs of another group, so that the layer is one gather and one batched matrix product;
    with ``block`` they read whole groups. Formats differ in time and memory, not in results:

    * ``packed`` stores weights :math:`[G, K, n]`, no zeros and no mask (``column``, ``block``). Without weights
      between groups, and with groups that are not random, nothing is gathered either.
    * ``blockdiag+csr`` stores dense blocks within groups and single weights between them (``edge``, p = 1); first
      derivatives only.
    * ``masked`` multiplies a dense weight by a mask.

    Connections can be rewired during training, see :class:`graphseq.callbacks.DynamicSparse`.

    Args:
        in_features: number of inputs, a multiple of ``groups``.
        out_features: number of outputs, a multiple of ``groups``.
        groups: number of groups G.
        p_intra: density p within a group, in [0, 1].
        p_inter: density p' between groups, in [0, 1].
        grouping: rule that assigns inputs and outputs to groups: ``index`` (contiguous), ``interleaved`` (i mod G) or
            ``random`` (drawn for inputs and outputs separately, which destroys the structure on purpose).
        granularity: unit of connectivity that is drawn as a whole: a single weight (``edge``), an input of all units of
            a group (``column``), or a pair of groups (``block``).
        backend: format of the weights; ``auto`` for the one that :func:`graphseq.sparsity.choose_format` expects to be
            fastest.
        bias: whether an additive bias is learned.
        seed: seed of groups and connections; None to draw them from the global generator.

    Shape:
        input (*, in_features) -> output (*, out_features)

    Raises:
        ValueError: if ``groups`` does not divide the sizes, a probability is outside its range, a unit is left without
            inputs, or ``backend`` cannot store the pattern.

    Example:
        >>> layer = GroupToGroupLinear(1024, 1024, p_inter=0.125)
        >>> layer.backend, layer.density, sum(p.numel() for p in layer.parameters())
        ('packed', 0.234375, 246784)
    """

    elastic = ("values", "col")  # edges are drawn: another draw has another number of them
    group_of_in: Tensor
    group_of_out: Tensor
    mask: Tensor
    inputs: Tensor
    crow: Tensor
    col: Tensor
    values: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        groups: int = 8,
        p_intra: float = 1.0,
        p_inter: float = 0.15,
        grouping: Literal["index", "interleaved", "random"] = "index",
        granularity: Literal["edge", "column", "block"] = "column",
        backend: Backend = "auto",
        bias: bool = True,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        into = group_labels(in_features, groups, grouping, generator)
        out = group_labels(out_features, groups, grouping, generator)
        mask = group_mask(out, into, p_intra, p_inter, granularity, generator)
        self.in_features, self.out_features, self.groups = in_features, out_features, groups
        self.grouping, self.granularity = grouping, granularity
        if backend not in ("auto", "packed", "masked", "blockdiag+csr"):
            raise ValueError(f"backend is {backend!r}; it must be 'auto', 'packed', 'masked' or 'blockdiag+csr'")
        if backend == "packed" and granularity == "edge":
            raise ValueError("backend is 'packed' and granularity 'edge'; single weights need 'blockdiag+csr'")
        if backend == "blockdiag+csr" and (granularity != "edge" or p_intra != 1.0):
            raise ValueError(
                f"backend is 'blockdiag+csr', granularity {granularity!r} and p_intra {p_intra}; it stores whole "
                "blocks within groups and single weights between them: granularity 'edge' and p_intra 1"
            )
        if backend == "auto":
            backend = choose_format(granularity, in_features, out_features, p_intra, p_inter, groups)
        self.backend = backend
        # where no group reads another, a reshape replaces the gather; rewiring cannot change that
        self.is_diagonal = backend == "packed" and p_inter == 0.0 and p_intra == 1.0 and grouping != "random"
        self.register_buffer("group_of_in", into)
        self.register_buffer("group_of_out", out)
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        if backend == "masked":
            self.register_buffer("mask", mask)
            self.weight = nn.Parameter(torch.empty(out_features, in_features))
        elif backend == "packed":
            packed, inputs = to_packed(torch.empty(out_features, in_features), mask, out)
            self.weight = nn.Parameter(packed)  # (G, K, n)
            self.register_buffer("inputs", inputs)
        else:
            pattern = csr_pattern(mask & ~self._within())
            self.weight = nn.Parameter(torch.empty(groups, in_features // groups, out_features // groups))
            self.values = nn.Parameter(torch.empty(len(pattern.col)))
            self.register_buffer("crow", pattern.crow)
            self.register_buffer("col", pattern.col)
        self.plans = nn.ModuleDict({name: Plan(plan) for name, plan in self._plans().items()})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights that exist from the range of their fan-in, and the bias; connections stay."""
        _, mask = self.to_dense()
        self._store(draw_sparse_weights_(mask, self.bias))

    @property
    def density(self) -> float:
        """Share of the weights that exist. Reading it synchronises with the device for a masked layer."""
        number = int(self.mask.sum()) if self.backend == "masked" else self.weight.numel()
        number += self.values.numel() if self.backend == "blockdiag+csr" else 0
        return number / (self.in_features * self.out_features)

    def extra_repr(self) -> str:
        """Return sizes, groups and format."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, groups={self.groups}, "
            f"grouping={self.grouping}, granularity={self.granularity}, backend={self.backend}"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs.

        Args:
            x: inputs (*, in_features).
        """
        if x.size(-1) != self.in_features:
            raise ValueError(f"x has shape {tuple(x.shape)}; its last axis must have {self.in_features} features")
        if self.backend == "masked":
            return masked_linear(x, self.weight, self.mask, self.bias)
        interleaved = self.grouping == "interleaved"
        if self.is_diagonal:
            return block_diagonal_linear(x, self.weight, self.bias, interleaved)
        if self.backend == "packed":
            y = packed_linear(x, self.weight, self._plan("gather"), self._bias_by_group())
            return y if self.grouping == "index" else gather_features(y, self._plan("arrange"))
        if self.grouping == "random":
            y = block_diagonal_linear(gather_features(x, self._plan("regroup")), self.weight, self._bias_by_group())
            y = gather_features(y, self._plan("arrange"))
        else:
            y = block_diagonal_linear(x, self.weight, self.bias, interleaved)
        return y + csr_linear(x, self.values, self._plan("pattern"))

    def _plan(self, name: str) -> Any:
        return self.plans[name]()  # a PackedIndex or CSRPattern

    def _bias_by_group(self) -> Tensor | None:
        if self.bias is None or self.grouping == "index":
            return self.bias
        return self.bias[self._plan("arrange").order]  # sorted by group

    def _plans(self) -> dict[str, Any]:
        """Return what execution needs and follows from the buffers: index tables of gathers and the CSR pattern."""
        plans: dict[str, Any] = {}
        if self.backend == "packed" and not self.is_diagonal:
            plans["gather"] = packed_index(self.inputs, self.in_features)
        by_group = "random" if self.backend == "blockdiag+csr" else ("interleaved", "random")
        if self.backend != "masked" and not self.is_diagonal and self.grouping in by_group:
            position = group_units(self.group_of_out, self.groups).flatten().argsort()
            plans["arrange"] = packed_index(position[None], self.out_features)
        if self.backend == "blockdiag+csr":
            if self.grouping == "random":
                units = group_units(self.group_of_in, self.groups).flatten()
                plans["regroup"] = packed_index(units[None], self.in_features)
            plans["pattern"] = csr_pattern(self.to_dense()[1] & ~self._within())
        return plans

    def _replan(self) -> None:
        for name, plan in self._plans().items():
            stored = self.plans[name]
            assert isinstance(stored, Plan)  # for type checkers
            stored.set(plan)

    def make_room(self, saved: Mapping[str, Tensor]) -> None:
        """Allocate as many single weights as a saved state has.

        Args:
            saved: tensors of this module by name.
        """
        if self.backend == "blockdiag+csr":
            super().make_room(saved)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        errors: list[str] = rest[-1]
        for name, mine in (("group_of_in", self.group_of_in), ("group_of_out", self.group_of_out)):
            given = state_dict.get(f"{prefix}{name}")
            fixed = self.grouping != "random" and given is not None and given.shape == mine.shape
            if fixed and not torch.equal(given.to(mine.device), mine):  # the forward pass relies on their order
                errors.append(
                    f"{prefix}{name} is not that of grouping {self.grouping!r}, which this layer was built with"
                )
        given = state_dict.get(f"{prefix}inputs")
        fixed = self.is_diagonal and given is not None and given.shape == self.inputs.shape
        if fixed and not torch.equal(given.to(self.inputs.device), self.inputs):
            errors.append(f"{prefix}inputs joins groups; this layer was built without weights between them")
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._replan()
        if not self._stores(self.to_dense()[1]):
            errors.append(f"{prefix}weight has connections that are none of granularity {self.granularity!r}")

    def _stores(self, mask: Tensor) -> bool:
        """Return whether units of a group read the same inputs, and whole groups with granularity ``block``."""
        if self.granularity == "edge":
            return True
        reads = mask[group_units(self.group_of_out, self.groups)]  # (G, n, in_features)
        same = bool((reads == reads[:, :1]).all())
        if self.granularity == "block":
            blocks = reads[:, 0][:, group_units(self.group_of_in, self.groups)]  # (G, G, m)
            same = same and bool((blocks == blocks[..., :1]).all())
        return same

    def _within(self) -> Tensor:
        """Return true for weights within a group (out_features, in_features)."""
        return self.group_of_out[:, None] == self.group_of_in[None, :]

    # conversion

    def to_dense(self) -> tuple[Tensor, Tensor]:
        """Return the weight, zero where there is no connection, and the mask (out_features, in_features)."""
        if self.backend == "masked":
            return self.weight * self.mask, self.mask
        if self.backend == "packed":
            return from_packed(self.weight, self.inputs, self.group_of_out, self.in_features)
        blocks, within = from_block_diagonal(self.weight, self.group_of_out, self.group_of_in)
        row = torch.repeat_interleave(self.crow.diff())
        between = torch.zeros_like(within)
        between[row, self.col] = True
        return blocks.index_put((row, self.col), self.values), within | between

    @torch.no_grad()
    def from_dense(self, weight: Tensor, mask: Tensor) -> "GroupToGroupLinear":
        """Take the weights and the connections of a dense weight; the number of connections must be the layer's.

        Args:
            weight: dense weight (out_features, in_features).
            mask: true where a weight exists, bool (out_features, in_features), of the layer's granularity.

        Returns:
            The layer.

        Raises:
            ValueError: if a shape or type differs, or the layer cannot store the mask.
        """
        shape = (self.out_features, self.in_features)
        for name, value in {"weight": weight, "mask": mask}.items():
            if value.shape != shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}; it must be {shape}")
        if mask.dtype != torch.bool:
            raise ValueError(f"mask is {mask.dtype}; it must be bool, true where a weight exists")
        if not self._stores(mask):
            raise ValueError(
                f"mask has single weights, and the layer stores whole connections of granularity {self.granularity!r}"
            )
        if self.backend == "masked":
            self.mask.copy_(mask)
        elif self.backend == "packed":
            _, inputs = to_packed(weight, mask, self.group_of_out)
            if inputs.shape != self.inputs.shape or (self.is_diagonal and not torch.equal(inputs, self.inputs)):
                raise ValueError(
                    f"mask gives each group {inputs.size(1)} inputs; the layer stores {self.inputs.size(1)}"
                )
            self.inputs.copy_(inputs)
        else:
            pattern = csr_pattern(mask & ~self._within())
            if not bool(mask[self._within()].all()) or len(pattern.col) != len(self.col):
                raise ValueError(
                    f"mask has {len(pattern.col)} weights between groups; the layer stores {len(self.col)}, and all "
                    "weights within groups"
                )
            self.crow.copy_(pattern.crow)
            self.col.copy_(pattern.col)
        self._replan()
        self._store(weight * mask)
        return self

    @torch.no_grad()
    def _store(self, weight: Tensor) -> None:
        if self.backend == "masked":
            self.weight.copy_(weight)
        elif self.backend == "packed":
            units = group_units(self.group_of_out, self.groups)
            self.weight.copy_(weight[units[:, None, :], self.inputs[:, :, None]])
        else:
            self.weight.copy_(to_block_diagonal(weight, self.group_of_out, self.group_of_in))
            self.values.copy_(weight[torch.repeat_interleave(self.crow.diff()), self.col])

    # rewiring

    def dense_weight(self) -> Tensor:
        """Return the weight with zeros where there is no connection (out_features, in_features)."""
        return self.to_dense()[0]

    def connections(self) -> Tensor:
        """Return true where a connection exists: weights, inputs of a group (G, in_features), or groups (G, G)."""
        _, mask = self.to_dense()
        if self.granularity == "edge":
            return mask
        reads = mask[group_units(self.group_of_out, self.groups)[:, 0]]
        return reads if self.granularity == "column" else reads[:, group_units(self.group_of_in, self.groups)[:, 0]]

    def pool(self, score: Tensor, kind: Literal["norm", "mean"]) -> Tensor:
        """Return the score of each connection from those of its weights.

        Args:
            score: score of each weight (out_features, in_features).
            kind: ``norm`` for the root of the sum of squares, ``mean`` for the mean.
        """
        if self.granularity == "edge":
            return score
        grouped = score[group_units(self.group_of_out, self.groups)].transpose(1, 2)  # (G, in_features, n)
        if self.granularity == "block":
            grouped = grouped[:, group_units(self.group_of_in, self.groups)].flatten(2)  # (G, G, m n)
        return grouped.mean(-1) if kind == "mean" else torch.linalg.vector_norm(grouped, dim=-1)

    def budgets(self, preserve: Preserve) -> Tensor:
        """Return the budget of each connection.

        Args:
            preserve: ``group_pair`` for one budget for each ordered pair of groups; ``total`` for one budget, or one
                for each target group where the granularity is ``column`` or ``block``, whose groups have equally many
                inputs.

        Raises:
            ValueError: if the layer cannot be rewired under such budgets.
        """
        if self.granularity == "block" and preserve == "group_pair":
            raise ValueError("granularity is 'block', one connection for each pair of groups; use preserve='total'")
        if self.backend == "blockdiag+csr" and preserve == "total":
            raise ValueError("backend 'blockdiag+csr' keeps all weights within groups; use preserve='group_pair'")
        target = self.group_of_out if self.granularity == "edge" else torch.arange(self.groups).to(self.group_of_out)
        if preserve == "group_pair":
            return target[:, None] * self.groups + self.group_of_in
        row = torch.zeros_like(target) if self.granularity == "edge" else target
        return row[:, None].expand(-1, self.groups if self.granularity == "block" else self.in_features).contiguous()

    @torch.no_grad()
    def rewire(self, connections: Tensor) -> dict[str, Tensor]:
        """Replace connections: those that stay keep their weights, new ones start from zero.

        Args:
            connections: true where a connection exists afterwards, in the shape of :meth:`connections`.

        Returns:
            Name of a parameter -> where each entry along its leading axes was before, -1 for new ones.
        """
        before = self.connections()
        if connections.shape != before.shape or connections.dtype != torch.bool:
            raise ValueError(
                f"connections are {connections.dtype} {tuple(connections.shape)}; they must be bool "
                f"{tuple(before.shape)}"
            )
        if self.granularity == "block":
            before, connections = (value[:, self.group_of_in] for value in (before, connections))
        if self.backend == "masked":
            old = self.mask.clone()
            self.mask.copy_(connections if self.granularity == "edge" else connections[self.group_of_out])
            self.weight.masked_fill_(~(old & self.mask), 0.0)
            return {"weight": kept_entries(old, self.mask)}
        packed = self.backend == "packed"
        found = self._rewire_packed(before, connections) if packed else self._rewire_csr(connections)
        self._replan()
        return found

    def _rewire_packed(self, before: Tensor, after: Tensor) -> dict[str, Tensor]:
        gone = ~after.gather(1, self.inputs)  # (G, K)
        come = after & ~before
        if not torch.equal(gone.sum(1), come.sum(1)) or (self.is_diagonal and bool(gone.any())):
            raise ValueError("connections changes the number of inputs of a group; a packed layer keeps it")
        self.inputs[gone] = come.nonzero()[:, 1]  # both group by group
        self.weight[gone] = 0.0
        places = torch.arange(gone.numel(), device=gone.device).view(gone.shape)
        return {"weight": places.masked_fill(gone, -1)}

    def _rewire_csr(self, after: Tensor) -> dict[str, Tensor]:
        within = self._within()
        pattern = csr_pattern(after & ~within)
        if not bool(after[within].all()) or len(pattern.col) != len(self.col):
            raise ValueError("connections must keep all weights within groups, and the number of those between groups")
        place = torch.full(after.shape, -1, device=after.device)
        place[torch.repeat_interleave(self.crow.diff()), self.col] = torch.arange(len(self.col), device=after.device)
        source = place[torch.repeat_interleave(pattern.crow.diff()), pattern.col]
        self.values.copy_(torch.where(source >= 0, self.values[source.clamp(min=0)], 0.0))
        self.crow.copy_(pattern.crow)
        self.col.copy_(pattern.col)
        return {"values": source}
