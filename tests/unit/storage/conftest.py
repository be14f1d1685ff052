"""What the tests of storage share."""

import pytest
from support.object_store import packed_jpegs


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A packed set of 61 training and 11 validation images."""
    return packed_jpegs(
        tmp_path_factory.mktemp("data"), {"ant": 30, "bee": 31}, {"ant": 5, "bee": 6}
    )
