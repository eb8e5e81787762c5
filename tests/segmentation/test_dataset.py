"""The cache on disk, and the batches that every rank agrees on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from jobs.segmentation.dataset import Films, global_batches, load_cache, shuffled, write_cache

Pair = tuple[NDArray[np.uint8], NDArray[np.bool_]]


def pairs(count: int, size: int) -> list[Pair]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, size, size), dtype=np.uint8)
    return [(image, image > 128) for image in images]


def test_a_cache_gives_back_its_films(tmp_path: Path) -> None:
    written = pairs(5, 16)
    write_cache(tmp_path / "train", iter(written), 5, 16)
    films = load_cache(tmp_path / "train")
    assert len(films) == 5
    for index, (image, mask) in enumerate(written):
        np.testing.assert_array_equal(films.images[index].numpy(), image)
        np.testing.assert_array_equal(films.masks[index].numpy(), mask)
    fraction = np.mean([mask.mean() for _, mask in written])
    assert films.lung_fraction() == pytest.approx(fraction)


def test_changes_of_loaded_films_are_not_written_to_disk(tmp_path: Path) -> None:
    write_cache(tmp_path, pairs(2, 8), 2, 8)
    load_cache(tmp_path).images.zero_()
    assert load_cache(tmp_path).images.any()


def test_a_cache_may_be_empty(tmp_path: Path) -> None:
    write_cache(tmp_path, [], 0, 8)
    films = load_cache(tmp_path)
    assert len(films) == 0 and films.lung_fraction() == 0


@pytest.mark.parametrize(("pairs_written", "count"), [(3, 4), (4, 3), (0, 1)])
def test_another_number_of_films_than_the_count_is_refused(
    tmp_path: Path, pairs_written: int, count: int
) -> None:
    with pytest.raises(ValueError, match=f"{min(pairs_written, count + 1)} .*{count}"):
        write_cache(tmp_path, pairs(pairs_written, 8), count, 8)


def test_a_film_of_another_size_is_refused_with_its_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"film 3 of 3.*\(16, 16\).*\(8, 8\)"):
        write_cache(tmp_path, [*pairs(2, 8), *pairs(1, 16)], 3, 8)


def test_images_and_masks_of_other_shapes_are_refused_and_both_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(2, 8, 8\).*\(3, 8, 8\)"):
        Films(torch.zeros(2, 8, 8, dtype=torch.uint8), torch.zeros(3, 8, 8, dtype=torch.uint8))


def test_a_batch_holds_the_films_of_its_indices_in_order(tmp_path: Path) -> None:
    written = pairs(4, 8)
    write_cache(tmp_path, written, 4, 8)
    images, masks = load_cache(tmp_path).batch(np.array([3, 0]), torch.device("cpu"))
    np.testing.assert_array_equal(images.numpy(), [written[3][0], written[0][0]])
    np.testing.assert_array_equal(masks.numpy(), [written[3][1], written[0][1]])
    assert images.dtype == masks.dtype == torch.uint8


def test_every_epoch_has_another_order_which_a_resumed_run_repeats() -> None:
    orders = [shuffled(50, seed, epoch) for seed, epoch in [(0, 1), (0, 2), (1, 1), (1, 2)]]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    np.testing.assert_array_equal(orders[1], shuffled(50, 0, 2))


@pytest.mark.parametrize(
    ("films", "batch_size", "sizes"),
    [
        (16, 8, [8, 8]),
        (17, 8, [6, 6, 5]),
        (41, 8, [7, 7, 7, 7, 7, 6]),
        (3, 8, [3]),
        (5, 1, [1] * 5),
    ],
)
def test_batches_are_few_and_even_and_leave_no_film_out(
    films: int, batch_size: int, sizes: list[int]
) -> None:
    order = shuffled(films, 0, 1)
    batches = global_batches(order, batch_size)
    assert [len(batch) for batch in batches] == sizes
    np.testing.assert_array_equal(np.concatenate(batches), order)


def test_the_slices_of_the_ranks_make_up_the_batch() -> None:
    batch = shuffled(5, 0, 1)
    slices = [batch[rank::3] for rank in range(3)]
    assert [len(part) for part in slices] == [2, 2, 1]
    assert sorted(np.concatenate(slices)) == list(range(5))
