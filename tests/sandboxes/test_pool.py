"""The warm pool, with items that are no containers."""

import threading
import time
from collections.abc import Callable

import pytest

from aem_swe.errors import ImageMissing, SandboxGone
from aem_swe.sandboxes.pool import WarmPool


class Item:
    def __init__(self, key: str, log: list[str]) -> None:
        self.key, self._log, self.dead = key, log, False
        log.append(f"start {key}")

    def usable(self) -> bool:
        return not self.dead

    def remove(self) -> None:
        self._log.append(f"remove {self.key}")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_what_is_expected_is_started_ahead_up_to_the_size() -> None:
    log: list[str] = []
    pool = WarmPool(lambda key: Item(key, log), size=2, threads=1)
    pool.expect(["a", "b", "c"])
    until(lambda: log == ["start a", "start b"])
    assert pool.take("b").key == "b"
    until(lambda: log == ["start a", "start b", "start c"])
    pool.close()
    assert sorted(log[3:]) == ["remove a", "remove c"]


def test_what_nobody_expected_is_started_by_the_taker() -> None:
    log: list[str] = []
    pool = WarmPool(lambda key: Item(key, log), size=2, threads=1)
    assert pool.take("x").key == "x"
    assert log == ["start x"]
    pool.close()


def test_a_taker_waits_for_a_start_under_way_instead_of_starting_another() -> None:
    log: list[str] = []
    let_go = threading.Event()

    def start(key: str) -> Item:
        let_go.wait(5)
        return Item(key, log)

    pool = WarmPool(start, size=1, threads=1)
    pool.expect(["a"])
    threading.Timer(0.05, let_go.set).start()
    assert pool.take("a").key == "a"
    assert log == ["start a"]
    pool.close()


def test_what_is_no_longer_expected_makes_room() -> None:
    log: list[str] = []
    pool = WarmPool(lambda key: Item(key, log), size=1, threads=1)
    pool.expect(["old"])
    until(lambda: log == ["start old"])
    pool.expect(["new"])
    until(lambda: "start new" in log and "remove old" in log)
    pool.close()
    assert sorted(log) == ["remove new", "remove old", "start new", "start old"]


def test_a_dead_item_is_removed_and_replaced() -> None:
    log: list[str] = []
    made: list[Item] = []

    def start(key: str) -> Item:
        made.append(Item(key, log))
        return made[-1]

    pool = WarmPool(start, size=1, threads=1)
    pool.expect(["a"])
    until(lambda: len(made) == 1)
    made[0].dead = True
    taken = pool.take("a")
    assert taken is made[1]
    assert log == ["start a", "remove a", "start a"]
    pool.close()


def test_an_error_ahead_reaches_only_the_taker() -> None:
    def start(key: str) -> Item:
        raise ImageMissing("no image")

    pool = WarmPool(start, size=1, threads=1)
    pool.expect(["a"])
    with pytest.raises(ImageMissing):
        pool.take("a")
    pool.close()


def test_every_item_is_removed_or_taken_once_under_many_threads() -> None:
    log: list[str] = []
    lock = threading.Lock()
    taken: list[Item] = []
    pool = WarmPool(lambda key: Item(key, log), size=4, threads=3)
    keys = [str(index % 5) for index in range(100)]
    pool.expect(keys)

    def take(mine: list[str]) -> None:
        for key in mine:
            item = pool.take(key)
            assert item.key == key
            with lock:
                taken.append(item)

    threads = [threading.Thread(target=take, args=(keys[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    pool.close()
    assert len({id(item) for item in taken}) == len(taken) == 100
    starts, removes = (sum(line.startswith(word) for line in log) for word in ("start", "remove"))
    assert starts == 100 + removes


def test_closing_lets_takers_go_that_wait_for_a_start_that_never_comes() -> None:
    let_go = threading.Event()
    errors: list[SandboxGone] = []

    def start(key: str) -> Item:
        let_go.wait(10)
        return Item(key, [])

    pool = WarmPool(start, size=8, threads=1)
    pool.expect(["a"] * 8)

    def take() -> None:
        try:
            pool.take("a")
        except SandboxGone as error:
            errors.append(error)

    takers = [threading.Thread(target=take) for _ in range(4)]
    for taker in takers:
        taker.start()
    time.sleep(0.05)
    closer = threading.Thread(target=pool.close)
    closer.start()
    for taker in takers:
        taker.join(5)
    assert len(errors) == 4
    let_go.set()
    closer.join(5)
    assert not closer.is_alive()
    with pytest.raises(SandboxGone):
        pool.take("a")


def test_what_was_being_started_at_the_end_is_removed() -> None:
    log: list[str] = []
    begun, let_go = threading.Event(), threading.Event()

    def start(key: str) -> Item:
        begun.set()
        let_go.wait(5)
        return Item(key, log)

    pool = WarmPool(start, size=1, threads=1)
    pool.expect(["a"])
    begun.wait(5)
    threading.Timer(0.05, let_go.set).start()
    pool.close()
    assert log == ["start a", "remove a"]


def test_a_bug_in_a_start_hangs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[str] = []

    def start(key: str) -> Item:
        calls.append(key)
        if len(calls) == 1:
            time.sleep(0.05)
            raise ZeroDivisionError("a bug")
        return Item(key, [])

    pool = WarmPool(start, size=1, threads=1)
    pool.expect(["a"])
    assert pool.take("a").key == "a"
    pool.close()
    assert "a bug" in caplog.text
