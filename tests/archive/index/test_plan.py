"""However shards arrive: few segments, and no row is written often."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from patchknn.archive.index.plan import MAX_SEGMENTS, plan_merge


@given(st.lists(st.integers(1, 10**6) | st.just(1000), min_size=1, max_size=300))
def test_at_most_eight_segments_and_few_writes(additions):
    segments, written = [], 0
    for new in additions:
        merged = plan_merge(segments, new)
        total = new + sum(segments[number] for number in merged)
        segments = [n for number, n in enumerate(segments) if number not in merged] + [total]
        written += total
        assert len(segments) <= MAX_SEGMENTS
        assert plan_merge(segments, 0) == []
    assert sum(segments) == sum(additions)
    # Each time a row is written again its segment has grown by half.
    assert written <= sum(additions) * 45


def test_equal_shards_are_written_again_a_few_times():
    segments, written = [], 0
    for _ in range(1000):
        merged = plan_merge(segments, 1000)
        total = 1000 + sum(segments[number] for number in merged)
        segments = [n for number, n in enumerate(segments) if number not in merged] + [total]
        written += total
    assert written / 1_000_000 < 10


def test_too_many_segments_are_merged_though_nothing_is_new():
    assert plan_merge([10] * 8, 0) == []
    sizes = [4**n for n in range(12)]
    merged = plan_merge(sizes, 0)
    assert sorted(merged) == [0, 1, 2, 3, 4]
    assert len(sizes) - len(merged) + 1 == MAX_SEGMENTS


def test_no_segment_outgrows_its_row_numbers():
    assert plan_merge([15, 80], 10, largest=30) == [0]
    assert plan_merge([15, 80], 10, largest=20) == []
