"""The probe of a GPU's decoders: its verdicts, how they are kept, and the choice of all ranks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from nvidia import dali, nvimgcodec
from support.launching import PROGRAMS, REPOSITORY

from dali_pipeline.dataset.scan import scan_splits
from dali_pipeline.loading.decoding import cache
from dali_pipeline.loading.decoding import choose as choosing
from dali_pipeline.loading.decoding import probe as probing
from dali_pipeline.loading.decoding.crops import Crops, load_crops, planned_crops
from dali_pipeline.loading.decoding.probe import DECODERS, probe
from dali_pipeline.loading.decoding.verdict import Verdict, choose, describe, needed_ways
from dali_pipeline.sampling.plan import Plan
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import Settings

SETTINGS = Settings(recipe="demo", workers=2, batch_per_worker=4)
CUDA = torch.device("cuda", 0)
PASSED = {"cpu": Verdict("", 1000), "gpu": Verdict("", 2000), "hardware": Verdict("", 3000)}
CRASHED = Verdict("killed by SIGSEGV")


@pytest.fixture(scope="module")
def crops(tiny_data) -> Crops:
    return planned_crops(scan_splits(tiny_data), SETTINGS)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def planted(monkeypatch):
    """Has the probe take planted decoders, named by way."""
    monkeypatch.setenv("PYTHONPATH", f"{PROGRAMS}:{REPOSITORY}")

    def plant(**decoders):
        named = {way: f"planted_decoders:{name}" for way, name in decoders.items()}
        monkeypatch.setattr(probing, "DECODERS", {**DECODERS, **named})
        return named

    return plant


def test_crops_are_those_of_training_and_survive_a_file(tiny_data, crops, tmp_path):
    settings = SETTINGS.model_copy(update={"workers": 1, "batch_per_worker": 30})
    batch = Plan(*scan_splits(tiny_data), settings, [range(1)], 0, 1).training_batch(0, range(1))
    assert np.array_equal(crops.start[:, 0], batch.windows.top)
    assert np.array_equal(crops.shape[:, 1], batch.windows.width)
    crops.save(tmp_path / "crops.npz")
    again = load_crops(tmp_path / "crops.npz")
    assert all(map(np.array_equal, again.encoded, crops.encoded))
    assert np.array_equal(again.shape, crops.shape)
    assert again.largest == crops.largest == (6430, 5980)  # no prepared index tells of others


def test_the_probe_runs_the_graphs_of_the_job_on_the_cpu(crops):
    """And what needs a driver fails where there is none, with DALI's reason."""
    few = crops.part(slice(6))
    ways = dict(list(DECODERS.items())[: 1 if torch.cuda.is_available() else 2])
    verdicts = probe(few, ways, None, threads=1, seconds=500)
    assert verdicts["cpu"].passed
    assert verdicts["cpu"].rate > 0
    if "gpu" in verdicts:
        assert "requires a CUDA-capable GPU" in verdicts["gpu"].reason


@pytest.mark.parametrize(
    ("decoder", "reason", "lasting"),
    [
        ("RoundsOtherwise", "", True),
        ("Crashes", "killed by SIGSEGV", True),
        ("IsKilled", "killed by SIGKILL", False),
        ("Refuses", "ended with code 1: in the decoder", True),
        ("Overwrites", "1 of 30 crops are not the CPU's: they differ by up to 40 of 255", True),
        ("FailsWholeImages", "30 of 30 whole images are not the CPU's", True),
        ("DependsOnBatch", "of 30 crops change with the size and order of the batch", True),
        ("DependsOnOrder", "30 of 30 crops change with the size and order of the batch", True),
    ],
)
def test_each_way_of_failing_has_its_verdict(crops, planted, decoder, reason, lasting):
    verdict = probe(crops, planted(cpu="Sound", gpu=decoder), None, threads=1)["gpu"]
    assert reason in verdict.reason
    assert verdict.passed == (reason == "")
    assert verdict.lasting == lasting


def test_a_way_that_hangs_is_given_up(crops, planted):
    decoders = planted(cpu="Sound", gpu="Hangs")
    verdicts = probe(crops, {"cpu": decoders["gpu"]}, None, threads=1, seconds=0.1)
    assert verdicts["cpu"] == Verdict("no answer within 0 s", lasting=False)


def test_without_the_cpus_images_nothing_passes(crops, planted):
    verdict = probe(crops, planted(cpu="Crashes", gpu="Sound"), None, threads=1)["gpu"]
    assert verdict.reason == "nothing to compare it with: by cpu killed by SIGSEGV"
    assert not verdict.lasting


def test_a_probe_that_cannot_be_made_is_a_verdict_and_ends_no_rank(tiny_data, monkeypatch):
    def full(*given):
        raise OSError("No space left on device")

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(probing, "probe", full)
    found = choosing.probe_here(needed_ways("auto"), SETTINGS, scan_splits(tiny_data), 0, 1)
    assert found["gpu"] == Verdict("could not be probed: No space left on device", lasting=False)
    assert choose("auto", [("node0", PASSED), ("node1", found)]) == "cpu"


def test_verdicts_are_kept_until_card_driver_or_library_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device}")
    driver = tmp_path / "version"
    driver.write_text("NVRM version: 580.1\nGCC version: 13\n")
    key = cache.probe_key(0, "/data/train", driver)
    cache.remember(cache.verdict_file(key), key, {"cpu": PASSED["cpu"], "gpu": CRASHED})
    cache.remember(cache.verdict_file(key), key, {"hardware": PASSED["hardware"]})
    expected = {"cpu": PASSED["cpu"], "gpu": CRASHED, "hardware": PASSED["hardware"]}
    assert cache.recall(cache.verdict_file(key), expected) == expected

    def known(changed):
        return cache.recall(cache.verdict_file(changed), ["cpu"]) is not None

    assert known(cache.probe_key(0, "/data/train", driver))
    assert not known(cache.probe_key(1, "/data/train", driver))
    assert not known(cache.probe_key(0, "/other/train", driver))
    changes = [(dali, "__version__", "9.9"), (nvimgcodec, "__version__", "9.9")]
    changes += [(cache.socket, "gethostname", lambda: "another"), (cache, "VERSION", 99)]
    for where, name, other in changes:
        with monkeypatch.context() as patch:
            patch.setattr(where, name, other)
            assert not known(cache.probe_key(0, "/data/train", driver)), name
    assert known(cache.probe_key(0, "/data/train", driver))
    driver.write_text("NVRM version: 590.2\n")
    assert not known(cache.probe_key(0, "/data/train", driver))


def test_what_may_be_otherwise_next_time_is_not_kept_nor_is_a_damaged_file_read(tmp_path):
    file = tmp_path / "verdicts.json"
    cache.remember(file, {}, {"cpu": PASSED["cpu"], "gpu": Verdict("late", lasting=False)})
    assert cache.recall(file, ["cpu"]) == {"cpu": PASSED["cpu"]}
    assert cache.recall(file, ["cpu", "gpu"]) is None
    file.write_text('{"verdicts": {"cpu": 3')
    assert cache.recall(file, ["cpu"]) is None
    cache.remember(file, {}, PASSED)
    assert cache.recall(file, PASSED) == PASSED
    cache.remember(tmp_path / "verdicts.json" / "below a file", {}, PASSED)  # without a word


def test_a_user_without_a_home_probes_each_time(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cache, "cache_folder", no_home)
    assert cache.verdict_file({}) is None
    cache.remember(None, {}, PASSED)
    assert cache.recall(None, ["cpu"]) is None


def node(host="a", **changes):
    return host, {**PASSED, **changes}


def test_auto_takes_the_quickest_that_passed_on_every_node():
    assert choose("auto", [node(), node("b")]) == "hardware"
    assert choose("auto", [node(), node("b", hardware=CRASHED)]) == "gpu"
    assert choose("auto", [node(gpu=Verdict("", 500)), node("b", hardware=CRASHED)]) == "cpu"
    assert choose("auto", [node(), node("b", hardware=Verdict("", 900))]) == "gpu"
    assert choose("auto", [("a", dict.fromkeys(PASSED, CRASHED))]) == "cpu"


def test_auto_stays_with_what_the_run_was_trained_by():
    assert choose("auto", [node()], before="gpu") == "gpu"
    assert choose("auto", [node(gpu=CRASHED)], before="gpu") == "hardware"


def test_a_way_that_was_asked_for_and_failed_is_refused_with_the_remedy():
    assert choose("gpu", [node()]) == "gpu"
    with pytest.raises(BadInput, match=r"--decode gpu .*killed by SIGSEGV \(b\): set --decode cpu"):
        choose("gpu", [node(), node("b", gpu=CRASHED)])


def test_the_line_names_what_failed_and_where():
    line = describe("hardware", [node(), node("b", gpu=CRASHED)])
    assert line == (
        "decoding: hardware; cpu: 1,000 images/s a process, gpu: killed by SIGSEGV (b), "
        "hardware: 3,000 images/s a process"
    )


@pytest.mark.parametrize("decode", ["gpu", "hardware", "auto"])
def test_the_cpu_is_always_probed_beside(decode):
    assert {"cpu"} < {*needed_ways(decode)}
    assert needed_ways("cpu") == ()


class Nodes:
    """Rank 0 of two nodes, of which the other is ``other``; its neighbour as ``local_rank`` 1."""

    is_root, local_size, cores, host = True, 2, 1, "a"

    def __init__(self, other=None, local_rank=0):
        self.other, self.local_rank = other, local_rank

    def broadcast(self, value):
        return value

    def gather(self, value):
        return [value, None, self.other, None]


def decide(decode, world, data, run=None, **changes):
    settings = SETTINGS.model_copy(update={"decode": decode, **changes})
    device = CUDA if changes.get("device") != "cpu" else torch.device("cpu")
    return choosing.decide_decoding(settings, scan_splits(data), world, device, run).decode


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")


def test_a_node_probes_once_and_all_agree(tiny_data, planted, card, monkeypatch, capsys):
    planted(cpu="Sound", gpu="RoundsOtherwise", hardware="Crashes")
    assert decide("auto", Nodes(node("b")), tiny_data) == "gpu"
    assert "hardware: killed by SIGSEGV (a)" in capsys.readouterr().out
    monkeypatch.setattr(probing, "probe", None)  # from here on, what is kept has to do
    assert decide("auto", Nodes(node("b", gpu=CRASHED)), tiny_data) == "cpu"
    assert decide("gpu", Nodes(node("b")), tiny_data) == "gpu"
    with pytest.raises(BadInput, match="--decode hardware does not work here: killed by SIGSEGV"):
        decide("hardware", Nodes(node("b")), tiny_data)
    key = json.loads(next((cache.cache_folder() / "decoding").iterdir()).read_text())["key"]
    assert key["card"] == "a card"


def test_only_the_first_process_of_a_node_probes(tiny_data, card, monkeypatch):
    monkeypatch.setattr(choosing, "probe_here", None)
    assert decide("auto", Nodes(node("b"), local_rank=1), tiny_data) == "hardware"


def test_by_default_nothing_is_probed(tiny_data, monkeypatch):
    assert Settings(recipe="demo").decode == "cpu"
    monkeypatch.setattr(choosing, "probe_here", None)
    assert decide("cpu", Nodes(), tiny_data) == "cpu"


@pytest.mark.parametrize("changes", [{"device": "cpu"}, {"loader": "torchvision"}])
def test_where_no_gpu_decodes_auto_is_the_cpu_and_a_gpus_way_is_refused(tiny_data, changes):
    assert decide("auto", Nodes(), tiny_data, **changes) == "cpu"
    with pytest.raises(BadInput, match="--decode gpu is for --loader dali on a GPU"):
        decide("gpu", Nodes(), tiny_data, **changes)


def test_a_run_that_goes_on_keeps_its_way_or_says_that_it_changes(
    tiny_data, tmp_path, card, monkeypatch, capsys
):
    monkeypatch.setattr(choosing, "probe_here", lambda *where: PASSED)
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"decode": "gpu"}))
    for run in (tmp_path, str(tmp_path)):  # an elastic job's state has the text
        assert decide("auto", Nodes(), tiny_data, run=run) == "gpu"
    assert "warning" not in capsys.readouterr().out
    assert decide("cpu", Nodes(), tiny_data, run=tmp_path) == "cpu"
    assert "decoded by --decode gpu so far, from here on by cpu" in capsys.readouterr().out


@pytest.mark.parametrize("text", [None, "", "- decode", "decode: 0.75", "{", "decode: [1]"])
def test_a_run_that_does_not_tell_how_it_decoded_has_no_way(tmp_path, text):
    if text is not None:
        (tmp_path / "settings.yaml").write_text(text)
    assert choosing.decoded_before(tmp_path) is None
    assert choosing.decoded_before(None) is None
