"""The last lines of a test run name what failed, why, how it was launched, and each rank's end."""

from __future__ import annotations

import pytest
from support.failures import LINES, WIDTH, last_words, summary
from support.launching import REPOSITORY, launch

PRINTED = """[1,0]<stdout>: run: demo
[1,1]<stderr>: error on rank 1: no such image
[1,0]<stdout>: epoch 1
mpirun has exited
-----------------
"""


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        (PRINTED, {"all": "mpirun has exited", "rank 0": "epoch 1",
                   "rank 1": "error on rank 1: no such image"}),
        ("[0]<stdout>:one\n[0]<stderr>: two\n\n", {"rank 0": "two"}),
        ("", {}),
    ],
)  # fmt: skip
def test_each_ranks_last_words(printed, words):
    assert last_words(printed) == words


@pytest.mark.parametrize("count", [1, 3, 6, 28, 500])
def test_any_number_of_failures_fits_and_is_told(count):
    lines = ["$ mpirun " + "x" * 500, *(f"rank {rank}: ends" for rank in range(8)), "files: /run"]
    shown = summary([(f"a.py::test_{n}", "assert 1 == 2", lines) for n in range(count)])
    assert len(shown) <= LINES
    assert all(len(line) <= WIDTH for line in shown)
    named = sum(line.startswith("a.py::test_") for line in shown)
    assert named == count or f"and {count - named} more: test_{named}" in shown[-1]
    assert shown[0] == "a.py::test_0"
    assert shown[1].strip() == "assert 1 == 2"
    assert "files: /run" in "".join(shown) or count > 8


def test_a_run_of_tests_ends_with_what_failed(tmp_path):
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["support.failures"]\n')
    (tmp_path / "test_it.py").write_text(
        "from support.launching import launch\n"
        "def test_it(tmp_path):\n"
        "    program = 'import os, sys; print(5); '\\\n"
        "        'sys.exit(3 * int(os.environ[\"OMPI_COMM_WORLD_RANK\"]))'\n"
        "    launch(['-c', 'print(7); print(8)'], ranks=1)\n"
        "    ended = launch(['-c', program], ranks=2)\n"
        "    assert ended.code == 0\n"
    )
    paths = f"{REPOSITORY / 'tests'}:{REPOSITORY}"
    command = ["-m", "pytest", "-q", "--basetemp", str(tmp_path / "base"), str(tmp_path)]
    ended = launch(command, by="python", cwd=tmp_path, PYTHONPATH=paths)
    assert ended.code == 1
    last = "\n".join(ended.output.splitlines()[-12:])
    for words in (
        "test_it.py::test_it\n",
        "assert 3 == 0",
        "$ horovodrun -np 2",
        "rank 1: 5",
        "rank 0: 8",
    ):
        assert words in last, ended.output
    assert last.index("rank 1: 5") < last.index("rank 0: 8")  # the last launch first
    assert "]<stdout>: 7\n" in ended.output
    assert f"files: {tmp_path / 'base' / 'test_it0'}" in last
