"""What one rank of a node compiled, the others take from PyTorch's cache of graphs."""

from __future__ import annotations

import json
import re

import pytest
import torch
from support.launching import PROGRAMS, TINY, launch

RANKS = 2
# Of torch.compile on a CPU, what takes most of its time and does not pay in a test.
QUICK = {
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0",
    "TORCHINDUCTOR_VEC_ISA_OK": "0",
}
PROGRAM = str(PROGRAMS / "compiling_job.py")


def compiled(data, folder, model, device, **environment):
    """Train two ranks with an empty cache; return what each told, in the order of ranks."""
    where = ("--data", data, "--output", folder / "run", "--device", device)
    options = (*where, *TINY, "--max-steps", 1, "--compile", "default")
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")}
    ended = launch(
        [PROGRAM, model, *map(str, options)], ranks=RANKS, timeout=500, **cache, **environment
    )
    assert ended.code == 0, ended.output
    told = [json.loads(found) for found in re.findall(r'\{"rank".*\}', ended.output)]
    first, second = sorted(told, key=lambda rank: rank["hit"])
    assert first["hit"] == 0 < first["miss"]
    assert second["miss"] == 0 < second["hit"] == first["miss"]
    return sorted(told, key=lambda rank: rank["rank"])


@pytest.mark.long
def test_the_second_rank_finds_what_the_first_compiled(tiny_data, tmp_path):
    """Each would have its own GPU first, if there were two."""
    hidden = {"CUDA_VISIBLE_DEVICES": "0,1"}
    ranks = compiled(tiny_data, tmp_path, "small", "auto", **hidden, **QUICK)
    assert [rank["visible"] for rank in ranks] == ["0,1", "1,0"]


@pytest.mark.gpu
def test_so_it_does_on_two_gpus_each_of_which_is_number_0(tiny_data, tmp_path):
    if torch.cuda.device_count() < RANKS:
        pytest.skip(f"{torch.cuda.device_count()} GPU here, {RANKS} are needed")
    ranks = compiled(tiny_data, tmp_path, "whole", "cuda")
    assert [rank["device"] for rank in ranks] == ["cuda:0", "cuda:0"]
    assert len(set(ranks[0]["gpus"])) == RANKS
