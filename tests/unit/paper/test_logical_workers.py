"""How k logical workers are shared by P processes."""

import pytest

from hvd_utils.paper.logical_workers import default_fuse, passes, random_seed, share


@pytest.mark.parametrize(("workers", "size"), [(8, 1), (8, 3), (7, 4), (256, 256), (256, 5)])
def test_every_worker_belongs_to_exactly_one_process(workers, size):
    shares = [share(workers, rank, size) for rank in range(size)]
    assert [worker for part in shares for worker in part] == list(range(workers))
    lengths = [len(part) for part in shares]
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1


def test_more_processes_than_workers_are_refused():
    with pytest.raises(ValueError, match="3 workers cannot be shared by 4 processes"):
        share(3, 0, 4)


@pytest.mark.parametrize(("fuse", "counts"), [(1, [1] * 7), (3, [2, 2, 3]), (4, [3, 4]), (9, [7])])
def test_passes_are_as_few_and_as_even_as_can_be(fuse, counts):
    parts = passes(range(5, 12), fuse)
    assert [worker for part in parts for worker in part] == list(range(5, 12))
    assert [len(part) for part in parts] == counts


def test_workers_are_fused_by_default_where_a_gpu_would_be_idle():
    assert default_fuse(32, None) == 1  # a CPU
    assert default_fuse(32, 80 * 10**9) == 8  # 256 images
    assert default_fuse(32, 16 * 10**9) == 2
    assert default_fuse(256, 80 * 10**9) == 1
    assert default_fuse(1024, 10**9) == 1


def test_random_seeds_differ_by_run_step_and_worker():
    seeds = {random_seed(s, step, w) for s in (1, 2) for step in range(50) for w in range(8)}
    assert len(seeds) == 2 * 50 * 8
    assert random_seed(1, 2, 3) == random_seed(1, 2, 3) != random_seed(1, 3, 2)
