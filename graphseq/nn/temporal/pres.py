"""PRES: prediction-correction of node memories.

Eq. 7 (prediction) and Eq. 9 (running sums) stand in ``graphseq.ops.moments.plain``; the correction is
:meth:`PRESCorrector.forward`.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.ops.moments import RunningSums, extrapolate, mixture, moments, track

__all__ = ["PRESCorrector"]

Rate = Literal["update", "time", "event"]
Estimator = Literal["ratio", "mean"]


class PRESCorrector(Recorded, nn.Module):
    r"""Fusion of the memory computed by a network with a memory extrapolated from its earlier changes.

    Events of one batch that touch the same node all start from the same old memory, so the memory computed from them,
    the *measured* one :math:`s_i`, is noisy. It is pulled towards a prediction (Eq. 7) by a learnable gate:

    .. math::
        \hat s_i = s_i^{prev} + \tau_i\, \delta_i , \qquad
        \bar s_i = \gamma\, s_i + (1 - \gamma)\, \hat s_i , \qquad \gamma = \mathrm{sigmoid}(g)

    The rate of change :math:`\delta_i` is a Gaussian mixture with one component for each type of event. The type of
    an event is known, so the moments are running sums (Eq. 9), over the updates k of node i in component j:

    .. math::
        r_k = \frac{\bar s_k - s^{prev}_k}{\tau_k} , \qquad
        \mu_j = \frac{\xi_j}{w_j} = \frac{\sum_k w_k r_k}{\sum_k w_k} , \qquad
        \Sigma_j = \frac{\psi_j}{w_j} - \mu_j^2 = \frac{\sum_k w_k r_k^2}{\sum_k w_k} - \mu_j^2 , \qquad
        \alpha_j = \frac{n_j}{\sum_l n_l}

    ============= ============================================================================================
    ``rate``      the step :math:`\tau`
    ============= ============================================================================================
    ``update``    1
    ``time``      elapsed time / ``time_scale``, as Eq. 7 has it; predictions clip it to ``step_max``
    ``event``     number of pending events of the node
    ============= ============================================================================================

    The weight :math:`w_k` is 1 with ``estimator="mean"``, as Eq. 9 has it, and :math:`\tau_k` with ``"ratio"``, which
    makes :math:`\mu` the sum of changes over the sum of steps: its variance stays finite when gaps go to 0. An update
    with pending events of several types counts for each in proportion, and so is its prediction mixed.

    Beyond the paper: ``decay`` multiplies the sums of a node by a factor at each update, so that they follow a changing
    rate; ``min_events`` and ``min_updates`` restrict the correction to nodes with at least that many
    pending events and that many tracked updates.

    Gradients reach the measured memory and the gate; everything else is constant. Only nodes with pending events are
    corrected, and only those that were tracked before; all others keep the measured memory bit for bit. The running
    sums are updated in training only, unless ``update_in_eval`` is set.

    Source: arXiv 2402.04284, Eq. 7 and 9, Algorithm 2. Differs from it: the observed change is corrected minus
    previous memory (Algorithm 2 prints corrected minus measured, which starts backwards); the default step is 1 and
    the default estimator the ratio; types are those of events that happened, negatives are never tracked.

    Args:
        num_nodes: number of nodes N; None if :meth:`materialize` gives it later.
        memory_dim: width of the memory; None if :meth:`materialize` gives it later.
        num_components: number of event types C, at least 1.
        gamma_init: initial weight of the measured memory; in (0, 1), or in [0, 1] if it is not learned. 1 turns the
            correction off.
        gamma_learnable: whether the gate is a parameter; keep it out of weight decay, which pulls it to 0.5.
        rate: unit of a step :math:`\tau`, see the table.
        estimator: weight of an update in the moments: its step (``ratio``) or 1 (``mean``).
        time_scale: time that counts as one step, above 0, such as the mean gap between events of a node; None for the
            value of :meth:`materialize`, or 1.
        step_min: lower bound of observed steps, above 0, which keeps rates finite at equal times.
        step_max: upper bound of predicted time steps, so that the prediction after a long gap stays bounded.
        sample_prediction: whether training draws one rate of the mixture instead of its mean; needs
            ``track_variance``.
        track_variance: whether to keep sums of squares, which only sampling and :meth:`moments` need; this doubles the
            memory used.
        update_in_eval: whether the running sums are also updated in evaluation.
        persist: whether the network stores the corrected memory; otherwise it stores the measured one, and the
            correction only serves the embeddings. The network reads this setting, the corrector does not.
        decay: factor of a node's sums at each of its updates, in (0, 1].
        min_events: smallest number of pending events of a node that is corrected, at least 1; above 1, ``num_events``
            is required.
        min_updates: smallest number of tracked updates, discounted by ``decay``, of a node that is corrected, at least
            1.

    Shape:
        n_id (U,), previous (U, D), measured (U, D), pending (U,) -> corrected (U, D)

    Raises:
        ValueError: if an argument is out of range, or sizes are missing when they are needed.

    Example:
        >>> corrector = PRESCorrector(num_nodes=3, memory_dim=2, gamma_init=0.5, gamma_learnable=False)
        >>> node, seen = torch.tensor([1]), torch.tensor([True])
        >>> start, moved = torch.zeros(1, 2), torch.ones(1, 2)
        >>> corrector(node, start, moved, seen)  # never tracked: nothing to predict from
        tensor([[1., 1.]])
        >>> corrector.update(node, start, moved, seen)
        >>> corrector(node, moved, moved, seen)  # 1 was measured, 1 + 1 expected
        tensor([[1.5000, 1.5000]])
    """

    gate: Tensor
    time_scale: Tensor
    count: Tensor
    weight_sum: Tensor
    rate_sum: Tensor
    square_sum: Tensor | None

    def __init__(
        self,
        num_nodes: int | None = None,
        memory_dim: int | None = None,
        *,
        num_components: int = 1,
        gamma_init: float = 0.9,
        gamma_learnable: bool = True,
        rate: Rate = "update",
        estimator: Estimator = "ratio",
        time_scale: float | None = None,
        step_min: float = 0.05,
        step_max: float = 5.0,
        sample_prediction: bool = False,
        track_variance: bool = False,
        update_in_eval: bool = False,
        persist: bool = True,
        decay: float = 1.0,
        min_events: int = 1,
        min_updates: int = 1,
    ) -> None:
        super().__init__()
        if not 0 < decay <= 1 or min_events < 1 or min_updates < 1:
            raise ValueError(
                f"PRESCorrector(decay={decay}, min_events={min_events}, min_updates={min_updates}): give a decay in "
                "(0, 1] and at least 1 and 1"
            )
        if rate not in get_args(Rate):
            raise ValueError(f"PRESCorrector(rate={rate!r}): accepted are {', '.join(get_args(Rate))}")
        if estimator not in get_args(Estimator):
            raise ValueError(f"PRESCorrector(estimator={estimator!r}): accepted are {', '.join(get_args(Estimator))}")
        if num_components < 1:
            raise ValueError(f"PRESCorrector(num_components={num_components}): give at least 1")
        if not 0 <= gamma_init <= 1 or (gamma_learnable and gamma_init in (0, 1)):
            raise ValueError(
                f"PRESCorrector(gamma_init={gamma_init}): give a weight between 0 and 1; the ends themselves have no "
                "gradient and need gamma_learnable=False"
            )
        if not step_min > 0 or not step_max >= step_min:
            raise ValueError(f"PRESCorrector(step_min={step_min}, step_max={step_max}): give 0 < step_min <= step_max")
        if sample_prediction and not track_variance:
            raise ValueError("PRESCorrector(sample_prediction=True) draws from the variance: set track_variance=True")
        self.num_nodes, self.memory_dim, self.num_components = num_nodes, memory_dim, num_components
        self.gamma_init, self.gamma_learnable = gamma_init, gamma_learnable
        self.rate, self.estimator = rate, estimator
        self.step_min, self.step_max = step_min, step_max
        self.sample_prediction, self.track_variance = sample_prediction, track_variance
        self.update_in_eval, self.persist = update_in_eval, persist
        self.decay, self.min_events, self.min_updates = decay, min_events, min_updates
        if gamma_learnable:
            self.gate = nn.Parameter(torch.zeros(()))
        else:
            self.register_buffer("gate", torch.zeros(()))
        self.reset_parameters()
        self._own_time_scale = time_scale is not None
        self.register_buffer("time_scale", torch.ones((), dtype=torch.promote_types(self.gate.dtype, torch.float32)))
        self._set_time_scale(1.0 if time_scale is None else time_scale)
        for name in ("count", "weight_sum", "rate_sum", "square_sum"):
            self.register_buffer(name, None)
        if num_nodes is not None and memory_dim is not None:
            self.materialize(num_nodes, memory_dim)

    def reset_parameters(self) -> None:
        """Set the gate to ``gamma_init``."""
        with torch.no_grad():
            self.gate.fill_(torch.logit(torch.tensor(self.gamma_init, dtype=torch.float64)))

    def _set_time_scale(self, time_scale: float) -> None:
        if not 0 < time_scale < math.inf:
            raise ValueError(f"PRESCorrector(time_scale={time_scale}): give a time above 0")
        self.time_scale.fill_(time_scale)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # half precision would stop counting at 256 or 2048, and round the time scale
        names = ("time_scale", "count", "weight_sum", "rate_sum", "square_sum")
        known = {name: value for name in names if (value := getattr(self, name)) is not None}
        super()._apply(fn, recurse)
        for name, before in known.items():
            moved = getattr(self, name)
            if torch.finfo(moved.dtype).bits < 32:
                setattr(self, name, before.to(moved.device, torch.float32))
        return self

    def materialize(self, num_nodes: int, memory_dim: int, time_scale: float | None = None) -> None:
        """Create the running sums; the network that owns the corrector calls it once, in its constructor.

        Args:
            num_nodes: number of nodes N, at least 1.
            memory_dim: width of the memory, at least 1.
            time_scale: time that counts as one step; None keeps the current one; a time scale given to the constructor
                takes precedence.

        Raises:
            ValueError: if sizes differ from those given before, or are not positive.
        """
        given = {"num_nodes": (self.num_nodes, num_nodes), "memory_dim": (self.memory_dim, memory_dim)}
        for name, (before, now) in given.items():
            if now < 1:
                raise ValueError(f"PRESCorrector({name}={now}): give at least 1")
            if before not in (None, now):
                raise ValueError(
                    f"PRESCorrector was built with {name}={before} and its network has {now}: leave {name} out, the "
                    "network gives it"
                )
        if time_scale is not None and not self._own_time_scale:
            self._set_time_scale(time_scale)
        if self.count is not None:
            return
        self.num_nodes, self.memory_dim = num_nodes, memory_dim
        # half precision would stop counting at 256 or 2048
        kind = torch.promote_types(self.gate.dtype, torch.float32)
        cells = (num_nodes, self.num_components)
        self.count = torch.zeros(cells, dtype=kind, device=self.gate.device)
        self.weight_sum = torch.zeros_like(self.count)
        self.rate_sum = torch.zeros((*cells, memory_dim), dtype=kind, device=self.gate.device)
        if self.track_variance:
            self.square_sum = torch.zeros_like(self.rate_sum)

    def reset_state(self) -> None:
        """Reset the running sums; called together with the reset of the memory at the start of each epoch."""
        for running in (self.count, self.weight_sum, self.rate_sum, self.square_sum):
            if running is not None:
                running.zero_()

    @property
    def gamma(self) -> Tensor:
        """Weight of the measured memory, in [0, 1]; a scalar with gradient."""
        return self.gate.sigmoid()

    def moments(self, n_id: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return mean and variance of the rate of change of each component, 0 where none was observed.

        Args:
            n_id: node ids, int64 (U,).

        Shape:
            n_id (U,) -> mean (U, C, D), variance (U, C, D) or None without ``track_variance``
        """
        return moments(n_id, self._sums())

    def _sums(self) -> RunningSums:
        return RunningSums(self.count, self.weight_sum, self.rate_sum, self.square_sum)

    def predict(
        self,
        n_id: Tensor,
        previous: Tensor,
        *,
        elapsed: Tensor | None = None,
        num_events: Tensor | None = None,
        type_counts: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the extrapolated memories (Eq. 7), and for which nodes there were tracked changes.

        Args:
            n_id: node ids, int64 (U,).
            previous: memories of the nodes before the update.
            elapsed: time since the previous memory, in the unit of the stream; required for ``rate="time"``.
            num_events: number of pending events of each node; required for ``rate="event"``.
            type_counts: number of pending events of each type; None weights the components by their numbers of updates.
            generator: generator of the sampled rates, on the device of the memory; None for torch's own.

        Shape:
            n_id (U,), previous (U, D)[, elapsed (U,), num_events (U,), type_counts (U, C)] -> predicted (U, D), bool
            (U,)
        """
        self._check(n_id, previous, type_counts)
        step = self._step(n_id, elapsed, num_events)
        if self.rate == "time":
            step = step.clamp(0, self.step_max)
        if not (self.sample_prediction and self.training):
            return extrapolate(n_id, previous, step, type_counts, self._sums())
        share, known = mixture(n_id, type_counts, self._sums())
        return previous.detach() + step.unsqueeze(-1) * self._sample(n_id, share, generator), known

    def _sample(self, n_id: Tensor, share: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw one rate of each node from its mixture: (U,), (U, C) -> (U, D)."""
        mean, variance = self.moments(n_id)  # (U, C, D) each
        assert variance is not None  # the constructor saw to it
        # the first of independent exponential clocks with these rates: no host sync, unlike torch.multinomial
        first = (share / torch.empty_like(share).exponential_(generator=generator)).argmax(1)[:, None, None]
        mean, variance = (value.take_along_dim(first, 1).squeeze(1) for value in (mean, variance))  # (U, D) each
        return mean + variance.sqrt() * torch.empty_like(mean).normal_(generator=generator)

    def forward(
        self,
        n_id: Tensor,
        previous: Tensor,
        measured: Tensor,
        pending: Tensor,
        *,
        elapsed: Tensor | None = None,
        num_events: Tensor | None = None,
        type_counts: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the corrected memory; changes no state.

        Args:
            n_id: node ids, int64 (U,).
            previous: memories of the nodes before the update.
            measured: memories that the network computed, with gradient.
            pending: whether a node has pending events, bool.
            elapsed: time since the previous memory, in the unit of the stream; required for ``rate="time"``.
            num_events: number of pending events of each node; required for ``rate="event"`` and for ``min_events``
                above 1.
            type_counts: number of pending events of each type; None weights the components by their numbers of updates.
            generator: generator of the sampled rates, on the device of the memory; None for torch's own.
        """
        if measured.shape != previous.shape:
            raise ValueError(
                f"measured memory is {tuple(measured.shape)}, previous {tuple(previous.shape)}; they must be equal"
            )
        self._check_given(n_id, pending=pending, num_events=num_events)
        predicted, known = self.predict(
            n_id,
            previous,
            elapsed=elapsed,
            num_events=num_events,
            type_counts=type_counts,
            generator=generator,
        )
        corrected = pending & known
        if self.min_events > 1:
            if num_events is None:
                raise ValueError(f"PRESCorrector(min_events={self.min_events}) needs num_events, one per node")
            corrected = corrected & (num_events >= self.min_events)
        if self.min_updates > 1:
            corrected = corrected & (self.count[n_id].sum(1) >= self.min_updates)
        # s_bar = gamma s + (1 - gamma) s_hat where a node is corrected, s elsewhere
        trust = torch.where(corrected, self.gamma, 1.0).unsqueeze(-1)  # (U, 1)
        return torch.lerp(predicted.to(measured.dtype), measured, trust.to(measured.dtype))  # exact at weight 1

    @torch.no_grad()
    def update(
        self,
        n_id: Tensor,
        previous: Tensor,
        corrected: Tensor,
        pending: Tensor,
        *,
        elapsed: Tensor | None = None,
        num_events: Tensor | None = None,
        type_counts: Tensor | None = None,
    ) -> None:
        """Add observed changes to the running sums (Eq. 9); in evaluation only with ``update_in_eval``.

        Args:
            n_id: node ids, int64 (U,); a node that occurs twice is counted twice.
            previous: memories of the nodes before the update.
            corrected: memories of the nodes after the update.
            pending: whether a node had pending events, bool; other nodes are ignored.
            elapsed: time since the previous memory, in the unit of the stream; required for ``rate="time"``.
            num_events: number of pending events of each node; required for ``rate="event"``.
            type_counts: number of pending events of each type; required if there is more than one type.

        Raises:
            ValueError: if a required argument is missing.
        """
        if not self.training and not self.update_in_eval:
            return
        self._check(n_id, previous, type_counts)
        self._check_given(n_id, pending=pending)
        if corrected.shape != previous.shape:
            raise ValueError(
                f"corrected memory is {tuple(corrected.shape)}, previous {tuple(previous.shape)}; they must be equal"
            )
        if type_counts is None and self.num_components > 1:
            raise ValueError(
                f"PRESCorrector(num_components={self.num_components}) cannot tell which component changed: give "
                "type_counts, the number of pending events of each type"
            )
        kind = self.count.dtype
        step = self._step(n_id, elapsed, num_events).clamp(min=self.step_min)
        share = torch.ones(len(n_id), 1, dtype=kind, device=n_id.device)  # (U, C)
        if type_counts is not None:
            share = type_counts.to(kind) / type_counts.sum(1, keepdim=True).clamp(min=1)
        by_step = self.estimator == "ratio"
        sums = self._sums()
        track(n_id, previous, corrected, pending, step, share, sums, by_step=by_step, decay=self.decay)

    def _step(self, n_id: Tensor, elapsed: Tensor | None, num_events: Tensor | None) -> Tensor:
        if self.rate == "update":
            return self.count.new_ones(len(n_id))
        name, given = ("elapsed", elapsed) if self.rate == "time" else ("num_events", num_events)
        if given is None:
            raise ValueError(f"PRESCorrector(rate={self.rate!r}) measures its steps by {name}: give it, one per node")
        self._check_given(n_id, **{name: given})
        step = given.to(self.count.dtype)
        return step / self.time_scale if self.rate == "time" else step

    def _check(self, n_id: Tensor, previous: Tensor, type_counts: Tensor | None) -> None:
        if self.count is None:
            raise ValueError(
                "PRESCorrector has no sizes yet: give num_nodes and memory_dim, or hand it to a network, which calls "
                "materialize"
            )
        if n_id.dim() != 1 or n_id.dtype != torch.int64:
            raise ValueError(f"n_id is {n_id.dtype} {tuple(n_id.shape)}; node ids int64 (U,) are needed")
        if previous.shape != (len(n_id), self.memory_dim):
            raise ValueError(
                f"memory is {tuple(previous.shape)} for {len(n_id)} nodes of a corrector with memory_dim="
                f"{self.memory_dim}; it must be ({len(n_id)}, {self.memory_dim})"
            )
        if type_counts is not None and type_counts.shape != (len(n_id), self.num_components):
            raise ValueError(
                f"type_counts is {tuple(type_counts.shape)}; with {len(n_id)} nodes and num_components="
                f"{self.num_components} it must be ({len(n_id)}, {self.num_components})"
            )

    def _check_given(self, n_id: Tensor, **columns: Tensor | None) -> None:
        for name, value in columns.items():
            if value is not None and value.shape != n_id.shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}; ({len(n_id)},) is needed, one for each node")
            if name == "pending" and value is not None and value.dtype != torch.bool:
                raise ValueError(f"pending is {value.dtype}; it must be bool")

    def extra_repr(self) -> str:
        """Return the main arguments, for ``repr``."""
        return (
            f"num_nodes={self.num_nodes}, memory_dim={self.memory_dim}, num_components={self.num_components}, "
            f"rate={self.rate!r}, estimator={self.estimator!r}, gamma_init={self.gamma_init}"
        )


@contextlib.contextmanager
def moments_tracked(network: nn.Module) -> Iterator[None]:
    """Context in which the moments of all correctors in a network are also updated in evaluation."""
    correctors = [module for module in network.modules() if isinstance(module, PRESCorrector)]
    before = [corrector.update_in_eval for corrector in correctors]
    try:
        for corrector in correctors:
            corrector.update_in_eval = True
        yield
    finally:
        for corrector, setting in zip(correctors, before, strict=True):
            corrector.update_in_eval = setting
