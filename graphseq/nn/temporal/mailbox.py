"""Mailboxes: the latest mails of each node."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core.spec import Recorded

__all__ = ["Mailbox"]


class Mailbox(Recorded, nn.Module):
    r"""The ``num_mails`` latest mails of each node, newest first; a new one pushes the oldest out.

    .. math:: [\,x_1, \ldots, x_M\,] \leftarrow [\,\bar m, x_1, \ldots, x_{M-1}\,]

    with :math:`\bar m` the mean of the mails that one call delivers to the node. Row v of the state is a ring buffer,
    so that a mail is written once and never moved: the n-th mail of node v (from 0) is in slot :math:`n \bmod M`.

    Source: arXiv 2011.11545, section 3 (mail reducing and mailbox updating, a queue). Differs from it: none known.

    Args:
        num_nodes: number of nodes N.
        channels: width C of a mail.
        num_mails: number of mails M stored for each node.

    Shape:
        state: mail (N, M, C), count (N,) int64, t (N,) float64: 4 M C + 16 bytes for each node. Times stay
        float64 whatever type the module is moved to.

    Raises:
        ValueError: for sizes below 1.

    Example:
        >>> box = Mailbox(num_nodes=4, channels=1, num_mails=3)
        >>> sent, when = torch.tensor([[1.0], [3.0]]), torch.tensor([7, 8])
        >>> box.deliver(sent, when, mail_index=torch.tensor([0, 1, 1]), receiver=torch.tensor([2, 2, 0]))
        >>> mail, mask = box.read(torch.tensor([2, 0, 1]))
        >>> mail[:, 0, 0], mask[:, 0]
        (tensor([2., 3., 0.]), tensor([ True,  True, False]))
    """

    mail: Tensor
    count: Tensor
    t: Tensor

    def __init__(self, num_nodes: int, channels: int, num_mails: int = 10) -> None:
        super().__init__()
        if min(num_nodes, channels, num_mails) < 1:
            raise ValueError(
                f"num_nodes is {num_nodes}, channels {channels}, num_mails {num_mails}; all must be at least 1"
            )
        self.channels, self.num_mails = channels, num_mails
        self.register_buffer("mail", torch.zeros(num_nodes, num_mails, channels))
        self.register_buffer("count", torch.zeros(num_nodes, dtype=torch.int64))
        self.register_buffer("t", torch.zeros(num_nodes, dtype=torch.float64))

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.count)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"num_nodes={self.num_nodes}, channels={self.channels}, num_mails={self.num_mails}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # seconds do not fit into the float32 or bfloat16 that mails may be cast to
        t = self.t
        super()._apply(fn, recurse)
        if self.t.dtype != t.dtype:
            self.t = t.to(self.t.device)
        return self

    @torch.no_grad()
    def reset_state(self) -> None:
        """Empty all mailboxes."""
        for buffer in self.buffers():
            buffer.zero_()

    @torch.no_grad()
    def resize(self, num_nodes: int) -> None:
        """Allocate more nodes with empty mailboxes.

        Args:
            num_nodes: new number of nodes, at least the current one.

        Raises:
            ValueError: if ``num_nodes`` is smaller.
        """
        more = num_nodes - self.num_nodes
        if more < 0:
            raise ValueError(f"num_nodes is {num_nodes}; there are {self.num_nodes} mailboxes, and none is dropped")
        for name, buffer in list(self.named_buffers()):
            setattr(self, name, torch.cat([buffer, buffer.new_zeros(more, *buffer.shape[1:])]))

    def read(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return copies of the mails, newest first and padded with zeros, and a mask of the mails.

        Args:
            nodes: node ids, int64.

        Shape:
            nodes (U,) -> mail (U, M, C), mask (U, M) bool
        """
        count = self.count.index_select(0, nodes).unsqueeze(1)
        age = torch.arange(self.num_mails, device=nodes.device)
        slot = (count - 1 - age) % self.num_mails + nodes.unsqueeze(1) * self.num_mails
        mail = self.mail.flatten(0, 1).index_select(0, slot.view(-1))
        return mail.view(*slot.shape, self.channels), age < count

    @torch.no_grad()
    def deliver(self, mail: Tensor, t: Tensor, mail_index: Tensor, receiver: Tensor) -> None:
        """Add one mail to the mailbox of each receiver: the mean of all mails that this call delivers to it.

        Mails are given by index, so that a mail to many receivers is not copied. Finding the distinct receivers
        synchronises with the device.

        Args:
            mail: mails to deliver.
            t: time at which each mail was sent, not before the times of earlier deliveries.
            mail_index: row of ``mail`` of each delivery, int64.
            receiver: node that each delivery goes to, int64; a mail that reaches a node several times counts as often.

        Shape:
            mail (S, C), t (S,), mail_index (K,), receiver (K,)

        Raises:
            ValueError: if the shapes do not match.
        """
        if mail.shape != (len(t), self.channels) or mail_index.shape != receiver.shape or receiver.dim() != 1:
            raise ValueError(
                f"mail is {tuple(mail.shape)}, t {tuple(t.shape)}, mail_index {tuple(mail_index.shape)}, receiver "
                f"{tuple(receiver.shape)}; they must be (S, {self.channels}), (S,), (K,) and (K,)"
            )
        if not len(receiver):
            return
        receiver, order = receiver.sort(stable=True)
        mail_index = mail_index.index_select(0, order)
        nodes, entry, number = receiver.unique_consecutive(return_inverse=True, return_counts=True)
        mean = functional.embedding_bag(
            mail_index, mail.detach().to(self.mail.dtype), offsets=number.cumsum(0) - number, mode="mean"
        )
        when = t.to(self.t.dtype).index_select(0, mail_index)
        newest = torch.full_like(nodes, -torch.inf, dtype=self.t.dtype).scatter_reduce_(0, entry, when, "amax")
        count = self.count.index_select(0, nodes)
        self.mail.flatten(0, 1).index_copy_(0, nodes * self.num_mails + count % self.num_mails, mean)
        self.count.index_copy_(0, nodes, count + 1)
        self.t.index_copy_(0, nodes, newest)
