"""The set-up: a no-op once it is done, and a Horovod that has what the job needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import install_horovod as installer
import patching
import pytest
from support.launching import REPOSITORY, kill_tree, launch

set_up = pytest.mark.skipif(
    Path(sys.prefix) != REPOSITORY / ".venv", reason="not run in this clone's own .venv"
)


@set_up
def test_a_finished_set_up_does_nothing():
    again = subprocess.Popen(
        [REPOSITORY / "tools/setup.sh"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = again.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        kill_tree(again)
        pytest.fail("the set-up was not finished: run make setup first")
    assert (again.returncode, output) == (0, "")


def test_horovod_has_pytorch_mpi_and_gloo():
    report = subprocess.run(
        ["horovodrun", "--check-build"], capture_output=True, text=True, timeout=240
    ).stdout
    for feature in ("PyTorch", "MPI", "Gloo"):
        assert f"[X] {feature}" in report


def test_every_package_has_what_it_requires():
    checked = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, timeout=240
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("by", ["mpi", "gloo", "mpirun"])
def test_two_ranks_sum(by):
    ended = launch(["-c", installer.ALLREDUCE], ranks=2, by=by, quick=False)
    assert ended.code == 0, ended.output


def test_horovodrun_ends_with_the_jobs_exit_code_and_no_traceback_of_its_own():
    program = "import sys, time, os; time.sleep(int(os.environ['HOROVOD_RANK'])); sys.exit(7)"
    ended = launch(["-c", program], ranks=2, by="gloo", quick=False)
    assert ended.code == 7
    assert "Traceback" not in ended.output


def test_a_patch_that_does_not_fit_the_source_is_refused(tmp_path, monkeypatch):
    archive = next((REPOSITORY / ".setup").glob("horovod/horovod-*.tar.gz"), None)
    if archive is None:
        pytest.skip("the source distribution was removed after the set-up")
    shutil.copy(archive, tmp_path)
    source = installer.fetch_source(tmp_path, tmp_path / "log")
    assert "CMAKE_CXX_STANDARD 20" in (source / "CMakeLists.txt").read_text()
    shutil.copytree(installer.PATCHES, tmp_path / "patches")
    with (tmp_path / "patches" / "series").open("a") as order:
        order.write(patching.series(installer.PATCHES)[0].name + "\n")  # a second time
    monkeypatch.setattr(installer, "PATCHES", tmp_path / "patches")
    with pytest.raises(installer.Failure, match="CMakeLists.txt is not as expected at line"):
        installer.fetch_source(tmp_path, tmp_path / "log")


def test_a_wrong_archive_is_deleted(tmp_path):
    archive = tmp_path / f"horovod-{installer.VERSION}.tar.gz"
    archive.write_bytes(b"something else")
    with pytest.raises(installer.Failure, match="not the released file"):
        installer.fetch_source(tmp_path, tmp_path / "log")
    assert not archive.exists()


def test_a_failed_step_says_what_to_do_and_keeps_the_log(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(installer.Failure, match="do this") as caught:
        installer.run([sys.executable, "-c", "print('é why', flush=True); 1 / 0"], log, "do this")
    assert "é why" in log.read_text()
    assert "ZeroDivisionError" in caught.value.printed[-1]


def test_a_step_that_hangs_is_ended(tmp_path):
    with pytest.raises(installer.Failure, match="do this"):
        installer.run(["sleep", "600"], tmp_path / "log", "do this", timeout=0.5)
