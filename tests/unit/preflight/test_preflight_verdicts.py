"""Judging made-up facts of 256 ranks on 32 nodes: every failure is named, and only that."""

from __future__ import annotations

import pytest
from support.made_up_ranks import HOSTS, RANKS, everywhere, kinds

from hvd_utils.cli.errors import EXIT_BAD_INPUT, EXIT_FAILED
from hvd_utils.cli.ranks import name_ranks
from hvd_utils.config.settings import Settings
from hvd_utils.preflight.checks import data, node, software
from hvd_utils.preflight.checks.network_verdicts import (
    Timed,
    judge_clocks,
    judge_link,
    judge_slow,
    judge_slow_node,
    judge_sums,
)
from hvd_utils.preflight.checks.throughput_verdicts import (
    estimate,
    judge_loading,
    judge_training,
    reduce_seconds,
)
from hvd_utils.preflight.coordinator import Answers
from hvd_utils.preflight.verdict import Verdict, exit_code, table, worst


def test_few_ranks_are_named_and_the_others_counted():
    assert name_ranks(range(16), HOSTS).startswith("rank 0 (node00), rank 1 (node00)")
    assert name_ranks(range(16), HOSTS).endswith(" and 12 more")
    assert name_ranks([300], HOSTS) == "rank 300 (host unknown)"


def test_the_table_has_the_remedy_below_its_line():
    lines = table([Verdict("a", "ok", "x"), Verdict("long", "fail", "y", "mend it")]).splitlines()
    assert lines == ["ok    a     x", "fail  long  y", "            -> mend it"]
    assert worst([Verdict("a", "warn", ""), Verdict("b", "skip", "")]) == "warn"
    assert worst([Verdict("a", "skip", "")]) == "ok"


VERSIONS = dict.fromkeys(("Python", *software.PACKAGES, "DALI", "NCCL", "MPI", "driver"), "1")
SOFTWARE = {"versions": VERSIONS, "code": "abc"}


def test_the_same_software_everywhere_passes():
    assert kinds(software.judge(everywhere(SOFTWARE), HOSTS, "d00d")) == {
        "versions": "ok",
        "code": "ok",
    }


@pytest.mark.parametrize("name", VERSIONS)
def test_another_version_is_named_with_its_rank(name):
    odd = {"versions": VERSIONS | {name: "2"}}
    versions, code = software.judge(everywhere(SOFTWARE, r77=odd), HOSTS, None)
    assert versions.verdict == "fail"
    assert f"{name} 1 on most, but 2 on rank 77 (node09)" in versions.seen
    assert code.verdict == "ok"


def test_a_package_that_is_nowhere_fails():
    facts = everywhere({"versions": VERSIONS | {"horovod": None}, "code": "abc"})
    versions, _ = software.judge(facts, HOSTS, None)
    assert versions.verdict == "fail"
    assert "horovod" in versions.seen


def test_other_code_is_named():
    _, code = software.judge(everywhere(SOFTWARE, r255={"code": "xyz"}), HOSTS, None)
    assert code.verdict == "fail"
    assert "xyz on rank 255 (node31)" in code.seen


def test_names_of_mpi_libraries_are_short():
    assert software.mpi_name("Open MPI v5.0.11, package: x\0") == "Open MPI 5.0.11"
    assert software.mpi_name("MPICH Version:      4.2.1\nDate: 1") == "MPICH 4.2.1"
    assert software.mpi_name("Cray MPI 8") == "Cray MPI 8"


def test_a_changed_file_changes_the_hash_of_the_code(tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "a.yaml").write_text("seed: 1")
    before = software.code_hash(tmp_path, ("recipes/**/*.yaml",))
    assert software.code_hash(tmp_path, ("recipes/**/*.yaml",)) == before
    (tmp_path / "recipes" / "a.yaml").write_text("seed: 2")
    assert software.code_hash(tmp_path, ("recipes/**/*.yaml",)) != before


NODE = {
    "shm": 64e9,
    "tmp": 64e9,
    "output": 64e9,
    "files": 65536,
    "processes": -1,
    "ram_per_rank": 64e9,
    "cores": 64,
    "allowed": 64,
    "local_size": 8,
    "binding": None,
}


def test_a_well_equipped_node_passes():
    verdicts = node.judge(everywhere(NODE), HOSTS)
    assert set(kinds(verdicts).values()) == {"ok"}
    assert "free for output" in kinds(verdicts)


@pytest.mark.parametrize(
    ("odd", "check", "verdict"),
    [
        ({"shm": 64e6}, "/dev/shm", "fail"),  # docker's default, for 8 ranks
        ({"shm": 245e6}, "/dev/shm", "warn"),
        ({"files": 256}, "open files", "fail"),
        ({"files": 1024}, "open files", "warn"),
        ({"processes": 100}, "processes", "fail"),
        ({"tmp": 1e6}, "free in /tmp", "fail"),
        ({"output": 2e9}, "free for output", "warn"),
        ({"ram_per_rank": 1e8}, "free memory a rank", "fail"),
        ({"binding": "warning", "allowed": 1}, "cores a rank", "warn"),
    ],
)
def test_what_a_node_is_short_of_is_named_with_its_host(odd, check, verdict):
    verdicts = {one.check: one for one in node.judge(everywhere(NODE, r100=odd), HOSTS)}
    assert verdicts[check].verdict == verdict
    assert "node12" in verdicts[check].seen
    assert verdicts[check].remedy
    assert [one.check for one in verdicts.values() if one.verdict != "ok"] == [check]


SPLIT = {"images": 100, "classes": 10, "bytes": 5, "digest": "a", "how": "x", "sampled": False}
SEEN = {"train": SPLIT, "val": SPLIT, "decoded": 8, "bad": {}}
LEADERS = range(0, 256, 8)


def seen(**odd) -> dict[int, dict]:
    return {rank: fact for rank, fact in everywhere(SEEN, **odd).items() if rank in LEADERS}


def test_the_same_data_on_all_nodes_passes():
    assert kinds(data.judge(seen(), HOSTS)) == {"data": "ok", "decoding": "ok"}


@pytest.mark.parametrize("change", [{"images": 99}, {"bytes": 4}, {"digest": "b"}, {"classes": 9}])
@pytest.mark.parametrize("split", ["train", "val"])
def test_other_data_is_named_with_its_host(split, change):
    listing, decoding = data.judge(seen(r16={split: SPLIT | change}), HOSTS)
    assert listing.verdict == "fail"
    assert "rank 16 (node02)" in listing.seen
    assert decoding.verdict == "ok"


def test_a_broken_image_is_named_and_may_be_skipped():
    facts = seen(r8={"bad": {"/d/train/a/1.jpg": "truncated"}})
    _, decoding = data.judge(facts, HOSTS)
    assert decoding.verdict == "fail"
    assert "/d/train/a/1.jpg (truncated), on node01" in decoding.seen
    assert data.judge(facts, HOSTS, "skip")[1].verdict == "warn"


def test_clocks():
    good = dict.fromkeys(range(8, 256, 8), (0.01, 0.001))
    assert judge_clocks({}, HOSTS).verdict == "skip"
    assert judge_clocks(good, HOSTS).verdict == "ok"
    assert judge_clocks(good | {8: (5.0, 6.0)}, HOSTS).verdict == "ok"  # nothing is proven
    some = judge_clocks(good | {8: (-2.0, 0.1)}, HOSTS)
    assert (some.verdict, "node01 is 2.0 s behind node00" in some.seen) == ("warn", True)
    much = judge_clocks(good | {8: (3600.0, 0.1)}, HOSTS)
    assert (much.verdict, "ahead of" in much.seen) == ("fail", True)


def test_sums_report_bus_bandwidth():
    sums = [Timed(1024, 4, 1e-5), Timed(2**28, 4, 1.0)]
    assert sums[1].gbit == pytest.approx(2 * 3 / 4 * 2**28 * 8 / 1e9)
    assert "256 MB in 1.0 s: 3.2 Gbit/s" in judge_sums("all", sums).seen
    assert judge_sums("all", []).verdict == "skip"


@pytest.mark.parametrize(
    ("measured", "expected", "verdict"),
    [(90, 100, "ok"), (30, 100, "warn"), (1, 100, "fail"), (1, None, "ok"), (None, 9, "skip")],
)
def test_links_are_held_against_what_they_should_give(measured, expected, verdict):
    assert judge_link(measured, expected, "--expected-gbit", 32).verdict == verdict
    assert judge_link(measured, expected, "--expected-gbit", 1).verdict == "skip"


def test_a_rank_that_computes_slowly_is_named():
    work = dict.fromkeys(RANKS, 1.0) | {200: 3.0}
    verdict = judge_slow("slowest", work, {}, HOSTS)
    assert verdict.verdict == "warn"
    assert "rank 200 (node25) takes 3.0 times" in verdict.seen
    assert judge_slow("slowest", dict.fromkeys(RANKS, 1.0), {}, HOSTS).verdict == "ok"
    assert judge_slow("slowest", {0: 1.0}, {}, HOSTS).verdict == "skip"


def ring_with_slow(slow: int, ranks: range) -> dict[int, dict[int, float]]:
    swaps: dict[int, dict[int, float]] = {rank: {} for rank in ranks}
    for number, rank in enumerate(ranks):
        other = ranks[(number + 1) % len(ranks)]
        swaps[rank][other] = swaps[other][rank] = 5.0 if slow in (rank, other) else 1.0
    return swaps


def test_a_rank_with_a_slow_link_is_told_from_its_neighbours():
    work = dict.fromkeys(RANKS, 1.0)
    verdict = judge_slow("slowest", work, ring_with_slow(99, RANKS), HOSTS)
    assert verdict.verdict == "warn"
    assert verdict.seen.startswith("rank 99 (node12) takes 5.0 times")
    both = judge_slow("slowest", work | {200: 3.0}, ring_with_slow(99, RANKS), HOSTS).seen
    assert "rank 200 (node25) takes 3.0 times the others' median to add up; rank 99 (" in both


def test_a_node_with_a_slow_link_is_named():
    assert judge_slow_node(ring_with_slow(40, LEADERS), HOSTS).seen.startswith("node05: 5.0 times")
    assert judge_slow_node(ring_with_slow(40, LEADERS), HOSTS).verdict == "warn"
    assert judge_slow_node(ring_with_slow(-1, LEADERS), HOSTS).verdict == "ok"
    assert judge_slow_node({}, HOSTS).verdict == "skip"


TRAINED = {"rate": 1000.0, "batch": 32, "device": "cuda", "parameters": 25_557_032}


def test_the_slowest_trainer_is_named():
    assert judge_training(everywhere(TRAINED), HOSTS, "resnet50").verdict == "ok"
    slow = judge_training(everywhere(TRAINED, r17={"rate": 300.0}), HOSTS, "resnet50")
    assert (slow.verdict, "rank 17 (node02)" in slow.seen) == ("warn", True)
    mixed = judge_training(everywhere(TRAINED, r17={"device": "cpu"}), HOSTS, "resnet50")
    assert (mixed.verdict, "rank 17 (node02)" in mixed.seen) == ("fail", True)


@pytest.mark.parametrize(("rate", "verdict"), [(1100, "ok"), (700, "warn"), (300, "fail")])
def test_a_node_that_loads_too_slowly_is_named(rate, verdict):
    facts = everywhere({"rate": 2000.0})
    for rank in range(24, 32):
        facts[rank] = {"rate": float(rate)}
    judged = judge_loading(facts, HOSTS, dict.fromkeys(RANKS, 1000.0))
    assert judged.verdict == verdict
    assert f"{8 * rate:,} images/s of node03" in judged.seen
    assert judge_loading(facts, HOSTS, {}).verdict == "ok"  # nobody knows what is needed
    demo = judge_loading(facts, HOSTS, dict.fromkeys(RANKS, 1000.0), worst="warn")
    assert demo.verdict == verdict.replace("fail", "warn")


def test_gradients_are_summed_in_a_time_between_two_measured():
    sums = [Timed(100, 4, 1.0), Timed(200, 4, 3.0)]
    assert reduce_seconds(sums, 150) == pytest.approx(2.0)
    assert reduce_seconds(sums, 400) == pytest.approx(6.0)
    assert reduce_seconds(sums, 50) == pytest.approx(1.0)
    assert reduce_seconds([], 50) is None


def test_the_paper_on_256_ranks_at_its_rates_takes_an_hour():
    verdict, figures = estimate(Settings(recipe="paper"), 256, 1_281_167, 138.0, 1000.0, 0.02)
    assert figures["steps"] == 14_075
    low, high = figures["total_seconds"]
    assert low == pytest.approx(14_075 * 32 / 138)  # all at once: computing is the longest
    assert high == pytest.approx(14_075 * (32 / 138 + 32 / 1000 + 0.02))
    assert "54.4 min to" in verdict.seen


def test_an_estimate_says_what_it_lacks():
    verdict, _ = estimate(Settings(recipe="paper"), 256, 1_281_167, 138.0, None, None)
    assert "input, allreduce left out" in verdict.seen
    assert estimate(Settings(recipe="paper"), 256, None, 138.0, 1.0, 1.0)[0].verdict == "skip"
    assert estimate(Settings(recipe="paper"), 256, 10_000, None, 1.0, 1.0)[0].verdict == "skip"


def test_a_child_that_fails_is_named_and_a_short_time_is_not_held_against_it():
    crashed = Answers({0: {}}, {5: "killed by SIGSEGV in imports"}, set())
    (verdict,) = crashed.trouble("imports", HOSTS)
    assert verdict.verdict == "fail"
    assert "rank 5 (node00): killed by SIGSEGV" in verdict.seen
    hung = Answers({0: {}}, {5: "no answer within 9 s"}, {5})
    assert hung.trouble("imports", HOSTS)[0].verdict == "fail"
    everybody = Answers({}, {0: "no answer", 1: "no answer"}, {0, 1})
    assert everybody.trouble("imports", HOSTS)[0].verdict == "warn"
    assert Answers({0: {}}).trouble("imports", HOSTS) == []


def test_only_machines_and_time_have_the_job_started_again():
    """Code 2 is never started again; see ``inspect.requeue``."""
    late = Answers({0: {}}, {5: "no answer within 60 s"}, {5}).trouble("imports", HOSTS)
    everywhere_broken = Answers({}, {0: "no module", 5: "no module"}).trouble("imports", HOSTS)
    bad_image = data.judge(seen(r8={"bad": {"a.jpg": "no image"}}), HOSTS)
    for verdicts, code in (
        ([], 0),
        ([Verdict("a", "warn", "")], 0),
        (late, EXIT_FAILED),
        ([judge_clocks({8: (3600.0, 0.1)}, HOSTS)], EXIT_FAILED),
        (node.judge(everywhere(NODE, r9={"ram_per_rank": 1e8}), HOSTS), EXIT_FAILED),
        (node.judge(everywhere(NODE | {"files": 256}), HOSTS), EXIT_BAD_INPUT),
        (everywhere_broken, EXIT_BAD_INPUT),
        (bad_image, EXIT_BAD_INPUT),
        ([*late, *bad_image], EXIT_BAD_INPUT),
    ):
        assert exit_code(verdicts) == code, verdicts


def test_a_minibatch_larger_than_the_data_is_a_warning():
    verdict, figures = estimate(Settings(recipe="paper"), 256, 30, 138.0, 1000.0, 0.02)
    assert (verdict.verdict, figures) == ("warn", {})
    assert "kn = 8,192 is more than the 30 training images" in verdict.seen
