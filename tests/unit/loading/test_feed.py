"""A batch that is announced to the storage is planned once, and again only for bad images."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from dali_pipeline.dataset.bad_images import BadImages
from dali_pipeline.dataset.index import bad_image, synthetic_index
from dali_pipeline.loading.dali.feed import Feed

PLACES, AHEAD = 8, 6  # of two images each


@pytest.mark.parametrize("ahead", [0, AHEAD])
@pytest.mark.parametrize("bad_ones", [(), (5,)])
def test_a_batch_is_planned_once_unless_an_image_is_found_bad(ahead, bad_ones):
    images = synthetic_index(2 * PLACES, 2)
    expected: list[int] = []
    index = SimpleNamespace(storage=SimpleNamespace(ahead=ahead), expect=expected.extend)
    bad = BadImages(images, skip=True)
    planned: Counter = Counter()

    def plan(place):
        planned[place] += 1
        return SimpleNamespace(ids=bad.substitutes(np.array([2 * place, 2 * place + 1])))

    def read(ids):
        for image in set(ids.tolist()) & set(bad_ones):
            raise bad_image(images, image, "cut off")
        return [*ids]

    feed = Feed(index, bad, lambda: range(PLACES), plan, group=1, on_gpu=False)
    feed._reader = SimpleNamespace(read=read)
    ids = [feed._read(one).batch.ids.tolist() for one in feed._announced(enumerate(range(PLACES)))]
    # The next image takes the place of a bad one, as if the batch had been planned just now.
    assert ids == [
        [4, 6] if bad_ones and place == 2 else [2 * place, 2 * place + 1] for place in range(PLACES)
    ]
    again = ({2, 3, 4, 5} if ahead else {2}) if bad_ones else set()  # those that had been planned
    assert {place for place, times in planned.items() if times > 1} == again
    assert bool(expected) == bool(ahead)
