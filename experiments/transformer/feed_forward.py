"""What the experiments on activations in feed-forward parts share: the language model and its overrides."""

from graphseq.bench import new, over

__all__ = ["BASE", "SCALES", "activated", "gated"]

DIM = 64
PART = "model.model.layers.blocks"
RATES = [0.001, 0.003]
BASE = {
    "trainer.max_epochs": 1,
    "trainer.limit_train_batches": 400,
    "data.length": 64,
    "data.batch_size": 16,
}
SCALES = {
    "quick": {"trainer.limit_train_batches": 3, "trainer.limit_val_batches": 2, "trainer.limit_test_batches": 2},
    "full": {"trainer.limit_train_batches": 2000, "trainer.max_epochs": 2},
}


def with_part(feed_forward: dict[str, object]) -> list[dict[str, object]]:
    """Return the overrides of four blocks with a feed-forward part, for both learning rates."""
    mixer = new("graphseq.nn.CausalAttention", dim=DIM, num_heads=4)
    block = new("graphseq.nn.SequenceBlock", mixer=mixer, feed_forward=feed_forward)
    return over({PART: [block]}, "model.optimizer.lr", RATES)


def activated(class_path: str, **options: object) -> list[dict[str, object]]:
    """Return the overrides of feed-forward parts of two layers, of width 4 D, with an activation."""
    activation = new(class_path, **options)
    return with_part(new("graphseq.nn.FeedForward", dim=DIM, bias=False, activation=activation))


def gated(class_path: str) -> list[dict[str, object]]:
    """Return the overrides of gated feed-forward parts, as many weights in three layers of width 8/3 D."""
    return with_part(new("graphseq.nn.GatedFeedForward", dim=DIM, activation=new(class_path)))
