"""Numbers with their nouns."""

from hvd_utils.cli.counted import counted


def test_one_is_singular():
    told = [counted(number, noun) for number, noun in ((1, "host"), (1, "process"), (0, "host"))]
    assert told == ["1 host", "1 process", "0 hosts"]
    assert counted(1024, "process") == "1,024 processes"
