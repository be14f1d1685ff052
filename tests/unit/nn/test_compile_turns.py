"""One process of a node compiles first, the others together after it."""

import errno
import fcntl
import threading
from pathlib import Path

import torch

from hvd_utils.horovod_backend import node
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


def graph_key(device):
    """Return by which key PyTorch's cache has a graph on ``device``, which need not be here."""
    from torch._inductor.codecache import compiled_fx_graph_hash  # takes seconds
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    with FakeTensorMode():
        given = torch.empty(4, 3, device=device), torch.empty(3, 3, device=device)
        graph = make_fx(lambda a, b: (torch.relu(a @ b) + torch.zeros(3, device=device),))(*given)
        return compiled_fx_graph_hash(graph, given, {}, [])[0]


def test_the_ranks_of_a_node_ask_the_cache_for_the_same_graph(monkeypatch):
    """Because each has its own GPU first: PyTorch's key has the number of the GPU."""
    keys = []
    for local_rank in range(2):
        monkeypatch.setattr(node, "_first", 0)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        node.see_own_gpu_first(local_rank)
        keys.append(graph_key(torch.device("cuda", node.own_gpu_index(local_rank, 2, 2))))
    assert keys[0] == keys[1]
    assert graph_key(torch.device("cuda", 1)) != keys[0]  # else none of this is needed
