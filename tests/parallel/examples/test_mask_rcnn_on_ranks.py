"""``examples/mask_rcnn.py`` on real ranks: one trajectory, also where it is resumed."""

from __future__ import annotations

import pytest
from support.coco import EXAMPLE, TINY, change, write_coco
from support.launching import launch

from hvd_utils.inspect.compare import differences, newest
from hvd_utils.run.folder import checkpoint_path

FLOAT64 = 1e-10


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("shapes"))


def run(shapes, output, *more, **options):
    command = [EXAMPLE, *TINY, "--data", shapes, "--output", output, *more]
    return launch([str(word) for word in command], timeout=300, **options)


def test_two_ranks_go_on_with_the_trajectory_of_one(shapes, tmp_path):
    """k = 3 workers: step 3, made by two ranks instead, differs by rounding."""
    same = ("--workers", "3", "--precision", "fp64", "--max-steps", "3", "--checkpoint-every", "2")
    alone = run(shapes, tmp_path / "one", *same, by="python")
    assert alone.code == 0, alone.output
    halfway = checkpoint_path(tmp_path / "two", 2)
    halfway.parent.mkdir(parents=True)
    halfway.hardlink_to(checkpoint_path(tmp_path / "one", 2))
    rest = run(shapes, tmp_path / "two", *same, ranks=2)
    assert rest.code == 0, rest.output
    assert f"resuming from {halfway}, step 2" in rest.output
    ours, theirs = (newest(tmp_path / name) for name in ("two", "one"))
    assert ours["step"] == theirs["step"] == 3
    apart = differences(ours, theirs)
    assert 0 < apart["weights"] < FLOAT64, apart  # not 0: they were indeed summed otherwise
    assert apart["momentum"] < FLOAT64, apart
    assert differences({**newest(halfway), "step": 3}, theirs)["weights"] > 1e6 * FLOAT64
    judged = [(tmp_path / name / "precision.json").read_text() for name in ("one", "two")]
    assert judged[0] == judged[1]


def test_bad_input_is_one_line_and_code_2(shapes, tmp_path):
    wrong = write_coco(tmp_path / "wrong", train=4)
    change(wrong, "val2017", categories=[{"id": n, "name": "x"} for n in (1, 3, 7, 9)])
    ended = run(wrong, tmp_path / "run", ranks=2)
    assert ended.code == 2, ended.output
    assert "Traceback" not in ended.output
    assert ended.output.count("error: ") == 1
    assert "has 3 categories and" in ended.output
