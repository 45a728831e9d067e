"""What no setting of the user could prevent is hidden; warnings about the run are shown."""

import logging
import warnings

import lightning  # noqa: F401 - its import sets the level of its log
import pytest

from graphseq.core import quiet_lightning


@pytest.fixture
def levels():
    """Levels of Lightning's logs and the filters are put back."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        yield loggers
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def test_only_harmless_messages_are_hidden(levels, recwarn):
    quiet_lightning()
    for logger in levels:
        assert not logger.isEnabledFor(logging.INFO)
        assert logger.isEnabledFor(logging.WARNING)
    warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated, use `isinstance(treespec, TreeSpec)`", stacklevel=1)
    warnings.warn("The number of training batches (7) is smaller than the logging interval", stacklevel=1)
    assert not recwarn.list
    warnings.warn("You defined a `validation_step` but have no `val_dataloader`. Skipping val loop.", stacklevel=1)
    assert len(recwarn.list) == 1
