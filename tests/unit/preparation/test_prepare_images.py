"""Every image is decoded once: bad ones are listed, some repaired, and it goes on where it was."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.images import write_jpegs
from support.preparing import run, state

from dali_pipeline import prepare
from dali_pipeline.dataset.index_file import open_splits
from dali_pipeline.preparation import image_check, verify
from hvd_utils.cli.errors import BadInput


@pytest.fixture
def odd(tmp_path) -> Path:
    """Class folders with ImageNet's traps, and worse."""
    data = tmp_path / "odd"
    write_jpegs(data / "train", {"ant": 5, "bee": 5}, seed=1)
    write_jpegs(data / "val", {"ant": 1, "bee": 1}, seed=2)
    ant, bee = data / "train" / "ant", data / "train" / "bee"
    colours = Image.open(ant / "000.JPEG")
    colours.save(ant / "000.JPEG", "PNG")
    colours.convert("CMYK").save(ant / "001.JPEG", "JPEG")
    colours.convert("L").save(ant / "002.JPEG", "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    colours.save(ant / "003.JPEG", "JPEG", exif=exif)
    Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32)).save(bee / "004.png")
    (bee / "000.JPEG").write_bytes((bee / "000.JPEG").read_bytes()[:-200])
    (bee / "001.JPEG").write_bytes(b"")
    (bee / "002.JPEG").write_bytes(b"<html>not found</html>")
    return data


FOUND = {
    "train/ant/000.JPEG\tformat\tPNG under a JPEG's name",
    "train/ant/001.JPEG\tcmyk\tCMYK",
    "train/ant/003.JPEG\torientation\tEXIF orientation 6, ignored in training",
    "train/bee/004.png\tdepth\tmore than 8 bits a channel (I;16)",
}


def report(data: Path) -> list[str]:
    lines = (data / "prepare-report.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_bad_files_are_listed_and_fail(odd, capsys):
    message = "3 images cannot be decoded, first .*train/bee/000.JPEG: see .*report.txt; .*--drop"
    with pytest.raises(BadInput, match=message):
        run(odd)
    lines = report(odd)
    bad, rest = lines[:3], lines[3:]
    assert [line.split("\t")[:2] for line in bad] == [
        [f"train/bee/00{number}.JPEG", "undecodable"] for number in range(3)
    ]
    assert "truncated" in bad[0]
    assert "the file is empty" in bad[1]
    assert "cannot identify" in bad[2]
    assert set(rest) == FOUND
    out = capsys.readouterr().out
    assert "train: 1 grayscale, first ant/002.JPEG" in out  # counted, not listed
    assert "train: 3 undecodable, first bee/000.JPEG" in out
    assert not list(odd.glob("*.npz"))


def test_bad_files_can_be_left_out(odd):
    run(odd, "--drop-bad")
    train, val = open_splits(odd)
    assert [name.decode() for name in train.names if name.startswith(b"bee")] == [
        *("bee/003.JPEG", "bee/004.JPEG", "bee/004.png"),
    ]
    assert train.labels.tolist() == [0] * 5 + [1] * 3
    assert (train.note, val.note) == ("3 undecodable images left out", "")
    assert np.array_equal(train.sizes(np.arange(8)), scan_sizes(train))
    for path in (odd / "val" / "bee").iterdir():
        path.write_bytes(b"")
    with pytest.raises(BadInput, match="no image of class bee in .*val can be decoded"):
        run(odd, "--drop-bad")


def scan_sizes(index):
    sizes = [Image.open(index.path(image)).size for image in range(len(index))]
    return np.array(sizes).T[::-1]


def test_what_can_be_repaired_is_and_the_original_is_kept(odd):
    paths = [odd / "train" / "ant" / name for name in ("000.JPEG", "001.JPEG")]
    originals = [path.read_bytes() for path in paths]
    wanted = [np.asarray(Image.open(path).convert("RGB"), np.int16) for path in paths]
    run(odd, "--drop-bad", "--repair")
    assert set(report(odd)[3:]) == {line for line in FOUND if "ant/00" not in line or "003" in line}
    for path, original, pixels in zip(paths, originals, wanted, strict=True):
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert np.abs(np.asarray(image, np.int16) - pixels).mean() < 1
        assert (odd / "originals" / path.relative_to(odd)).read_bytes() == original
    originals = (odd / "originals").glob("*/*/*")
    assert sorted(str(path.relative_to(odd / "originals")) for path in originals) == [
        "train/ant/000.JPEG",
        "train/ant/001.JPEG",
    ]
    before = state(odd / "train")
    run(odd, "--drop-bad", "--repair")
    assert state(odd / "train") == before


def test_only_changed_files_are_decoded_again(odd, monkeypatch):
    looked, check_image = [], verify.check_image
    monkeypatch.setattr(
        verify, "check_image", lambda path: looked.append(path) or check_image(path)
    )
    run(odd, "--drop-bad")
    assert len(looked) == 13
    looked.clear()
    run(odd, "--drop-bad")
    assert looked == []
    mended = odd / "train" / "bee" / "001.JPEG"
    shutil.copy(odd / "train" / "bee" / "003.JPEG", mended)
    touched = odd / "val" / "ant" / "000.JPEG"
    os.utime(touched, (1, 1))
    run(odd, "--drop-bad")
    assert looked == [str(mended), str(touched)]
    assert open_splits(odd)[0].note == "2 undecodable images left out"
    for memory in (odd / ".prepare").rglob("*.json"):
        memory.write_text('{"looks-1": {"000.JPEG": 7}}')
    looked.clear()
    run(odd, "--drop-bad")
    assert len(looked) == 13


def test_a_failure_of_the_storage_is_not_remembered(odd, monkeypatch):
    path = str(odd / "val" / "ant" / "000.JPEG")

    def failing(name, *rest):
        if name == path:
            raise OSError(errno.EIO, "Input/output error")
        return open(name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(image_check, "open", failing, raising=False)
        with pytest.raises(BadInput, match="no image of class ant in .*val can be decoded"):
            run(odd, "--drop-bad")
    assert "val/ant/000.JPEG\tundecodable\tInput/output error" in report(odd)
    run(odd, "--drop-bad")
    assert len(open_splits(odd)[1]) == 2


def test_an_interrupted_verification_goes_on(tmp_path, monkeypatch):
    write_jpegs(tmp_path / "train", {"ant": 6, "bee": 4})
    write_jpegs(tmp_path / "val", {"ant": 1, "bee": 1})
    looked, check_image = [], verify.check_image

    def interrupted(path):
        if len(looked) == 5:
            raise KeyboardInterrupt
        looked.append(path)
        return check_image(path)

    monkeypatch.setattr(verify, "PIECE", 2)
    with monkeypatch.context() as patch:
        patch.setattr(verify, "check_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    again = []
    monkeypatch.setattr(verify, "check_image", lambda path: again.append(path) or check_image(path))
    run(tmp_path)
    assert len(again) == 12 - 4  # two whole pieces were remembered
    assert len(open_splits(tmp_path)[0]) == 10


def test_interrupted_it_ends_with_one_line_and_goes_on(tmp_path):
    write_jpegs(tmp_path / "train", {f"class{i}": 40 for i in range(8)})
    write_jpegs(tmp_path / "val", {f"class{i}": 1 for i in range(8)})
    slow = (
        "import time\nfrom dali_pipeline.preparation import verify\ncheck = verify.check_image\n"
        "verify.check_image = lambda path: time.sleep(0.05) or check(path)\n"
    )
    (tmp_path / "slow.py").write_text(
        f"{slow}from dali_pipeline.prepare import main\n"
        "from hvd_utils.cli.run_main import run_main\n"
        "if __name__ == '__main__':\n    run_main(main)\n"
    )
    command = [sys.executable, str(tmp_path / "slow.py"), str(tmp_path), "--processes", "2"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(Path(prepare.__file__).parent.parent)},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".prepare/verified/*/*/*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=240)
    assert (process.returncode, errors) == (130, "error: interrupted\n")
    assert not list(tmp_path.glob("*.npz"))
    run(tmp_path)
    assert len(open_splits(tmp_path)[0]) == 320
