import pytest
import torch
from torch import nn

from graphseq.core import make
from graphseq.core.errors import DataError
from graphseq.data import MotionClipsDataModule
from graphseq.models import P3DResNet
from graphseq.tasks import Classification, VideoClassification


@pytest.fixture
def network():
    return P3DResNet(1, 8, layers=(1, 1, 1, 1), base_width=2, dropout=0.0).double().eval()


def test_trains_on_clips_and_judges_by_the_mean_of_their_probabilities(network):
    clips = torch.rand(3, 2, 1, 3, 16, 16, dtype=torch.float64)
    labels = torch.tensor([5, 0, 7])
    task = VideoClassification(network, 8)
    trained, judged = task.step((clips, labels), "train"), task.step({"x": clips, "y": labels}, "val")
    per_clip, per_video = [], []
    for video, label in zip(clips, labels.tolist(), strict=True):
        scores = [network(clip[None])[0].exp() / network(clip[None])[0].exp().sum() for clip in video]
        per_clip += [-score[label].log() for score in scores]
        per_video.append(sum(scores) / 2)
    expected = torch.stack(per_clip).mean()
    torch.testing.assert_close(trained.loss, expected)
    assert (trained.size, judged.size) == (6, 3)
    torch.testing.assert_close(judged.prediction.exp(), torch.stack(per_video))
    torch.testing.assert_close(
        judged.loss, -torch.stack([p[y].log() for p, y in zip(per_video, labels, strict=True)]).mean()
    )
    torch.testing.assert_close(task.predict_step((clips, labels), 0), judged.prediction)
    leaves = list(network.parameters())
    for one, other in zip(
        torch.autograd.grad(trained.loss, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_one_clip_of_each_video_is_plain_classification(network):
    clips, labels = torch.rand(3, 1, 4, 16, 16, dtype=torch.float64), torch.tensor([5, 0, 7])
    task, plain = VideoClassification(network, 8, label_smoothing=0.1), Classification(network, 8, label_smoothing=0.1)
    for stage in ("train", "test"):
        for batch in ((clips, labels), (clips[:, None], labels)):
            torch.testing.assert_close(task.step(batch, stage).loss, plain.step((clips, labels), stage).loss)


def test_table_of_predictions_has_one_row_a_video():
    data = MotionClipsDataModule(num_train=4, num_val=4, num_test=5, num_frames=6, num_clips=2, canvas=16, seed=1)
    table = VideoClassification(P3DResNet(1, 8, layers=(1, 1, 1, 1), base_width=2), 8).predictions(data)
    assert len(table) == 5
    probabilities = table[[f"p_{number}" for number in range(8)]].to_numpy()
    assert abs(probabilities.sum(1) - 1).max() < 1e-5


def test_refused():
    task = VideoClassification(make(nn.Flatten), 8)
    with pytest.raises(DataError, match=r"\(2, 1, 8, 8\)"):
        task.step((torch.rand(2, 1, 8, 8), torch.tensor([0, 1])))
    with pytest.raises(DataError, match="target `y`"):
        task.step({"x": torch.rand(2, 1, 3, 8, 8)})
