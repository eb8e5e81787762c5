"""The cache on disk, and the batches that every rank agrees on."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from jobs.errors import ServiceUnavailableError
from jobs.segmentation.dataset import (
    IMAGES,
    MASKS,
    Films,
    global_batches,
    load_cache,
    shuffled,
    write_cache,
)
from tests.support.films import ROOT

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


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_line_before_a_film_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    asked = []

    def refuse(file: int, offset: int, length: int) -> None:
        asked.append((offset, length))
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refuse)

    def films() -> Iterator[Pair]:
        pytest.fail("a film was read")
        yield from ()

    with pytest.raises(ServiceUnavailableError) as caught:
        write_cache(tmp_path / "train", films(), 50, 256)
    assert f"no space in {tmp_path}: the training needs 7 MB" in str(caught.value)
    assert "TMPDIR" in str(caught.value) and "\n" not in str(caught.value)
    # NumPy's header has 128 bytes.
    assert asked == [(0, 128 + 50 * 256 * 256)]


FILL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from jobs.errors import ServiceUnavailableError
from jobs.segmentation.dataset import write_cache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
film = np.zeros((256, 256), np.uint8)
try:
    write_cache(Path(sys.argv[1]) / "train", ((film, film > 0) for _ in range(50)), 50, 256)
except ServiceUnavailableError as error:
    print(error)
    sys.exit(69)
"""


def test_a_file_over_the_limit_of_the_system_ends_with_69_and_no_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FILL, str(tmp_path)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 69, process.stderr
    assert process.stdout.startswith(f"no space in {tmp_path}: the training needs 7 MB")


def test_every_byte_of_a_cache_has_its_place_on_the_disk_before_it_is_mapped(
    tmp_path: Path,
) -> None:
    def films() -> Iterator[Pair]:
        for name in (IMAGES, MASKS):
            stat = (tmp_path / name).stat()
            assert stat.st_blocks * 512 >= stat.st_size > 8 * 256 * 256
        yield from pairs(8, 256)

    write_cache(tmp_path, films(), 8, 256)
