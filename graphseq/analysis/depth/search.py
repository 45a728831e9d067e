"""Search for paths of high reward: a tree search by upper confidence bounds, and random search as its control."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from graphseq.analysis.depth.path import LayerPath, PathAction, RepeatLayers, SkipLayers

__all__ = ["PathSearchResult", "PathTreeSearch", "RandomPathSearch"]

Reward = Callable[[LayerPath], float]


@dataclass(frozen=True)
class PathSearchResult:
    """Paths that a search has run, each once, with their rewards.

    If the rewards are those of an oracle, which knows the targets, the best path shows what is possible; it could not
    have been chosen without the targets.

    Args:
        num_layers: number N of layers of the network.
        rewards: reward of each path that was run, in the order of the runs; the first is the original path.
        visits: number of simulations through each path in a tree search.
        totals: sum of the rewards of these simulations, for each path.

    Example:
        >>> result = PathSearchResult(2, {LayerPath([0, 1]): 0.5, LayerPath([1]): 0.5, LayerPath([0, 0, 1]): 1.0})
        >>> str(result.best), [str(path) for path, _ in result.pareto]
        ('0,0-1', ['1', '0,0-1'])
    """

    num_layers: int
    rewards: dict[LayerPath, float]
    visits: dict[LayerPath, int] = field(default_factory=dict)
    totals: dict[LayerPath, float] = field(default_factory=dict)

    @property
    def original(self) -> float:
        """Reward of the original path, the unchanged network."""
        return self.rewards[LayerPath.original(self.num_layers)]

    @property
    def best(self) -> LayerPath:
        """Path of the highest reward, the shortest among equals, of these the first that was run."""
        return max(self.rewards, key=lambda path: (self.rewards[path], -len(path)))

    @property
    def pareto(self) -> list[tuple[LayerPath, float]]:
        """Paths with their rewards, shortest first: none is as short as another and better, or as good and shorter."""
        found: list[tuple[LayerPath, float]] = []
        for path in sorted(self.rewards, key=lambda path: (len(path), -self.rewards[path])):
            if not found or self.rewards[path] > found[-1][1]:
                found.append((path, self.rewards[path]))
        return found


class _Search:
    """Base class: the actions that a search takes, and the paths that it may run."""

    def __init__(
        self, actions: Sequence[PathAction] | None, budget: int, max_length: float, min_length: int, seed: int
    ) -> None:
        self.actions = (SkipLayers(), RepeatLayers()) if actions is None else tuple(actions)
        if not self.actions:
            raise ValueError("actions is empty; give actions such as SkipLayers() and RepeatLayers()")
        for action in self.actions:
            if isinstance(action, type) or not callable(action):
                raise TypeError(f"actions holds {action!r}; give actions such as SkipLayers() and RepeatLayers()")
        if not isinstance(budget, int) or budget < 1:
            raise ValueError(f"budget is {budget}; give the number of paths to run, a whole number of at least 1")
        if not max_length >= 1.0:
            raise ValueError(f"max_length is {max_length}; give at least 1, the length of the network")
        if min_length < 1:
            raise ValueError(f"min_length is {min_length}; a path runs at least one layer")
        self.budget, self.max_length, self.min_length, self.seed = budget, max_length, min_length, seed

    def neighbours(self, path: LayerPath, num_layers: int) -> list[LayerPath]:
        """Return the different paths that one action makes of a path, within the bounds of length.

        Args:
            path: path to change.
            num_layers: number N of layers of the network.
        """
        longest = math.floor(self.max_length * num_layers)
        made = (new for action in self.actions for new in action(path))
        return list(dict.fromkeys(new for new in made if self.min_length <= len(new) <= longest))

    def _start(self, num_layers: int) -> LayerPath:
        if num_layers < self.min_length:
            raise ValueError(f"num_layers is {num_layers}; it must be at least min_length, {self.min_length}")
        return LayerPath.original(num_layers)


@dataclass
class _Node:
    path: LayerPath
    untried: list[LayerPath] | None = None  # None before they are asked for
    children: list["_Node"] = field(default_factory=list)
    visits: int = 0
    total: float = 0.0
    is_open: bool = True  # whether a path that was not run can lie below


class PathTreeSearch(_Search):
    r"""Monte Carlo tree search over paths, which start from the network as it is.

    Each simulation goes down from the original path by the child with the highest

    .. math:: \operatorname{UCB}(P) = \frac{Q(P)}{v(P)} + c\,\sqrt{\frac{\ln V}{v(P)}} - \lambda\, \frac{|P|}{N}

    with the sum Q of rewards, v visits, V simulations so far, the path's length and the number N of layers; it adds one
    path, runs it, and adds its reward to all nodes on the way. Each path is run once: one that is in the tree already
    is not added a second time. So the number of simulations is the number of paths that are run, and of visits of the
    root.

    Source: arXiv 2507.07996, section 3. Differs from it: a node of v visits has at most :math:`\lceil v^w \rceil`
    children (progressive widening), since a node has more than a hundred actions and a search of the paper's size would
    otherwise not get below the children of the root; the constants are choices of this library, since the paper gives
    none. A public implementation takes c = 1.8, with which some hundred simulations hardly follow the rewards, and
    :math:`\lambda = 3`, which outweighs them.

    Args:
        actions: actions that change a path; None for ``(SkipLayers(), RepeatLayers())``.
        budget: largest number of paths to run, the original one included, at least 1.
        exploration: exploration constant c, at least 0, for rewards in [0, 1].
        length_penalty: weight :math:`\lambda` of the path length, at least 0; it steers the search and is not part of
            the rewards.
        random_share: probability in [0, 1] of descending to a random child instead of the best.
        widening: exponent w in (0, 1]; 1 adds all children of a node before going below them.
        max_length: largest length of a path, as a multiple of the number of layers, at least 1.
        min_length: least length of a path, at least 1.
        seed: seed of the random choices.

    Raises:
        ValueError: if an argument is out of range; in ``search`` if a reward is outside [0, 1].

    Example:
        >>> search = PathTreeSearch(budget=60)
        >>> result = search.search(lambda path: 1.0 if 2 not in path else 0.0, num_layers=4)
        >>> result.original, result.rewards[result.best], result.visits[LayerPath.original(4)]
        (0.0, 1.0, 60)
    """

    def __init__(
        self,
        actions: Sequence[PathAction] | None = None,
        *,
        budget: int = 200,
        exploration: float = 0.5,
        length_penalty: float = 0.1,
        random_share: float = 0.1,
        widening: float = 0.5,
        max_length: float = 2.0,
        min_length: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(actions, budget, max_length, min_length, seed)
        for name, value in {"exploration": exploration, "length_penalty": length_penalty}.items():
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} is {value}; give a number of at least 0")
        if not 0.0 <= random_share <= 1.0:
            raise ValueError(f"random_share is {random_share}; give a probability in [0, 1]")
        if not 0.0 < widening <= 1.0:
            raise ValueError(f"widening is {widening}; give an exponent in (0, 1]")
        self.exploration, self.length_penalty = exploration, length_penalty
        self.random_share, self.widening = random_share, widening

    def search(self, reward: Reward, num_layers: int) -> PathSearchResult:
        """Return the paths that were run with their rewards; fewer than the budget if there are no more.

        Args:
            reward: function from a path to its reward in [0, 1], called once for a path.
            num_layers: number N of layers of the network.
        """
        draw = random.Random(self.seed)
        root = _Node(self._start(num_layers))
        nodes = {root.path: root}
        rewards: dict[LayerPath, float] = {}
        trail: list[_Node] | None = [root]
        while trail is not None:
            path = trail[-1].path
            rewards[path] = _checked(reward(path), path)
            for node in trail:
                node.visits += 1
                node.total += rewards[path]
            trail = self._descend(root, nodes, num_layers, draw) if len(rewards) < self.budget else None
        return PathSearchResult(
            num_layers,
            rewards,
            {path: node.visits for path, node in nodes.items()},
            {path: node.total for path, node in nodes.items()},
        )

    def bound(self, total: float, visits: int, simulations: int, length: int, num_layers: int) -> float:
        """Return the upper confidence bound of a path.

        Args:
            total: sum Q of the rewards of its simulations.
            visits: number v of its simulations, at least 1.
            simulations: number V of simulations of the tree.
            length: length of the path.
            num_layers: number N of layers of the network.
        """
        spread = self.exploration * math.sqrt(math.log(simulations) / visits)
        return total / visits + spread - self.length_penalty * length / num_layers

    def _descend(
        self, root: _Node, nodes: dict[LayerPath, _Node], num_layers: int, draw: random.Random
    ) -> list[_Node] | None:
        """Return the way from the root to a new node; None if all paths that actions reach have been run."""
        trail = [root]
        while root.is_open:
            node = trail[-1]
            if node.untried is None:
                node.untried = self.neighbours(node.path, num_layers)
                draw.shuffle(node.untried)
            below = [child for child in node.children if child.is_open]
            if not below or len(node.children) < math.ceil(node.visits**self.widening):
                while node.untried:
                    path = node.untried.pop()
                    if path not in nodes:  # else it is the child of another node, and has been run
                        nodes[path] = _Node(path)
                        node.children.append(nodes[path])
                        return [*trail, nodes[path]]
            if below:
                trail.append(self._chosen(below, root.visits, num_layers, draw))
            else:
                node.is_open = False
                trail = [root]
        return None

    def _chosen(self, children: list[_Node], simulations: int, num_layers: int, draw: random.Random) -> _Node:
        if draw.random() < self.random_share:
            return draw.choice(children)
        return max(
            children,
            key=lambda node: self.bound(node.total, node.visits, simulations, len(node.path), num_layers),
        )


class RandomPathSearch(_Search):
    """Control of a tree search: as many different paths, each by a random number of random actions.

    The original path is run first. A search that is no better than this one owes its success to the number of paths
    that it tries.

    Args:
        actions: actions that change a path; None for ``(SkipLayers(), RepeatLayers())``.
        budget: largest number of paths to run, the original one included, at least 1.
        max_actions: largest number of actions from the original path, at least 1; the number is uniform in
            1..max_actions.
        max_length: largest length of a path, as a multiple of the number of layers, at least 1.
        min_length: least length of a path, at least 1.
        seed: seed of the random choices.

    Raises:
        ValueError: if an argument is out of range; in ``search`` if a reward is outside [0, 1].

    Example:
        >>> result = RandomPathSearch(budget=50).search(lambda path: 1.0 if 2 not in path else 0.0, num_layers=4)
        >>> len(result.rewards), result.rewards[result.best]
        (50, 1.0)
    """

    def __init__(
        self,
        actions: Sequence[PathAction] | None = None,
        *,
        budget: int = 200,
        max_actions: int = 4,
        max_length: float = 2.0,
        min_length: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(actions, budget, max_length, min_length, seed)
        if max_actions < 1:
            raise ValueError(f"max_actions is {max_actions}; take at least one action")
        self.max_actions = max_actions

    def search(self, reward: Reward, num_layers: int) -> PathSearchResult:
        """Return the paths that were run with their rewards; fewer than the budget if few other paths are left.

        Args:
            reward: function from a path to its reward in [0, 1], called once for a path.
            num_layers: number N of layers of the network.
        """
        draw = random.Random(self.seed)
        root = self._start(num_layers)
        rewards = {root: _checked(reward(root), root)}
        known: dict[LayerPath, list[LayerPath]] = {}
        missed = 0
        while len(rewards) < self.budget and missed < 1000:  # draws of paths that have been run
            path = root
            for _ in range(draw.randint(1, self.max_actions)):
                if path not in known:
                    known[path] = self.neighbours(path, num_layers)
                path = draw.choice(known[path]) if known[path] else path
            missed = missed + 1 if path in rewards else 0
            if not missed:
                rewards[path] = _checked(reward(path), path)
        return PathSearchResult(num_layers, rewards)


def _checked(reward: float, path: LayerPath) -> float:
    try:
        reward = float(reward)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"reward of the path {path} is {reward!r}; give a number in [0, 1]") from error
    if not 0.0 <= reward <= 1.0:  # also if it is not a number
        raise ValueError(f"reward of the path {path} is {reward}; give rewards in [0, 1]")
    return reward
