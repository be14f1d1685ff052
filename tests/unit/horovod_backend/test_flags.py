"""Flags by name, in a world of one process; tests/parallel has more of them."""

from hvd_utils.horovod_backend.flags import SharedFlags


def test_a_flag_is_agreed_upon_once_a_round_has_been_made():
    raised = {"stop": False, "other": False}
    flags = SharedFlags(1, stop=lambda: raised["stop"], other=lambda: raised["other"])
    flags.send()
    raised["stop"] = True  # too late for this round
    flags.receive()
    assert not flags
    flags.send()
    flags.receive()
    assert flags
    assert flags["stop"]
    assert not flags["other"]


def test_without_flags_there_is_nothing_to_agree_upon():
    flags = SharedFlags(8)
    flags.send()
    flags.receive()
    assert not flags
