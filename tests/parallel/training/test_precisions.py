"""What ``tests/gpu`` demands of every precision holds where it can be tried without a GPU."""

from __future__ import annotations

import pytest
from support.rounding import assert_modes_agree_but_for_rounding


@pytest.mark.long
def test_bf16_compiled_differs_from_eager_by_no_more_than_it_rounds(tiny_data, tmp_path):
    assert_modes_agree_but_for_rounding(tiny_data, tmp_path, "cpu", "bf16", ["default"])
