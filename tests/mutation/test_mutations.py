"""Break each rule on purpose, in a copy of the code: a test must notice.

These tests test the tests. Each mutation is a mistake that the paper warns of, or that a port of it
makes easily.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from support.launching import REPOSITORY, launch

pytestmark = pytest.mark.long

UNIT = "tests/unit/"
LOADERS = UNIT + "loading/test_loaders.py::"
JOB = "tests/parallel/run/test_job.py::"
RESUME = JOB + "test_a_run_stopped_and_resumed_ends_as_the_undisturbed_one"
JOB += "test_the_same_workers_on_any_number_of_processes_train_the_same_model"


class Mutation(NamedTuple):
    file: str
    right: str
    wrong: str
    test: str


MUTATIONS = {
    "the loss is normalised by n": Mutation(
        "hvd_utils/training/optimizer.py",
        "return loss / minibatch",
        "return loss / len(labels)",
        UNIT + "training/test_optimizer.py",
    ),
    "momentum is not corrected": Mutation(
        "hvd_utils/training/rate_in_momentum.py",
        "if group[CORRECTED] else",
        "if not group[CORRECTED] else",
        UNIT + "training/test_optimizer.py",
    ),
    "γ and β decay": Mutation(
        "hvd_utils/training/optimizer.py",
        "if isinstance(module, NORMS)",
        "if isinstance(module, ())",
        UNIT + "training/test_optimizer.py",
    ),
    "LARS adapts γ and β": Mutation(
        "hvd_utils/training/lars.py",
        '"always_adapt": False',
        '"always_adapt": True',
        UNIT + "training/test_lars.py",
    ),
    "the rate is rounded to an integer multiple": Mutation(
        "hvd_utils/paper/schedule.py",
        "return reference_rate * minibatch / reference_minibatch",
        "return reference_rate * (minibatch // reference_minibatch)",
        UNIT + "paper/test_schedule.py",
    ),
    "warmup starts at 0": Mutation(
        "hvd_utils/paper/schedule.py",
        "return start + (target - start) * min(",
        "return target * min(",
        UNIT + "paper/test_schedule.py",
    ),
    "warmup rises by the epoch": Mutation(
        "hvd_utils/paper/schedule.py",
        "min(step / warmup_steps, 1.0)",
        "min(step // (warmup_steps / 5) / 5, 1.0)",
        UNIT + "paper/test_schedule.py",
    ),
    "every worker shuffles its own shard": Mutation(
        "dali_pipeline/sampling/order.py",
        "epochs, ids = images_at(seed, first, len(fused) * batch, num_images, order)",
        "shard = num_images // workers\n"
        "    epochs, ids = images_at(seed, step * batch, len(fused) * batch, shard, order)\n"
        "    ids = ids + fused.start * shard",
        UNIT + "sampling/test_order.py",
    ),
    "images are shuffled within a buffer": Mutation(
        "dali_pipeline/sampling/order.py",
        "        return images_of_places(seed, epoch, places, num_images)",
        "        starts, ids = places // 1024 * 1024, places.copy()\n"
        "        for start in np.unique(starts):\n"
        "            here, size = starts == start, min(1024, num_images - start)\n"
        "            inside = places[here] - start\n"
        "            ids[here] = start + images_of_places(seed, epoch, inside, int(size))\n"
        "        return ids",
        UNIT + "sampling/test_order.py",
    ),
    "images of a stored order are shuffled within a buffer": Mutation(
        "dali_pipeline/sampling/order.py",
        "    words.sort()\n",
        "    for start in range(0, num_images, 1024):\n"
        "        words[start : start + 1024].sort()\n",
        UNIT + "sampling/test_order.py",
    ),
    "images are mixed across fused workers": Mutation(
        "dali_pipeline/loading/mixed.py",
        "torch.cat((images[-workers:], images[:-workers]))",
        "torch.cat((images[-1:], images[:-1]))",
        UNIT + "loading/test_augmented.py",
    ),
    "images are mixed by the process's own generator": Mutation(
        "dali_pipeline/sampling/mixing.py",
        "stream = Stream(seed, np.full(len(workers), step), np.array(workers))",
        "stream = Stream(seed, np.full(len(workers), step), np.arange(len(workers)))",
        UNIT + "loading/test_augmented.py",
    ),
    "the index is sent to every process": Mutation(
        "dali_pipeline/dataset/index.py",
        "            state |= dict.fromkeys(own)\n",
        "            own = []\n",
        UNIT + "dataset/test_index_file.py",
    ),
    "every epoch has the same order": Mutation(
        "dali_pipeline/sampling/bijection.py",
        "np.array([seed, epoch], np.uint64)",
        "np.array([seed, 0], np.uint64)",
        UNIT + "sampling/test_order.py",
    ),
    "an order is computed in too few rounds": Mutation(
        "dali_pipeline/sampling/bijection.py",
        "ROUNDS = 16",
        "ROUNDS = 4",
        UNIT + "sampling/test_bijection.py",
    ),
    "a run that goes on changes its order": Mutation(
        "hvd_utils/run/resume.py",
        "if name not in settings.model_fields_set",
        "if False",
        UNIT + "run/test_resume.py",
    ),
    "crops come from the worker's own generator": Mutation(
        "dali_pipeline/sampling/plan.py",
        "stream = Stream(settings.seed, epochs, ids)",
        "stream = Stream(np.random.randint(2**31), epochs, ids)",
        LOADERS + "test_a_crop_belongs_to_the_image_and_the_epoch_not_to_the_worker",
    ),
    "crops belong to the place in the worker's batch": Mutation(
        "dali_pipeline/sampling/plan.py",
        "stream = Stream(settings.seed, epochs, ids)",
        "stream = Stream(settings.seed, epochs, np.arange(len(ids)))",
        LOADERS + "test_a_crop_belongs_to_the_image_and_the_epoch_not_to_the_worker",
    ),
    "memory of a batch is used again while the model reads it": Mutation(
        "dali_pipeline/loading/dali/buffers.py",
        "weakref.finalize(lent, self._free.append, memory).atexit = False",
        "self._free.append(memory)",
        UNIT + "loading/test_self_check.py",
    ),
    "fused workers are normalised together": Mutation(
        "hvd_utils/nn/batch_norm.py",
        "workers = len(images) // self.batch_per_worker",
        "workers = 1",
        UNIT + "nn/test_batch_norm.py",
    ),
    "running averages follow the last worker": Mutation(
        "hvd_utils/training/running_statistics.py",
        "self._sum.add_(self._buffers, alpha=workers / self._workers)",
        "self._sum.copy_(self._buffers)",
        UNIT + "nn/test_batch_norm.py",
    ),
    "dropout goes on from what was drawn before": Mutation(
        "hvd_utils/nn/dropout_seeds.py",
        "torch.default_generator.manual_seed(drawn)  #",
        "pass  #",
        UNIT + "training/test_loops.py",
    ),
    "an update is made by a loss that is not finite": Mutation(
        "hvd_utils/training/nonfinite.py",
        "optimizer.found_inf = left_out.float()",
        "optimizer.found_inf = torch.zeros(())",
        UNIT + "training/test_nonfinite.py",
    ),
    "workers that do not divide are left out": Mutation(
        "hvd_utils/paper/logical_workers.py",
        "return range(rank * workers // size, (rank + 1) * workers // size)",
        "return range(rank * (workers // size), (rank + 1) * (workers // size))",
        UNIT + "paper/test_logical_workers.py",
    ),
    "all trained classes compete where some are validated": Mutation(
        "hvd_utils/training/loops.py",
        "logits = logits[:, only]",
        "pass",
        UNIT + "training/test_loops.py",
    ),
    "validation images are counted twice to fill a batch": Mutation(
        "dali_pipeline/sampling/plan.py",
        "mine = np.arange(self.rank, len(self.val), self.size)",
        "mine = np.arange(self.rank, len(self.val) + self.size - 1, self.size) % len(self.val)",
        LOADERS + "test_validation_shards_hold_every_image_once",
    ),
    "each process judges its bad images by itself": Mutation(
        "dali_pipeline/dataset/bad_images.py",
        "        self._check(reasons)\n        first",
        "        first",
        UNIT + "dataset/test_bad_images.py::"
        "test_too_many_bad_images_stop_a_run_on_any_number_of_processes",
    ),
    "ranks with other settings train together": Mutation(
        "hvd_utils/horovod_backend/consistency.py",
        "if facts != expected",
        "if False",
        UNIT + "horovod_backend/test_consistency.py",
    ),
    "two jobs write into one folder": Mutation(
        "hvd_utils/faults/folder_lock.py",
        "        except BlockingIOError:\n            return False",
        "        except BlockingIOError:\n            return True",
        UNIT + "faults/test_folder_lock.py",
    ),
    "a run that goes on forgets its momentum": Mutation(
        "hvd_utils/training/train_state.py",
        'self.optimizer.load_state_dict(state["optimizer"])',
        "pass",
        RESUME,
    ),
    "a run that goes on begins its order anew": Mutation(
        "train_imagenet.py",
        "loader.training(run.step, run.last_step)",
        "loader.training(0, run.last_step)",
        RESUME,
    ),
    "gradients are averaged over processes": Mutation(
        "hvd_utils/horovod_backend/distributed_optimizer.py", "op=hvd.Sum", "op=hvd.Average", JOB
    ),
    "running averages are averaged over processes": Mutation(
        "hvd_utils/training/train_state.py",
        "RunningStatistics(model, recipe.workers, size)",
        "RunningStatistics(model, passes * size, size)",
        JOB,
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The code and its tests, elsewhere."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("hvd_utils", "dali_pipeline", "recipes", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    for name in ("train_imagenet.py", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, folder / name)
    return folder


def pytest_in(folder: Path, *tests: str):
    command = ["-m", "pytest", "-x", "-q", *tests]
    return launch(command, by="python", cwd=folder, PYTHONPATH=str(folder))


def test_it_is_the_copy_that_is_tested(copy):
    where = "import hvd_utils, dali_pipeline, train_imagenet as t; print(t.__file__)"
    shown = launch(["-c", where], by="python", cwd=copy, PYTHONPATH=str(copy))
    assert shown.output.strip() == str(copy / "train_imagenet.py")


def test_the_quick_tier_has_the_tests_that_notice():
    tests = {mutation.test for mutation in MUTATIONS.values()}
    command = ["-m", "pytest", "--collect-only", "-q", "-m", "not long", *sorted(tests)]
    ended = launch(command, by="python", cwd=REPOSITORY, PYTHONPATH=str(REPOSITORY))
    assert ended.code == 0, ended.output
    collected = ended.output.splitlines()
    assert all(
        any(re.match(rf"{re.escape(test)}(::|\[|$)", one) for one in collected) for test in tests
    )


@pytest.fixture(scope="module")
def noticed_by() -> list[str]:
    """The tests that noticed a mistake, which are added one by one."""
    return []


@pytest.mark.parametrize("mistake", MUTATIONS)
def test_a_broken_rule_is_noticed(copy, noticed_by, mistake):
    mutation = MUTATIONS[mistake]
    file = copy / mutation.file
    code = file.read_text()
    assert code.count(mutation.right) == 1, f"{mutation.file} has changed: bring the table along"
    file.write_text(code.replace(mutation.right, mutation.wrong))
    try:
        ended = pytest_in(copy, mutation.test)
    finally:
        file.write_text(code)
    assert ended.code == 1, ended.output  # tests ran, and one failed
    noticed = ("AssertionError", "Failed: DID NOT RAISE", "the loader delivered wrong images")
    assert any(words in ended.output for words in noticed), ended.output
    failed = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", ended.output, re.MULTILINE)
    assert failed, ended.output
    noticed_by += failed


def test_without_a_mistake_they_pass(copy, noticed_by):
    """Each failed for its mistake, and not because it runs in a copy."""
    assert noticed_by, "run the whole file: the tests above tell which ones notice"
    passed = pytest_in(copy, *sorted(set(noticed_by)))
    assert passed.code == 0, passed.output
