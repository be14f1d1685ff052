"""One process of a node compiles first, the others together after it."""

import errno
import fcntl
import threading
from pathlib import Path

import torch

from hvd_utils.nn.compile_turns import CompileTurns

SHAPE = torch.Size((4, 3, 8, 8))
LONG = 20  # seconds: more than anything here takes


def test_the_first_compiles_alone_and_those_that_waited_together(tmp_path):
    inside, over = threading.Barrier(2), threading.Event()
    entered = []

    def follow():
        turns = CompileTurns(tmp_path)  # a lock of its own, as another process has
        with turns.turn(SHAPE):
            entered.append(over.is_set())
            inside.wait(LONG)  # both are here at the same time

    others = [threading.Thread(target=follow) for _ in range(2)]
    with CompileTurns(tmp_path).turn(SHAPE):
        for thread in others:
            thread.start()
        for thread in others:
            thread.join(0.2)
        over.set()
    for thread in others:
        thread.join(LONG)
        assert not thread.is_alive()
    assert entered == [True, True]


def test_a_turn_is_for_a_new_shape_alone(tmp_path):
    turns = CompileTurns(tmp_path)
    assert turns.is_new(SHAPE)
    with turns.turn(SHAPE):
        pass
    assert not turns.is_new(SHAPE)
    assert turns.is_new(torch.Size((4, 3, 16, 16)))  # as where the resolution grows
    with CompileTurns(tmp_path).turn(SHAPE), turns.turn(SHAPE):  # which does not wait
        pass


def test_what_is_not_compiled_has_no_turns():
    assert not CompileTurns(None).is_new(SHAPE)


def test_a_folder_that_cannot_be_made_holds_nobody_up():
    with CompileTurns(Path("/dev/null/cache")).turn(SHAPE):
        pass


def test_a_file_system_without_locks_holds_nobody_up(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    turns = CompileTurns(tmp_path)
    with turns.turn(SHAPE):
        pass
    assert not turns.is_new(SHAPE)
