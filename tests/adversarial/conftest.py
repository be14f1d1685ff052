"""What the tables share: one process, which is a Horovod world of one, and a run of few steps."""

from __future__ import annotations

import shutil
from pathlib import Path

import horovod.torch as hvd
import pytest
from support.launching import TINY
from support.odd_inputs import assert_ends, call
from support.preparing import run as prepare

import train_imagenet


@pytest.fixture(scope="module", autouse=True)
def horovod() -> None:
    """Start Horovod once: a job that does it again finds it started."""
    hvd.init()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def data(tiny_data, here) -> Path:
    """A small data set to do harm to."""
    return shutil.copytree(tiny_data, here / "data")


@pytest.fixture(scope="session")
def prepared_data(tiny_data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "data"
    shutil.copytree(tiny_data, folder)
    prepare(folder)
    return folder


@pytest.fixture
def prepared(prepared_data, here) -> Path:
    """The same with an index."""
    return shutil.copytree(prepared_data, here / "prepared")


@pytest.fixture(scope="session")
def finished_run(tiny_data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert_ends(call(train_imagenet.main, "--data", tiny_data, "--output", folder, *TINY), 0)
    return folder


@pytest.fixture
def run(finished_run, here) -> Path:
    """A run of 15 steps to do harm to."""
    return shutil.copytree(finished_run, here / "run")
