"""Shell completion, asked of the shells themselves."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from functools import cache, partial

import pytest

from hvd_utils import commands
from hvd_utils.cli.errors import EXIT_BAD_INPUT
from hvd_utils.completion import parser_of
from hvd_utils.config.command_line import known_recipes
from hvd_utils.config.settings import Settings
from hvd_utils.nn.models import CLASSIFIERS, SMALL_RESNETS

TRAIN = ["python", "train_imagenet.py"]
BASH = 'eval "$SCRIPT"; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _imagenet; echo "${COMPREPLY[*]}"'
ZSH = (
    'eval "$SCRIPT"; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); '
    'emulate sh -c _imagenet; echo "${COMPREPLY[*]}"'
)


@cache
def script(shell: str) -> str:
    made = subprocess.run(
        [sys.executable, "-m", "hvd_utils.completion", shell],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return made.stdout


def complete(*words: str, shell: str = "bash") -> list[str]:
    """What the shell offers for the last of these words."""
    program = [shell, "-c", BASH] if shell == "bash" else [shell, "-fc", ZSH]
    asked = subprocess.run(
        [*program, shell, *words],
        capture_output=True, text=True, env={"SCRIPT": script(shell), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert (asked.returncode, asked.stderr) == (0, "")
    return asked.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ([*TRAIN, "--prec"], ["--precision"]),
        (["imagenet-train", "--precision", "b"], ["bf16"]),
        (["python3", "/shared/train_imagenet.py", "--precision", "=", "t"], ["tf32"]),
        ([*TRAIN, "--optimizer", "="], ["sgd", "lars"]),
        (["horovodrun", "-np", "2", *TRAIN, "--optimizer", ""], ["sgd", "lars"]),
        ([*TRAIN, "--no-fl"], ["--no-flip"]),
        ([*TRAIN, "--output", ""], []),  # files are the shell's
        (["python", "-m", "hvd_utils.status", "--w"], ["--watch"]),
        (["imagenet-status", ""], []),
        (["python", "-m", "hvd_utils.preflight", "--device", "c"], ["cpu", "cuda"]),
        (["imagenet-scaling", "--algorithm", "t"], ["tree"]),
        (["python", "another.py", "--"], []),
    ],
    ids=" ".join,
)
def test_flags_and_values_are_offered(shell, words, offered):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here: run tools/install_test_packages.sh")
    assert complete(*words, shell=shell) == offered


def test_what_is_offered_is_what_the_job_takes():
    flags = {"--" + name.replace("_", "-") for name in Settings.model_fields}
    offered = set(complete(*TRAIN, "--"))
    assert flags <= offered
    assert offered - flags <= {"--help", *(flag.replace("--", "--no-", 1) for flag in flags)}
    assert complete(*TRAIN, "--recipe", "") == known_recipes()
    assert sorted(complete(*TRAIN, "--model", "")) == sorted([*SMALL_RESNETS, *CLASSIFIERS])


def test_only_the_command_without_flags_has_none():
    """``compare`` imports torch before it reads its command line, and takes runs alone."""
    entries = vars(commands).items()
    names = {f"imagenet-{name}" for name, entry in entries if isinstance(entry, partial)}
    assert {name for name in names if not complete(name, "-")} == {"imagenet-compare"}
    parser = parser_of("hvd_utils.compare")  # torch is there already
    assert [flag for action in parser._actions for flag in action.option_strings] == [
        "-h",
        "--help",
    ]


def test_it_is_quick():
    program = "from hvd_utils.completion import all_commands; all_commands(); import sys; " + (
        "assert not {'torch', 'torchvision', 'horovod', 'nvidia', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_another_shell_is_refused():
    told = subprocess.run(
        [sys.executable, "-m", "hvd_utils.completion", "fish"], capture_output=True, text=True
    )
    assert told.returncode == EXIT_BAD_INPUT
    assert told.stderr == "error: no completion for the shell fish: give bash or zsh\n"


def test_the_script_is_whole():
    assert subprocess.run(["bash", "-n"], input=script("bash"), text=True).returncode == 0
    assert shlex.split(script("bash").splitlines()[-1])[:2] == ["complete", "-o"]
