"""What a process finds around it: variables, locales, streams and places; launch scripts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.launching import JOB, REPOSITORY, TINY, launch
from support.odd_inputs import Ended, assert_ends, call, nothing_written, rows

import train_imagenet
from hvd_utils.cli.ranks import RANK_VARIABLES
from hvd_utils.inspect import status


@pytest.mark.parametrize("value", ["abc", "", "-1", "1.5", " "])
@pytest.mark.parametrize("name", RANK_VARIABLES)
def test_a_rank_that_is_no_number_is_none(here, monkeypatch, name, value):
    for other in RANK_VARIABLES:
        monkeypatch.delenv(other, raising=False)
    ended = call(train_imagenet.main, "--epochs", "x", **{name: value})
    assert_ends(ended, 2, "--epochs x")
    assert_ends(call(status.main, "/none", **{name: value}), 2, "/none is not the folder")


@pytest.mark.parametrize("variable", [{"IMAGENET_DIR": ""}, {"HOME": ""}, {"TERM": "none"}])
def test_variables_that_say_nothing(here, variable):
    given = ("--loader-threads", 1, "--max-steps", 2, "--output", "run")
    assert_ends(call(train_imagenet.main, *given, **variable), 0, "recipe demo", "to step 2")


def shell(command: str, *, timeout: float = 240, **variables: str) -> Ended:
    """Run a line of bash, with this Python and the job as $python and $job."""
    environment = {k: v for k, v in os.environ.items() if k != "IMAGENET_DIR"}
    environment |= {"python": sys.executable, "job": JOB, "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        errors="replace",
        env=environment | variables,
        timeout=timeout,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def test_numbers_of_libraries_that_are_none(here, tiny_data):
    """Seen by Horovod and OpenMP when a process starts; each does without."""
    variables = ("HOROVOD_FUSION_THRESHOLD", "HOROVOD_CYCLE_TIME", "OMP_NUM_THREADS")
    variables += ("SLURM_PROCID", "HOROVOD_LOG_LEVEL", "NCCL_DEBUG", "CUDA_VISIBLE_DEVICES")
    given = (*TINY, "--data", tiny_data, "--output", "run", "--max-steps", "2")
    ended = launch(
        [JOB, *map(str, given)], by="python", cwd=here, **dict.fromkeys(variables, "abc")
    )
    assert_ends(Ended(ended.code, ended.output, ""), 0, "trained to step 2")


def test_a_locale_without_letters(here, data):
    """Names are bytes: what the locale cannot show, the program trains on all the same."""
    class_folder = os.fsdecode("Käse".encode("latin-1"))
    for split in ("train", "val"):
        (data / split / "ant").rename(data / split / class_folder)
    output = here / os.fsdecode("café γ".encode())
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    (here / "odd.yaml").write_text("# für γ\nmodel: resnet8\n", encoding="utf-8")
    given = (*TINY, "--recipe", "odd.yaml", "--data", data, "--output", output, "--max-steps", "9")
    ended = launch([JOB, *map(str, given)], by="python", cwd=here, **plain)
    assert_ends(Ended(ended.code, ended.output, ""), 0, "trained to step 9", "top-1 error")
    for tool, shown in (("status", "step 9 of"), ("final", "has finished 1 of 2")):
        ended = launch(["-m", f"hvd_utils.{tool}", str(output)], by="python", **plain)
        assert shown in ended.output
        assert "Traceback" not in ended.output


def test_a_working_folder_that_is_gone(here):
    """Intel's library says so itself, in one line, where PyTorch is imported."""
    command = 'mkdir gone && cd gone && rmdir ../gone && "$python"'
    ended = shell(f'{command} "$job" --loader-threads 1 --max-steps 2')
    assert (ended.code, ended.said.count("\n")) == (2, 1), ended.said
    assert_ends(shell(f"{command} -m hvd_utils.status run"), 2, "not the folder of a run")


# How the streams of a command are, that is given no run, and with what it ends.
STREAMS = [
    (">&-", "not the folder of a run"),
    ("<&-", "not the folder of a run"),
    ("> /dev/full", "not the folder of a run"),
    ("2>&-", ""),
    (">&- 2>&-", ""),
    ("2> /dev/full", ""),
]


@pytest.mark.parametrize(("streams", "said"), rows(STREAMS))
def test_streams_that_are_closed_or_full(here, streams, said):
    ended = shell(f'"$python" -m hvd_utils.status /none {streams}')
    assert ended.code == 2, ended.said
    assert "Traceback" not in ended.said
    assert said in ended.err


@pytest.fixture
def read_only(here):
    """A folder that not even root can write to."""
    folder = here / "read-only"
    folder.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("this machine does not allow mounts")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_read_only(read_only, tiny_data):
    given = ("--data", tiny_data, *TINY, "--output")
    for output in (read_only, read_only / "run"):
        ended = call(train_imagenet.main, *given, output)
        assert_ends(ended, 2, "cannot write to output folder", str(output), "--output")


# Variables of the launch scripts, and what the one line says.
LAUNCHES = [
    ("PREFLIGHT=no", "PREFLIGHT is no", "0"),
    ("PREFLIGHT=false", "PREFLIGHT is false"),
    ("PREFLIGHT=2", "PREFLIGHT is 2"),
    ("MAX_FAILURES=x", "MAX_FAILURES is x"),
    ("MAX_FAILURES=-1", "MAX_FAILURES is -1"),
    ("MAX_FAILURES=1.5", "MAX_FAILURES is 1.5"),
    ("RANKS_PER_NODE=x", "RANKS_PER_NODE"),
    ("RANKS_PER_NODE=0", "RANKS_PER_NODE"),
    ("DATA=", "no data set", "DATA"),
    ("OUTPUT=/proc/run", "cannot write to /proc/run", "OUTPUT"),
    ("OUTPUT=/dev/null", "cannot write to /dev/null", "OUTPUT"),
    ("VENV=/none", "no virtual environment /none", "VENV"),
    ("MODULES=openmpi/0", "module load openmpi/0 failed", "MODULES"),
    ("HOSTFILE=none", "no host file"),
    ("ARGUMENTS=--output", "--output and --data are set by"),
]


@pytest.mark.parametrize(("given", "named"), rows([(row[0], row[1:]) for row in LAUNCHES]))
def test_launch_scripts(here, given, named):
    """Before anything is started."""
    (here / "hosts").write_text("localhost slots=1\n")
    variables = {"DATA": "digits", "OUTPUT": str(here / "run"), "PREFLIGHT": "0"}
    variables |= {"MAX_FAILURES": "0", "VENV": sys.prefix, "NAME": "hosts", "JOB": "none.py"}
    name, _, value = given.partition("=")
    variables[{"HOSTFILE": "NAME"}.get(name, name)] = value
    script = REPOSITORY / "slurm" / "mpirun_hosts.sh"
    ended = shell(f'{script} "$NAME" ${{ARGUMENTS:-}}', timeout=240, **variables)
    if name == "HOSTFILE":
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert named[0] in ended.err
    else:
        assert_ends(ended, 2, *named)


def test_a_launch_without_an_output(here):
    (here / "hosts").touch()
    script = REPOSITORY / "slurm" / "mpirun_hosts.sh"
    with nothing_written(here):
        ended = shell(f"{script} hosts", DATA="digits")
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "OUTPUT is not set: set it to the folder of the run" in ended.err
        ended = shell(str(script))
        assert ended.code == 2
        assert ended.err.startswith("usage: ")
        assert not (Path(here) / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("-np 0", "-np 0: give at least 1"),
        ("-np -1", "-np -1: give at least 1"),
        ("-np 1 --min-np 0 --host-discovery-script /bin/true", "--min-np 0: give at least 1"),
        ("-np 2 -H nosuchhost.invalid:2", "cannot reach host nosuchhost.invalid by ssh"),
    ],
)
def test_horovodrun(here, flags, named):
    ended = shell(f"horovodrun {flags} true")
    (line,) = [line for line in ended.said.splitlines() if "error: " in line]
    assert named in line
    assert ended.code == 2
    assert "Traceback" not in ended.said


def test_a_user_without_a_home(here):
    """Open MPI does not start without the variable; the password file has it too."""
    ended = shell('unset HOME; "$python" "$job" --recipe demo --max-steps 1 --output run')
    assert_ends(ended, 0, "trained to step 1")
