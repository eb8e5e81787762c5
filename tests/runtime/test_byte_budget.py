from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.imaging.decode import ImageError
from jobs.runtime import byte_budget
from jobs.runtime.byte_budget import ByteBudget, film_memory


def most_held(limit: int, counts: list[int], threads: int) -> int:
    """The most bytes that the threads held at once, counted apart from the budget."""
    budget, lock, held, most = ByteBudget(limit), threading.Lock(), 0, 0

    def hold(count: int) -> None:
        nonlocal held, most
        with budget.taking(count):
            with lock:
                held += count
                most = max(most, held)
            time.sleep(0.002)
            with lock:
                held -= count

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(hold, counts))
    return most


@pytest.mark.parametrize("threads", [4, 64])
def test_the_bytes_held_stay_below_the_limit_whatever_the_number_of_threads(threads: int) -> None:
    counts = [random.Random(n).randrange(1, 40) for n in range(300)]
    assert 60 < most_held(100, counts, threads) <= 100


def test_what_is_larger_than_the_limit_passes_alone() -> None:
    assert most_held(100, [10] * 20 + [250] + [10] * 20, 8) == 250


def test_bytes_are_free_again_after_an_error() -> None:
    budget = ByteBudget(10)
    with pytest.raises(ValueError, match="broken"), budget.taking(10):
        raise ValueError("broken")
    with budget.taking(10):
        pass


def test_a_film_that_takes_over_half_of_the_jobs_memory_is_refused_with_both_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(byte_budget, "job_memory", lambda: 2 * 10**9)
    with film_memory(10**9):
        pass
    refusal = "^too large: takes 1001 MB, over 1000, half of the job's memory$"
    with pytest.raises(ImageError, match=refusal), film_memory(1001 * 10**6):
        pytest.fail("it was let through")
