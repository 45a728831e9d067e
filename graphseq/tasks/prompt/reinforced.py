"""Prompts for a frozen graph encoder, placed by a policy that reinforcement learning trains."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, Literal, Unpack

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from graphseq.core.batches import sample_positions
from graphseq.core.errors import DataError, UnsupportedStrategyError
from graphseq.core.protocols import CountedClasses
from graphseq.nn import EmbeddedGraphs, HybridPolicy, PolicyEnsemble, PoolCritic, ProximalPolicyLoss
from graphseq.nn.prompt.rollouts import RewardScale, Rollout, place_prompts, roll_out_prompts
from graphseq.tasks.optimizers import step_schedulers
from graphseq.tasks.prompt.base import PromptOptions, PromptTask
from graphseq.tasks.prompt.shares import overlapping_shares

__all__ = ["ReinforcedPromptTuning"]

Choice = Literal["learned", "random"]
_HEAD_BATCH = 128  # graphs of one step of the head, as released


class ReinforcedPromptTuning(PromptTask):
    r"""Adapt a frozen graph encoder: a policy adds prompts to node features, rewarded by the decrease of the loss.

    An episode is a graph. In each of as many steps as it has nodes, the policy sees the node vectors of the prompted
    graph, chooses a node and a vector, which is added to the prompt of that node:

    .. math:: H_t = f(A, X + P_t), \qquad P_t = P_{t-1} + e_{a_t} z_t^\top, \qquad
        r_t = \ell(P_{t-1}) - \ell(P_t)

    Procedure, for each batch of training graphs; with few labels a batch holds all of them, as published:
        1. the graphs are cut into overlapping shares, one for each member of the ensemble; 2. for each member: roll out
        episodes on a few graphs of its share, in random order; scale rewards; compute
           advantages; take several passes over the transitions in minibatches, minimising :class:`ProximalPolicyLoss`
           of this member and of the critic, which all members share; stop early when the policy has moved far;
        3. the joint policy places prompts on all graphs of the batch, and the head takes a step, or ``head_steps``, for
        each 128 of them.

    Logs:
        ``train/loss`` of the head; ``train/return`` (mean decrease of the loss of a graph by an episode),
        ``train/value_loss``, ``train/entropy``, ``train/node_divergence``, ``train/prompt_divergence``,
        ``train/log_std``; for validation and test those of :class:`PromptTask`, with prompts of the joint policy.

    Source: arXiv 2408.03195. Differs from its released code: buffers of the encoder stay as they are while the head is
    trained; missing labels are left out of the reward; rewards are divided by their deviation, not centred
    (``reward_scaling="zscore"`` centres them); no transition is left out of a pass, and few transitions make one small
    minibatch; the critic's moments are kept once; the critic pools (:class:`graphseq.nn.FlattenCritic` is the published
    one); the link penalty, see :class:`ProximalPolicyLoss`; evaluations draw from a generator with a fixed seed.

    Args:
        model: pre-trained encoder such as ``Pretrained(path, part="model.encoder")``; it is frozen here in any case.
        num_outputs: number of classes or labels, at least 2 for multiclass.
        num_members: number of policies in the ensemble, at least 1.
        overlap: share of the graphs of each other member that a member also trains on, in [0, 1].
        max_prompt: largest entry of the mean of a prompt, above 0.
        node_choice: whether the choice of nodes is learned or, as a control, uniform.
        prompt_choice: whether prompts are learned or, as a control, drawn uniformly.
        clamp_prompts: whether the entries of a sampled prompt are limited to ``max_prompt``.
        policy_loss: loss of policies and critic; default :class:`ProximalPolicyLoss` with its defaults.
        critic: module from node vectors (N, node_channels) and ``ptr`` to values (G,); default :class:`PoolCritic`.
        head_passes: number of passes over the batch that train the head after each training of the policies, each with
            newly placed prompts; 0 leaves the head as it is.
        head_steps: number of steps that the head takes on the graphs of a pass before prompts are placed anew, at least
            1; as published 1. With few epochs, more steps give the head as much training as other methods, at little
            cost.
        head_dropout: whether dropout of the encoder is on while the head is trained.
        initial_log_std: logarithm of the standard deviation of prompts at the start.
        final_log_std: value that the logarithm of the deviation moves towards, linearly over the batches.
        anneal_epochs: number of epochs over which the deviation and the weight of the entropy, towards 0, are annealed;
            None for ``max_epochs`` of the trainer.
        discount: discount factor of rewards, in [0, 1].
        trace_decay: decay :math:`\lambda` of generalised advantage estimation, in [0, 1].
        rollout_batch_size: number of graphs that are rolled out together, at least 1.
        minibatch_size: smallest number of transitions in one step of the policies, if there are enough; a step takes
            fewer than twice as many, so that none is left out.
        num_passes: largest number of passes over the transitions of a rollout, at least 1.
        max_node_divergence: mean divergence of the choice of nodes above which no further pass is taken.
        max_prompt_divergence: mean divergence of the prompts above which no further pass is taken.
        max_grad_norm: largest norm of the gradient of a policy and the critic together, above 0.
        reward_scaling: ``std``, ``zscore`` or ``none``, see :class:`graphseq.nn.RewardScale`.
        reward_clip: largest absolute reward before scaling; None for no limit. Clipped rewards do not sum to the
            decrease of the loss.
        max_steps: largest number of steps of an episode, at least 1; None for the number of nodes.
        evaluation: whether the joint policy draws nodes, ``sample``, or takes the ``most_likely`` one in validation,
            test and prediction, and while the head is trained.
        evaluation_seed: seed of the nodes that are drawn in validation, test and prediction, the same in each batch.
        policy_optimizer: callable from parameters of policies and critic to an optimiser; default a fused
            ``torch.optim.Adam(lr=5e-4, eps=1e-5)``. ``optimizer`` is that of the head; ``scheduler`` is for both.
        options: arguments of :class:`PromptTask`: kind of target, head and its optimiser.

    Raises:
        TypeError: if the encoder lacks ``embed`` or ``encode_embedded``.
        ValueError: if an argument is out of range, or there is nothing to train.
        DataError: in a run, if a class has no training graph, a training batch has no label, or features do not fit
            the encoder.
        UnsupportedStrategyError: if there are several processes.

    Example:
        >>> from graphseq.models import GraphEncoder
        >>> task = ReinforcedPromptTuning(GraphEncoder(3, 8), num_outputs=1, num_members=1)
        >>> graph = {"x": torch.ones(4, 3), "edge_index": torch.tensor([[0], [1]]), "y": torch.tensor([[1.0]])}
        >>> task(graph).shape
        torch.Size([1, 1])
    """

    def __init__(
        self,
        model: nn.Module,
        num_outputs: int,
        *,
        num_members: int = 3,
        overlap: float = 0.2,
        max_prompt: float = 0.1,
        node_choice: Choice = "learned",
        prompt_choice: Choice = "learned",
        clamp_prompts: bool = False,
        policy_loss: nn.Module | None = None,
        critic: nn.Module | None = None,
        head_passes: int = 1,
        head_steps: int = 1,
        head_dropout: bool = True,
        initial_log_std: float = 0.0,
        final_log_std: float = -5.0,
        anneal_epochs: int | None = None,
        discount: float = 0.99,
        trace_decay: float = 0.95,
        rollout_batch_size: int = 8,
        minibatch_size: int = 64,
        num_passes: int = 10,
        max_node_divergence: float = 1e-3,
        max_prompt_divergence: float = 0.1,
        max_grad_norm: float = 0.5,
        reward_scaling: Literal["std", "zscore", "none"] = "std",
        reward_clip: float | None = None,
        max_steps: int | None = None,
        evaluation: Literal["sample", "most_likely"] = "sample",
        evaluation_seed: int = 0,
        policy_optimizer: OptimizerCallable | None = None,
        **options: Unpack[PromptOptions],
    ) -> None:
        super().__init__(model, num_outputs, **options)
        self.automatic_optimization = False
        counts = {"num_members": num_members, "rollout_batch_size": rollout_batch_size}
        counts |= {"minibatch_size": minibatch_size, "num_passes": num_passes, "head_steps": head_steps}
        counts |= {name: value for name, value in (("max_steps", max_steps), ("anneal_epochs", anneal_epochs))
                   if value is not None}  # fmt: skip
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} is {count}; it must be at least 1")
        if head_passes < 0:
            raise ValueError(f"head_passes is {head_passes}; it must be at least 0")
        for name, share in (("overlap", overlap), ("discount", discount), ("trace_decay", trace_decay)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}; it must be in [0, 1]")
        if not max_grad_norm > 0 or (reward_clip is not None and not reward_clip > 0):
            raise ValueError(f"max_grad_norm is {max_grad_norm}, reward_clip {reward_clip}; both must be above 0")
        if evaluation not in ("sample", "most_likely"):
            raise ValueError(f"evaluation is {evaluation!r}; it must be 'sample' or 'most_likely'")
        RewardScale(reward_scaling)
        encoder = self.encoder
        self.ensemble = PolicyEnsemble(
            [
                HybridPolicy(
                    encoder.node_channels,
                    encoder.prompt_channels,
                    max_prompt,
                    node_choice=node_choice,
                    prompt_choice=prompt_choice,
                    clamp=clamp_prompts,
                )
                for _ in range(num_members)
            ]
        )
        self.critic = PoolCritic(encoder.node_channels) if critic is None else critic
        self.policy_loss = ProximalPolicyLoss() if policy_loss is None else policy_loss
        self.overlap = overlap
        self.head_passes, self.head_steps, self.head_dropout = head_passes, head_steps, head_dropout
        self.initial_log_std, self.final_log_std, self.anneal_epochs = initial_log_std, final_log_std, anneal_epochs
        self.discount, self.trace_decay = discount, trace_decay
        self.rollout_batch_size, self.minibatch_size, self.num_passes = rollout_batch_size, minibatch_size, num_passes
        self.max_node_divergence, self.max_prompt_divergence = max_node_divergence, max_prompt_divergence
        self.max_grad_norm = max_grad_norm
        self.reward_scaling: Literal["std", "zscore", "none"] = reward_scaling
        self.reward_clip, self.max_steps = reward_clip, max_steps
        self.evaluation, self.evaluation_seed = evaluation, evaluation_seed
        self.policy_optimizer = policy_optimizer
        self.learns = any(True for _ in self.ensemble.parameters())

    def setup(self, stage: str) -> None:
        """Build the metrics; refuse several processes."""
        super().setup(stage)
        if self.trainer.world_size > 1:
            raise UnsupportedStrategyError(
                f"{type(self).__name__} runs in one process, whose episodes depend on one another; use devices=1"
            )

    def on_train_start(self) -> None:
        """Check that each class has a training graph, and that the length of the schedules is known."""
        super().on_train_start()
        self.model.eval()
        data = self.datamodule
        if self.target == "multiclass" and isinstance(data, CountedClasses):
            without = [number for number, weight in enumerate(data.class_weights) if not weight]
            if without:
                raise DataError(
                    f"class {without[0]} has no training graph; give shots of every class, or leave the class out"
                )
        self._progress(0)

    # optimisers

    def configure_optimizers(self) -> Any:
        """Return the optimiser of policies and critic, and that of the head, where they are trained."""
        found = []
        if self.learns:
            parameters = [*self.ensemble.parameters(), *self.critic.parameters()]
            build = self.policy_optimizer or functools.partial(torch.optim.Adam, lr=5e-4, eps=1e-5, fused=True)
            found.append(build(parameters))
        if self.head_passes:
            found.append(self.make_optimizer([each for each in self.head.parameters() if each.requires_grad]))
        if not found:
            raise ValueError("head_passes is 0, and nodes and prompts are random; there is nothing to train")
        schedulers = [self.make_scheduler(optimizer) for optimizer in found]
        return found, [scheduler for scheduler in schedulers if scheduler is not None]

    def _progress(self, batch_idx: int) -> float:
        """Share of the training that is over, from 0 to below 1."""
        total = self.anneal_epochs or self.trainer.max_epochs
        if total is None or total < 1:
            raise ValueError(
                f"max_epochs of the trainer is {total}; give it, or anneal_epochs, to anneal the deviation"
            )
        return min((self.current_epoch + batch_idx / self.trainer.num_training_batches) / total, 1.0)

    # training

    def training_step(self, batch: object, batch_idx: int) -> None:  # type: ignore[override]  # steps by hand
        """Train the policies on episodes of the graphs of a batch, then the head on the prompted graphs."""
        graphs, target, positions = self._labelled(batch)
        if len(graphs):
            if self.learns:
                self._train_policies(graphs, target, positions, batch_idx)
            self._train_head(graphs, target, batch_idx)
        step_schedulers(self, self.scheduler_interval, self.monitor)

    def on_train_epoch_end(self) -> None:
        """Step schedulers that watch a metric of validation, and raise if a loss of this epoch was not finite."""
        super().on_train_epoch_end()
        step_schedulers(self, self.scheduler_interval, self.monitor, epoch_end=True)

    def _labelled(self, batch: object) -> tuple[EmbeddedGraphs, Tensor, Tensor]:
        """Return the graphs of a batch that have a label, with targets and with positions in the data set."""
        graphs = EmbeddedGraphs.from_batch(self.encoder, batch)
        target, known = self.targets(batch, len(graphs))
        chosen = known.nonzero().squeeze(1).cpu()
        try:
            positions = sample_positions(batch).cpu()
        except DataError:  # a batch of a loader of one's own: shares follow the order in the batch
            positions = torch.arange(len(graphs))
        if not len(chosen) and self.trainer.num_training_batches == 1:
            raise DataError(f"none of the {len(graphs)} training graphs has a label; there is nothing to learn from")
        return graphs.select(chosen), target[chosen.to(target.device)], positions[chosen]

    def _train_policies(self, graphs: EmbeddedGraphs, target: Tensor, positions: Tensor, batch_idx: int) -> None:
        progress = self._progress(batch_idx)
        log_std = self.initial_log_std + (self.final_log_std - self.initial_log_std) * progress
        scale = RewardScale(self.reward_scaling)
        decreases = []
        logged: list[dict[str, Tensor]] = []
        self.head.eval()
        for member, share in enumerate(overlapping_shares(positions, len(self.ensemble), self.overlap)):
            for chosen in share[torch.randperm(len(share))].split(self.rollout_batch_size):
                episodes = graphs.select(chosen)
                order = episodes.by_size()
                episodes = episodes.select(order)
                if not episodes.num_nodes.any():
                    continue
                labels = target[chosen[order].to(target.device)]
                rollout = roll_out_prompts(
                    self.ensemble[member],
                    episodes,
                    self.encoder,
                    lambda vector, labels=labels: self.graph_losses(vector, labels[: len(vector)]),  # type: ignore[misc]
                    log_std,
                    max_steps=self.max_steps,
                )
                decreases.append(rollout.loss - rollout.final_loss)
                logged.append(self._update(member, rollout, scale, log_std, 1 - progress, batch_idx))
        self.head.train(self.training)
        if logged:
            found = {f"train/{name}": torch.stack([each[name] for each in logged]).mean() for name in logged[0]}
            found |= {"train/return": torch.cat(decreases).mean(), "train/log_std": torch.tensor(log_std)}
            self.log_dict(found, batch_size=len(graphs), on_step=False, on_epoch=True)

    def _update(
        self, member: int, rollout: Rollout, scale: RewardScale, log_std: float, entropy_share: float, batch_idx: int
    ) -> dict[str, Tensor]:
        """Take passes over the transitions of a rollout; return means over the minibatches."""
        taken = rollout.transitions
        reward = rollout.reward
        if self.reward_clip is not None:
            reward = reward.clamp(-self.reward_clip, self.reward_clip)
        reward = scale(reward)
        with torch.no_grad():
            value = self.critic(taken.h, taken.ptr)
        advantage = rollout.advantages(reward, value, self.discount, self.trace_decay)
        returns = advantage + value
        if len(taken) > 1:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        optimizer = self._optimizers()[0]
        trained = [*self.ensemble[member].parameters(), *self.critic.parameters()]
        logged = []
        for _ in range(self.num_passes):
            divergences = []
            # as many minibatches as full ones would be, with the rest spread over them
            for chosen in torch.randperm(len(taken)).tensor_split(max(1, len(taken) // self.minibatch_size)):
                rows = int(rollout.num_nodes[chosen.numpy()].sum())
                index = chosen.to(advantage.device)
                losses = self.policy_loss(
                    self.ensemble,
                    member,
                    self.critic,
                    taken.select(index, rows),
                    advantage[index],
                    returns[index],
                    log_std,
                    entropy_share,
                )
                self._watch(losses.loss, batch_idx)
                optimizer.zero_grad()
                self.manual_backward(losses.loss)
                nn.utils.clip_grad_norm_(trained, self.max_grad_norm * self._gradient_scale())
                optimizer.step()
                divergences.append(torch.stack([losses.node_divergence, losses.prompt_divergence]))
                logged.append(torch.stack([losses.value_loss, losses.entropy, *divergences[-1]]))
            moved = torch.stack(divergences).mean(0).tolist()  # decides on the next pass, so it waits for the device
            if moved[0] > self.max_node_divergence or moved[1] > self.max_prompt_divergence:
                break
        names = ("value_loss", "entropy", "node_divergence", "prompt_divergence")
        return dict(zip(names, torch.stack(logged).mean(0), strict=True))

    def _train_head(self, graphs: EmbeddedGraphs, target: Tensor, batch_idx: int) -> None:
        for _ in range(self.head_passes):
            for chosen in torch.arange(len(graphs)).split(_HEAD_BATCH):
                part = graphs.select(chosen)
                order = part.by_size()
                part = part.select(order)
                prompt = place_prompts(
                    self.ensemble,
                    part,
                    self.encoder,
                    max_steps=self.max_steps,
                    most_likely=self.evaluation == "most_likely",
                )
                with torch.no_grad(), _dropout(self.model) if self.head_dropout else contextlib.nullcontext():
                    vector, _ = part.encode(self.encoder, prompt)
                labels = target[chosen[order].to(target.device)]
                optimizer = self._optimizers()[-1]
                for _ in range(self.head_steps):
                    step = self.target_kind.step(self.head(vector), labels, self.head)
                    optimizer.zero_grad()
                    self.manual_backward(self.total_loss(step, batch_idx))
                    optimizer.step()

    def _gradient_scale(self) -> float:
        """Return the factor of gradients under ``precision="16-mixed"``, which the optimiser takes off in its step."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)  # of that precision alone
        return scaler.get_scale() if isinstance(scaler, torch.amp.GradScaler) else 1.0

    def _optimizers(self) -> list[Any]:
        found = self.optimizers()
        return found if isinstance(found, list) else [found]

    # evaluation

    def prompts(self, batch: object) -> tuple[EmbeddedGraphs, Tensor, Tensor]:
        """Return the graphs of a batch from the largest to the smallest, their prompts, and their order.

        Args:
            batch: PyG batch or dictionary with ``x`` and ``edge_index``; labels are not used.

        Returns:
            Packed graphs, prompts (N, D) of their nodes, and the number in the batch of each graph, int64 (G,).
        """
        graphs = EmbeddedGraphs.from_batch(self.encoder, batch)
        order = graphs.by_size()
        graphs = graphs.select(order)
        prompt = place_prompts(
            self.ensemble,
            graphs,
            self.encoder,
            max_steps=self.max_steps,
            most_likely=self.evaluation == "most_likely",
            generator=torch.Generator(graphs.h.device).manual_seed(self.evaluation_seed),
        )
        return graphs, prompt, order.to(graphs.h.device)


@contextlib.contextmanager
def _dropout(encoder: nn.Module) -> Iterator[None]:
    """Turn dropout on; modules with buffers, such as norms with running statistics, stay in evaluation mode."""
    modes = {module: module.training for module in encoder.modules()}
    for module in modes:
        module.training = next(module.buffers(recurse=False), None) is None
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
