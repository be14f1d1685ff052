"""Flags by name, in a world of one process; tests/parallel has more of them."""

from hvd_utils.agreement import Agreement


def test_a_flag_is_agreed_upon_once_a_round_has_been_made():
    raised = {"stop": False, "other": False}
    agreement = Agreement(1, stop=lambda: raised["stop"], other=lambda: raised["other"])
    agreement.ask()
    raised["stop"] = True  # too late for this round
    agreement.settle()
    assert not agreement
    agreement.ask()
    agreement.settle()
    assert agreement
    assert agreement["stop"]
    assert not agreement["other"]


def test_without_flags_there_is_nothing_to_agree_upon():
    agreement = Agreement(8)
    agreement.ask()
    agreement.settle()
    assert not agreement
