import torch

from graphseq.core import EventBatch, SequenceBatch, TokenBatch
from graphseq.data import SyntheticEventsDataModule


def test_batches_print_shapes_and_no_contents():
    data = SyntheticEventsDataModule(num_events=300)
    batch = next(iter(data.batches("train")))
    assert "src=[200]" in repr(batch)
    assert "tensor" not in repr(batch)
    assert "node=[1, 3]" in repr(batch.history.recent(torch.tensor([0]), 10, 3))
    ids, lengths = torch.ones(2, 3).long(), torch.tensor([3, 1])
    assert repr(TokenBatch(ids, lengths)) == "TokenBatch(ids=[2, 3], lengths=[2])"
    assert repr(SequenceBatch(ids, lengths, y=lengths)) == "SequenceBatch(x=[2, 3], lengths=[2], y=[2])"
    event = EventBatch(lengths, lengths, lengths, torch.zeros(2, 0), lengths, start=4)
    assert repr(event) == "EventBatch(src=[2], dst=[2], t=[2], msg=[2, 0], e_id=[2], start=4)"
