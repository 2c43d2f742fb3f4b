import pytest
from cachetools import LRUCache, TTLCache


class Clock:
    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cache(clock):
    return TTLCache(maxsize=3, ttl=10, timer=clock)


def test_an_item_lives_for_its_time(cache, clock):
    cache["a"] = 1
    clock.now = 9
    assert cache["a"] == 1
    clock.now = 10
    assert "a" not in cache


def test_reading_does_not_prolong(cache, clock):
    cache["a"] = 1
    clock.now = 9
    assert cache.get("a") == 1
    clock.now = 11
    assert cache.get("a") is None


def test_a_new_value_is_seen(cache):
    cache["a"] = 1
    cache["a"] = 2
    assert cache["a"] == 2 and len(cache) == 1


def test_storing_again_starts_the_time_again(cache, clock):
    cache["a"] = 1
    clock.now = 8
    cache["a"] = 2
    clock.now = 12
    assert cache["a"] == 2
    clock.now = 18
    assert "a" not in cache


def test_items_expire_in_the_order_of_their_last_storing(cache, clock):
    for step, key in enumerate("abc"):
        clock.now = step
        cache[key] = step
    clock.now = 5
    cache["a"] = 5
    clock.now = 13
    assert sorted(cache) == ["a"] and len(cache) == 1


def test_expire_returns_what_is_over_and_keeps_the_rest(cache, clock):
    cache["a"], cache["b"] = 1, 2
    clock.now = 6
    cache["a"] = 3
    assert cache.expire(11) == [("b", 2)]
    assert list(cache) == ["a"]


def test_updating_through_update(cache, clock):
    cache["a"] = 1
    clock.now = 9
    cache.update(a=2)
    clock.now = 15
    assert cache.get("a") == 2


def test_setdefault_does_not_prolong(cache, clock):
    cache["a"] = 1
    clock.now = 9
    assert cache.setdefault("a", 2) == 1
    clock.now = 11
    assert "a" not in cache


def test_storing_after_the_end_is_a_new_item(cache, clock):
    cache["a"] = 1
    clock.now = 20
    cache["a"] = 2
    clock.now = 29
    assert cache["a"] == 2


def test_the_least_recently_used_item_goes_when_it_is_full(cache):
    for key in "abc":
        cache[key] = key
    assert cache["a"] == "a"
    cache["d"] = "d"
    assert sorted(cache) == ["a", "c", "d"]


def test_deleting(cache):
    cache["a"], cache["b"] = 1, 2
    del cache["a"]
    assert list(cache) == ["b"]


def test_popitem_skips_what_is_over(cache, clock):
    cache["a"] = 1
    clock.now = 5
    cache["b"] = 2
    clock.now = 12
    assert cache.popitem() == ("b", 2)


def test_clear(cache):
    cache["a"] = 1
    cache.clear()
    assert len(cache) == 0 and list(cache) == []


def test_other_caches_know_no_time():
    cache = LRUCache(maxsize=2)
    cache["a"], cache["b"] = 1, 2
    cache["a"] = 3
    cache["c"] = 4
    assert sorted(cache) == ["a", "c"]
