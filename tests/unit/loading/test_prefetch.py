"""Items are made beside the consumer, in order, and failures arrive where they belong."""

import itertools
import threading

import pytest

from dali_pipeline.loading.prefetch import prefetched


def test_items_come_in_order_and_end():
    assert list(prefetched(range(100), 7)) == list(range(100))
    assert list(prefetched([], 3)) == []


def test_items_are_made_before_they_are_asked_for_but_not_without_bound():
    made, third = [], threading.Event()

    def source():
        for number in itertools.count():
            made.append(number)
            if number == 3:
                third.set()
            yield number

    items = prefetched(source(), 3)
    assert next(items) == 0
    assert third.wait(timeout=60)  # asked for one, and three more were made
    assert made == [0, 1, 2, 3]
    items.close()


def test_a_failure_arrives_in_the_place_of_its_item():
    def source():
        yield 1
        raise OSError("gone")

    items = prefetched(source(), 5)
    assert next(items) == 1
    with pytest.raises(OSError, match="gone"):
        next(items)


def test_closing_waits_for_no_thread():
    """Or the garbage collector, which may close it in a thread that is being started, hangs."""
    began, may_end = threading.Event(), threading.Event()

    def source():
        yield 0
        began.set()
        may_end.wait()
        yield 1

    items = prefetched(source(), 1)
    assert next(items) == 0
    assert began.wait(timeout=60)
    closing = threading.Thread(target=items.close, daemon=True)
    closing.start()
    closing.join(timeout=60)
    waits = closing.is_alive()
    may_end.set()
    assert not waits
