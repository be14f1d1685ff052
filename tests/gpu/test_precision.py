"""16 bits and tf32, compiled or not: the runs differ by rounding."""

from __future__ import annotations

import pytest
from support.rounding import assert_modes_agree_but_for_rounding

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_every_precision_trains_about_alike_compiled_or_not(tiny_data, tmp_path, precision):
    modes = ("default", "cudagraphs")
    assert_modes_agree_but_for_rounding(tiny_data, tmp_path, "cuda", precision, modes)
