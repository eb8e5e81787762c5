from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from jobs.runtime.parallel import batched_map, chunked, ordered_map, run_all


def test_results_are_in_the_order_of_the_items_however_long_each_takes() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number % 4 == 0 else 0)
        return number * number

    assert list(ordered_map(slow_first, range(20), threads=4)) == [n * n for n in range(20)]


def test_at_most_the_given_number_of_items_is_read_ahead() -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        for number in range(10_000):
            taken.append(number)
            yield number

    results = ordered_map(lambda number: number, endless(), threads=2, ahead=6)
    for _ in range(3):
        next(results)
    results.close()
    assert len(taken) <= 3 + 6


def test_an_error_is_raised_in_place_of_its_result_and_no_further_item_starts() -> None:
    started: list[int] = []
    lock = threading.Lock()

    def fails_at_5(number: int) -> int:
        with lock:
            started.append(number)
        if number == 5:
            raise ValueError("film 5")
        return number

    results = []
    with pytest.raises(ValueError, match="film 5"):
        for result in ordered_map(fails_at_5, range(1000), threads=2, ahead=4):
            results.append(result)
    assert results == [0, 1, 2, 3, 4]
    assert len(started) <= 5 + 4 + 1


def test_run_all_calls_the_function_on_every_item_and_raises_the_first_error() -> None:
    squares: list[int] = []
    run_all(lambda number: squares.append(number * number), range(20), threads=4)
    assert sorted(squares) == [number * number for number in range(20)]

    def fails_from_5(number: int) -> None:
        if number >= 5:
            raise ValueError(f"film {number}")

    with pytest.raises(ValueError, match="film 5"):
        run_all(fails_from_5, range(20), threads=4)


def test_results_are_batched_as_the_items_were_and_made_in_parallel() -> None:
    batches = [[1, 2, 3], [4], [], [5, 6]]
    together = threading.Barrier(2)

    def meets_another(number: int) -> int:
        together.wait(timeout=10)
        return 10 * number

    results = batched_map(meets_another, batches, threads=2, ahead=4)
    assert list(results) == [[10, 20, 30], [40], [], [50, 60]]


def test_chunks_hold_every_item_once_and_only_the_last_is_short() -> None:
    assert list(chunked(iter(range(7)), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunked([], 3)) == []
