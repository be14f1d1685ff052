"""Sizes as a user writes them."""

import pytest

from hvd_utils.config.data_size import parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [("500GB", 500 * 10**9), ("1.5 tb", 15 * 10**11), ("800M", 8 * 10**8), (1000, 1000)],
)
def test_a_size(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "0GB", "-1GB", "5 bananas", "0.1"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="give a size, as 500GB"):
        parse_bytes(text)
