"""The job's loop on a GPU that is only pretended: tensors without numbers, on a device not here.

PyTorch refuses to mix devices there, and to look at a number, for which the host would wait.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.flags import SharedFlags
from hvd_utils.horovod_backend.world import World
from hvd_utils.nn.batch_norm import normalise_by_worker
from hvd_utils.nn.fused_blocks import use_fused_kernel
from hvd_utils.nn.models import build_model
from hvd_utils.training.loops import train
from hvd_utils.training.train_state import TrainState

GPU = torch.device("cuda", 0)
WORLD = World(0, 1, 0, 1, "here", GPU, 2)
PASSES = [range(2), range(2, 4)]  # two, of two fused workers each


def endless_batches():
    while True:
        labels = torch.zeros(8, dtype=torch.int64, device=GPU)
        yield torch.empty(8, 3, 24, 24, device=GPU), labels


def queue_steps(monkeypatch, precision, optimizer="sgd", kernel=None):
    """Have two steps queued; return of each update what its gradients are divided by."""
    updates = []
    with torch.device(GPU):
        model = build_model("resnet8", 10, zero_gamma=True, seed=1)
    normalise_by_worker(model, PASSES, 4)
    if kernel:
        use_fused_kernel(model, kernel)

    def backward(loss):
        """Leave gradients, as PyTorch's own pass would if there were a driver."""
        assert loss.device == GPU
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def fused_sgd(*tensors, found_inf, grad_scale, **options):
        assert {t.device for group in tensors for t in group} == {GPU} == {found_inf.device}
        updates.append(grad_scale)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr(torch, "_fused_sgd_", fused_sgd)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.empty(0, device="cpu"))
    monkeypatch.setattr(torch, "equal", lambda *states: True)
    settings = Settings(
        recipe="test", precision=precision, optimizer=optimizer, workers=4, batch_per_worker=4
    )
    steps = train(
        TrainState.build(model, settings, 2, 1), lambda step: 0.1, endless_batches(), range(2),
        recipe=settings, passes=PASSES, world=WORLD, flags=SharedFlags(1),
    )  # fmt: skip
    assert {totals.device for totals in steps} == {GPU}
    return updates


@pytest.mark.filterwarnings("ignore:CUDA is not available")  # no autocast then
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16", "fp64"])
def test_a_step_stays_on_the_gpu_and_the_host_waits_for_nothing(monkeypatch, precision):
    with FakeTensorMode():
        scales = queue_steps(monkeypatch, precision)
    assert len(scales) == 4  # two steps, weights with and without decay
    assert {scale is not None for scale in scales} == {precision == "fp16"}


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_so_it_does_with_tritons_batch_norm(monkeypatch):
    batch_norm = pytest.importorskip("hvd_utils.nn.triton_batch_norm").batch_norm
    calls = []

    def counted(*given):
        calls.append(given)
        return batch_norm(*given)

    with FakeTensorMode():
        queue_steps(monkeypatch, "bf16", kernel=counted)
    assert len(calls) == 2 * len(PASSES) * 9


def test_a_host_that_waits_would_be_seen(monkeypatch):
    """LARS, not fused, looks whether to leave an update out."""
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        queue_steps(monkeypatch, "fp32", optimizer="lars")
