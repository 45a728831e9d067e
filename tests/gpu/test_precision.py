"""Mixed and true precision on the device: losses are finite, indices, times and ids stay what they are."""

import pytest
import torch

from tests.gpu.families import SAMPLES, STREAMS, build, lightning, tensors_of, trainer

KINDS = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}


class Types(lightning.Callback):
    """Types of what a batch holds, and of the network."""

    def __init__(self):
        self.floats, self.others = set(), set()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        for name, value in tensors_of(batch).items():
            (self.floats if value.is_floating_point() else self.others).add((name, value.dtype))
        self.network = {weight.dtype for weight in pl_module.parameters() if weight.is_floating_point()}


def fitted(family, device, precision):
    task, data = build(family)
    seen = Types()
    fit = trainer(device, precision=precision, callbacks=[seen], limit_train_batches=3, limit_val_batches=2)
    fit.fit(task, data)
    return task, fit, seen


@pytest.mark.parametrize("family", SAMPLES)
@pytest.mark.parametrize("precision", KINDS)
def test_true_precision(precision, family, device):
    if family == "weighted":
        pytest.skip("kernels of learned weights are float64 in any precision; its task is tested under bf16-mixed")
    if family == "spectra":
        pytest.skip("complex weights have no half precision, and torch's Module.double() leaves them as they are")
    if precision == "16-true" and device.type == "cpu":
        pytest.skip("float16 is a precision of accelerators")
    _, fit, seen = fitted(family, device, precision)
    assert torch.isfinite(fit.callback_metrics["val/loss"])
    assert seen.network == {KINDS[precision]}
    whole = {kind for _, kind in seen.others}
    assert whole <= {torch.int64, torch.int32, torch.uint8, torch.bool}


@pytest.mark.parametrize("family", [*SAMPLES, *STREAMS])
def test_bf16_mixed(family, device):
    task, fit, seen = fitted(family, device, "bf16-mixed")
    assert torch.isfinite(fit.callback_metrics["train/loss"])
    assert seen.network == {torch.float32}
    assert {value.dtype for value in task.state_dict().values() if value.is_floating_point()} <= {
        torch.float32,
        torch.float64,
    }


@pytest.mark.parametrize("family", STREAMS)
def test_times_and_ids_of_a_stream_are_never_cast(family, device):
    _, _, seen = fitted(family, device, "bf16-mixed")
    kinds = dict([*seen.floats, *seen.others])
    assert {kinds[name] for name in ("src", "dst", "e_id")} == {torch.int64}
    assert kinds["t"] in (torch.int64, torch.float64)
