"""Images held in memory or read again: the same pixels, the same list of unreadable ones."""

from __future__ import annotations

import pytest
import torch

from patchknn.datasets.windows import centre_window
from patchknn.errors import InputError
from patchknn.training.images import ImageStore


def _store(patches, **options):
    store = ImageStore(patches, 32, None, workers=0, **options)
    store.load(lambda items, **_: iter(items), lambda: None)
    return store


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_batches_hold_what_was_asked_for_without_the_unreadable(pictures, cache_bytes):
    patches = pictures(per_class=2)
    patches[3].path.write_bytes(b"no image")
    reported = []
    store = _store(patches, cache_bytes=cache_bytes, on_problem=reported.append)
    seen = [indices.tolist() for _, indices in store.batches([[5, 3], [3], [0, 1]])]
    assert seen == [[5], [], [0, 1]]
    assert [problem.name for problem in reported] == [patches[3].id]
    assert "not an image" in reported[0].error
    assert store.problems == reported
    assert store.readable(range(6)) == [0, 1, 2, 4, 5]


def test_memory_and_disk_give_the_same_pixels(pictures):
    patches = pictures(per_class=3)
    lists = [[8, 0, 4], [1, 1]]
    held = list(_store(patches, cache_bytes=1 << 30).batches(lists))
    read = list(_store(patches, cache_bytes=0).batches(lists))
    for (images, _), (others, _) in zip(held, read, strict=True):
        assert images.dtype == torch.uint8
        assert torch.equal(images, others)


def test_nothing_readable_is_an_error_that_names_the_first(pictures):
    patches = pictures(per_class=1)
    for patch in patches:
        patch.path.write_bytes(b"")
    store = _store(patches)
    with pytest.raises(InputError, match=f"None of the 3 images.*{patches[0].path.name}"):
        store.check_number()


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_a_larger_field_has_the_patch_in_its_middle(pictures, cache_bytes):
    patches = pictures(per_class=1)
    plain = _store(patches, cache_bytes=cache_bytes, crop=0.8)
    wide = _store(patches, cache_bytes=cache_bytes, crop=0.8, read_size=40)
    lists = [[0, 2], [1]]
    for (images, _), (larger, _) in zip(plain.batches(lists), wide.batches(lists), strict=True):
        assert larger.shape[1:] == (3, 40, 40)
        difference = centre_window(larger, 32).int() - images.int()
        assert difference.abs().max() <= 1


def test_the_cache_holds_what_is_read_not_what_is_shown(pictures):
    patches = pictures(per_class=1)
    limit = len(patches) * 3 * 32 * 32
    for read_size, cached in ((None, True), (33, False)):
        store = _store(patches, cache_bytes=limit, read_size=read_size)
        for patch in patches:
            patch.path.rename(patch.path.with_suffix(".away"))
        batches = list(store.batches([[0, 1, 2]]))
        assert [len(indices) for _, indices in batches] == [3 if cached else 0]
        for patch in patches:
            patch.path.with_suffix(".away").rename(patch.path)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_a_list_of_which_nothing_is_left_gives_no_image(pictures, cache_bytes):
    patches = pictures(per_class=2)
    patches[3].path.write_bytes(b"no image")
    store = _store(patches, cache_bytes=cache_bytes)
    list(store.batches([[3]]))  # now it is known
    batches = list(store.batches([[], [3], [5, 3], []]))
    assert [indices.tolist() for _, indices in batches] == [[], [], [5], []]
    assert [tuple(images.shape) for images, _ in batches] == [(n, 3, 32, 32) for n in (0, 0, 1, 0)]
