"""The preflight's check of decoding on a GPU: the probe of each node, and whether it keeps up."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from support.launching import PROGRAMS, REPOSITORY

from dali_pipeline.loading.decoding import probe
from dali_pipeline.loading.decoding.verdict import Verdict as Probed
from hvd_utils.config.settings import Settings
from hvd_utils.preflight import child_tasks
from hvd_utils.preflight.checks import decode, table, throughput
from hvd_utils.preflight.checks.throughput_verdicts import judge_loading
from hvd_utils.preflight.coordinator import Answers
from hvd_utils.preflight.options import read_options
from hvd_utils.preflight.this_rank import ThisRank

HOSTS = {0: "node0", 1: "node0", 2: "node1", 3: "node1"}
PASSED = {"cpu": Probed("", 1000), "gpu": Probed("", 2000), "hardware": Probed("", 3000)}
CRASHED = Probed("killed by SIGSEGV")


def facts(**odd):
    """What the nodes' first ranks send: plain values."""
    return json.loads(json.dumps({0: PASSED, 2: {**PASSED, **odd}}), object_hook=_by_rank)


def _by_rank(found):
    return {int(key) if key.isdecimal() else key: value for key, value in found.items()}


def test_a_way_that_passes_on_every_node_passes():
    verdict, way = decode.judge(facts(), HOSTS, "auto")
    assert (verdict.verdict, way) == ("ok", "hardware")
    assert verdict.seen.startswith("hardware; cpu: 1,000 images/s")


@pytest.mark.parametrize(
    ("wanted", "kind", "taken"), [("auto", "warn", "gpu"), ("hardware", "fail", "cpu")]
)
def test_the_rank_where_a_way_crashes_is_named(wanted, kind, taken):
    verdict, way = decode.judge(facts(hardware=CRASHED), HOSTS, wanted)
    assert (verdict.verdict, way) == (kind, taken)
    assert "rank 2 (node1): hardware killed by SIGSEGV" in verdict.seen
    assert verdict.remedy == "set --decode cpu"


def test_without_a_gpu_only_auto_goes_on():
    assert decode.judge({0: {}}, HOSTS, "gpu")[0].verdict == "fail"
    assert decode.judge({0: {}}, HOSTS, "auto")[0].verdict == "skip"


@pytest.fixture
def a_gpu(monkeypatch, tmp_path):
    """A node whose GPU decodes by planted decoders, the hardware crashing."""
    monkeypatch.setenv("PYTHONPATH", f"{PROGRAMS}:{REPOSITORY}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    planted = {"cpu": "Sound", "gpu": "RoundsOtherwise", "hardware": "Crashes"}
    named = {way: f"planted_decoders:{name}" for way, name in planted.items()}
    monkeypatch.setattr(probe, "DECODERS", named)
    monkeypatch.setattr(throughput, "choose_device", lambda *where: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(child_tasks, "_seen", {})


def test_the_child_probes_and_outlives_what_crashes(tiny_data, a_gpu, monkeypatch):
    settings = Settings(recipe="demo", data=str(tiny_data), decode="auto", loader_threads=1)
    place = {"rank": 0, "local_rank": 0, "local_size": 1}
    found = child_tasks.decode(settings, place, afresh=True)
    assert {way: v.reason for way, v in found.items()} == {
        "cpu": "", "gpu": "", "hardware": "killed by SIGSEGV",
    }  # fmt: skip
    # --quick takes what was found before; without it, nothing is taken on trust.
    monkeypatch.setattr(probe, "probe", lambda *_: dict.fromkeys(PASSED, CRASHED))
    assert child_tasks.decode(settings, place, afresh=False) == found
    assert child_tasks.decode(settings, place, afresh=True)["cpu"] == CRASHED


def preflight(*flags, answers=None):
    """The table of rank 0, whose ranks answer this."""
    options, settings = read_options(["--data", "digits", *flags], {})
    asked = []

    def ask(task, limit, what, ranks=None, **arguments):
        asked.append((ranks, arguments))
        return Answers(facts=answers or {})

    lead = SimpleNamespace(here=ThisRank(0, 4, options, settings), hosts=HOSTS, alive=[0, 1, 2, 3])
    lead.ask = ask
    return table.Preflight(lead), asked


def test_one_rank_a_node_is_asked_and_loading_is_measured_by_what_the_job_takes():
    check, asked = preflight("--decode", "auto", answers=facts(hardware=CRASHED))
    check._decode()
    assert asked == [([0, 2], {"job": "decode", "afresh": True})]
    assert check.verdicts[0].verdict == "warn"
    check.lead.ask = lambda *given, **arguments: asked.append(arguments) or Answers(facts={0: {}})
    check._child = lambda *given, **arguments: asked.append(arguments) or Answers()
    check._input()
    assert asked[-1]["decode"] == "gpu"


def test_a_node_that_was_not_probed_in_time_is_no_failure_and_decodes_on_the_cpu():
    """With --quick the others know what an earlier probe found."""
    check, _ = preflight("--decode", "auto")
    late = Answers(facts={0: facts()[0]}, errors={2: "no answer within 20 s"}, timeouts={2})
    check.lead.ask = lambda *given, **arguments: late
    check._decode()
    (verdict,) = check.verdicts
    assert (verdict.verdict, verdict.remedy) == ("warn", "raise --time-limit")
    assert "rank 2 (node1)" in verdict.seen
    assert check._way == "cpu"
    late.timeouts.clear()  # it crashed
    check._decode()
    assert check.verdicts[1].verdict == "fail"


@pytest.mark.parametrize("flags", [[], ["--decode", "auto", "--device", "cpu"]])
def test_where_the_cpu_decodes_nothing_is_probed(flags):
    check, asked = preflight(*flags)
    check._decode()
    assert asked == []
    assert [verdict.verdict for verdict in check.verdicts] == ["skip"]


def test_whether_decoding_keeps_up_is_told_with_its_way_and_another_to_try():
    loaded = {0: {"rate": 600.0, "decode": "cpu"}}
    verdict = judge_loading(loaded, HOSTS, {0: 1000.0})
    assert "600 images/s of node0 by --decode cpu; its ranks train 1,000" in verdict.seen
    assert "--decode auto" in verdict.remedy
    for fact in ({"rate": 600.0, "decode": "gpu"}, {"rate": 600.0}):
        assert "--decode auto" not in judge_loading({0: fact}, HOSTS, {0: 1000.0}).remedy


def test_only_a_gpus_dali_loader_needs_the_probe():
    assert decode.is_skipped(Settings(recipe="demo", device="cuda"))
    assert not decode.is_skipped(Settings(recipe="demo", decode="gpu"))
    assert decode.is_skipped(Settings(recipe="demo", decode="auto", loader="synthetic"))
