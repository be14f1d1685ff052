"""What the project uses of other libraries without their promise to keep it.

Each test names one such thing. Where one fails under a new version, its user has to change first.
"""

import argparse
import ast
import gc
import inspect
import sys
import threading

import pytest
import torch
from horovod.common import elastic
from nvidia.dali import fn, pipeline_def
from support.launching import REPOSITORY
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torchvision.transforms.v2 import TrivialAugmentWide

from hvd_utils.nn.compile import is_compiled, skipped_graphs

# Named in a test below, and in its docstring where they are used.
PRIVATE = {
    *("_foreach_add_", "_foreach_lerp_", "_foreach_mul_", "_foreach_sub", "_dynamo", "_inductor"),
    *("_compiled_call_impl", "_BatchNorm", "_InstanceNorm", "_C", "_cuda_getArchFlags"),
    *("_apply_image_or_video_transform", "_fill", "_actions", "_ArgumentGroup"),
}
DOCUMENTED = {"_exit", "_asdict", "_fields", "_replace"}  # os, collections.namedtuple
OURS = {"_init_digest"}  # of our own settings


def test_every_private_name_of_another_library_is_named_here():
    found = set()
    folders = [REPOSITORY / name for name in ("hvd_utils", "dali_pipeline", "tools")]
    for path in [path for folder in folders for path in folder.rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and not node.module.startswith("_"):
                names = [*node.module.split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
                names = [node.attr]
            found |= {name for name in names if name.startswith("_") and name[:2] != "__"}
    assert found - DOCUMENTED - OURS == PRIVATE


@pytest.mark.parametrize(("momentum", "updated"), [(0.0, 0.5), (0.5, 0.25)])
def test_a_fused_sgd_heeds_found_inf_and_grad_scale(momentum, updated):
    """``guard``: attributes that GradScaler sets; the update is left out, or divided."""
    weight = nn.Parameter(torch.ones(3))
    nesterov = bool(momentum)
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=momentum, nesterov=nesterov, fused=True)
    if momentum:
        optimizer.state[weight]["momentum_buffer"] = torch.zeros(3)
    weight.grad = torch.full((3,), 2.0)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert weight.tolist() == [1] * 3
    optimizer.found_inf, optimizer.grad_scale = torch.zeros(()), torch.tensor(4.0)
    optimizer.step()
    assert weight.tolist() == [updated] * 3  # 1 - (1 + m) · 2 / 4


def test_torchs_foreach_functions_work_in_place():
    """``averaging``: torch._foreach_sub, _mul_, _add_ and _lerp_."""
    ours, theirs = [torch.zeros(2), torch.ones(3)], [torch.ones(2), torch.zeros(3)]
    torch._foreach_lerp_(ours, theirs, [0.25, 0.25])
    assert [part[0].item() for part in ours] == [0.25, 0.75]
    difference = torch._foreach_sub(theirs, ours)
    torch._foreach_mul_(difference, 2.0)
    torch._foreach_add_(ours, difference)
    assert [part[0].item() for part in ours] == [1.75, -0.75]


def test_torchvisions_trivial_augment_applies_what_it_is_told():
    """``augment``: TrivialAugmentWide._apply_image_or_video_transform and _fill."""
    transform, image = TrivialAugmentWide(), torch.zeros(3, 4, 4, dtype=torch.uint8)
    expected = ["image", "transform_id", "magnitude", "interpolation", "fill"]
    apply = transform._apply_image_or_video_transform
    assert list(inspect.signature(apply).parameters) == expected
    assert apply(image, "Solarize", 0.0, "bilinear", transform._fill).min() == 255


def test_torchs_normalizations_have_a_base_each():
    """``batch_norm``, ``freezing``, ``optimizer``, ...: _BatchNorm and _InstanceNorm."""
    assert all(isinstance(norm(2), _BatchNorm) for norm in (nn.BatchNorm2d, nn.SyncBatchNorm))
    assert isinstance(nn.InstanceNorm2d(2), _InstanceNorm)
    assert not isinstance(nn.GroupNorm(1, 2), (_BatchNorm, _InstanceNorm))


def test_torch_tells_the_gpus_that_it_was_compiled_for():
    """``tools/install_horovod``: torch._C._cuda_getArchFlags, None or "" of a CPU build."""
    flags = torch._C._cuda_getArchFlags() or ""
    assert ("sm_" in flags) == (torch.version.cuda is not None)


def test_argparse_keeps_its_arguments_and_names_its_groups():
    """``completion``: ArgumentParser._actions; ``scaling.options``: _ArgumentGroup, in types."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("group")
    added = [parser.add_argument("file"), group.add_argument("-a", "--all", action="store_true")]
    assert parser._actions == added
    assert [action.option_strings for action in added] == [[], ["-a", "--all"]]
    assert isinstance(group, argparse._ArgumentGroup)


def test_tensorboards_writer_has_a_thread_of_this_name():
    """``trackers.tensorboard``: its failure is told once, by the call that raises it."""
    from tensorboard.summary.writer import event_file_writer

    assert issubclass(event_file_writer._AsyncWriterThread, threading.Thread)


def test_horovod_tells_what_it_sums_by_the_name_of_a_function():
    """``compression``: of the library that our patch has; and an exception, by its own name."""
    from horovod.common.exceptions import HorovodInternalError
    from horovod.torch import mpi_ops

    assert hasattr(mpi_ops.mpi_lib, "horovod_torch_allreduce_async_torch_FloatTensor")
    assert HorovodInternalError.__name__ == "HorovodInternalError"


def test_torch_lets_a_compiled_graph_be_broken():
    """``compiling``: torch._dynamo.graph_break."""
    assert callable(torch._dynamo.graph_break)


def test_torch_counts_cuda_graphs_that_it_gave_up_and_tells_a_compiled_model():
    """``compile``: counters, _compiled_call_impl, recompile_limit; ``compile_turns``: its cache."""
    import torch._dynamo.config
    import torch._inductor.config
    from torch._dynamo.utils import counters
    from torch._inductor.cudagraph_utils import log_cudagraph_skip_and_bump_counter

    before = counters["inductor"]["cudagraph_skips"]
    log_cudagraph_skip_and_bump_counter("a test")
    assert skipped_graphs() == before + 1
    assert isinstance(torch._inductor.config.fx_graph_cache, bool)
    assert isinstance(torch._dynamo.config.recompile_limit, int)
    model = nn.Linear(1, 1)
    assert not is_compiled(model)
    model.compile()
    assert is_compiled(model)


def test_horovods_elastic_parts_are_where_the_job_takes_them():
    """``elastic``: State's hooks and the arguments of run_fn."""
    assert list(inspect.signature(elastic.run_fn).parameters) == ["func", "reset"]
    hooks = ("on_hosts_updated", "reset", "save", "restore", "sync")
    assert all(callable(getattr(elastic.State, hook)) for hook in hooks)


def test_dali_leaves_outputs_alone_that_are_held():
    """``dali_loader``: with exec_dynamic, which its documentation promises."""

    @pipeline_def(batch_size=2, num_threads=1, device_id=None, exec_dynamic=True)
    def numbers():
        return fn.external_source(
            lambda info: torch.full((1000,), float(info.iteration)).numpy(), batch=False
        )

    pipeline = numbers(prefetch_queue_depth=2)
    pipeline.build()
    held = [[torch.from_dlpack(part) for part in pipeline.run()[0]] for _ in range(12)]
    assert [batch[0].unique().tolist() for batch in held] == [[float(i)] for i in range(12)]


def test_the_collector_can_be_stopped_while_modules_are_imported():
    """``imports``: gc.freeze, of CPython alone; elsewhere imports are slower and nothing else."""
    assert sys.implementation.name != "cpython" or callable(gc.freeze)


def test_finalizers_run_when_the_last_reference_goes():
    """``buffers``: not promised. Without it batches get fresh memory: slower, never wrong."""
    from dali_pipeline.loading.dali.buffers import Buffers

    buffers = Buffers()
    addresses = [buffers.take(8).data_ptr() for _ in range(3)]
    assert len(set(addresses)) == 1
