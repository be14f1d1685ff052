"""How k logical workers are shared by P processes."""

import pytest

from hvd_utils.workers import share


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
