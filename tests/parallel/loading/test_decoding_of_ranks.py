"""Real ranks agree on how a GPU's JPEGs are decoded."""

from __future__ import annotations

from support.launching import PROGRAMS, REPOSITORY, launch


def test_ranks_take_the_same_way_and_end_together_where_it_fails(tmp_path):
    variables = {"PYTHONPATH": f"{REPOSITORY}:{PROGRAMS}", "XDG_CACHE_HOME": str(tmp_path)}
    ended = launch([str(PROGRAMS / "deciding.py"), "auto", "hardware"], ranks=2, **variables)
    assert ended.code == 2, ended.output
    for rank in range(2):
        assert f"rank {rank} takes gpu" in ended.output, ended.output
    assert ended.output.count("--decode hardware does not work here: killed by SIGSEGV") == 1
    assert "Traceback" not in ended.output
    assert len([*tmp_path.rglob("*.json")]) == 1  # one probe a node
