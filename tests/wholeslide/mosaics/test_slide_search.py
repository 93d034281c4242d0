"""Slides among slides: who may answer, who votes, and what is shown."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchknn.archive.mosaics import Mosaic, mosaics_of
from patchknn.archive.settings import ArchiveSettings
from patchknn.archive.snapshot import open_archive
from patchknn.wholeslide.mosaics.kept_mosaics import mosaics_of_archive
from patchknn.wholeslide.mosaics.mosaic import MosaicSettings
from patchknn.wholeslide.mosaics.slide_labels import labels_by_patches
from patchknn.wholeslide.mosaics.slide_search import SlideSearcher, SlideSearchSettings

STORED = ArchiveSettings("a", "f", 16, 3, "float16", 224, 0.5, "float32")


def _mosaic(rng, name, patient, content):
    size = int(rng.integers(1, 4))
    return Mosaic(
        name=name,
        patient=patient,
        content=content,
        patches=9,
        features=rng.integers(-1, 2, (size, 3)).astype(np.float16),
        codes=rng.integers(0, 3, (size, 2), np.uint8),
        coords=rng.integers(0, 9, (size, 2)),
    )


_SLIDES = st.lists(
    st.tuples(st.sampled_from([None, "P", "Q", "R"]), st.integers(0, 5)), min_size=1, max_size=9
)


@given(st.integers(0, 2**32 - 1), _SLIDES, st.sampled_from(["hamming", "l2"]), st.integers(1, 9))
def test_the_own_patient_is_never_returned(seed, slides, by, k):
    """Also not by a copy of the slide under another name, or a file that is archived."""
    rng = np.random.default_rng(seed)
    mosaics = [
        _mosaic(rng, f"s{n}", patient, bytes([content]) * 16)
        for n, (patient, content) in enumerate(slides)
    ]
    stored = mosaics_of(mosaics, STORED)
    labels = [None] * len(slides)
    searcher = SlideSearcher(stored, labels, SlideSearchSettings(by=by, k=k))
    by_slide = SlideSearcher(stored, labels, SlideSearchSettings(by=by, k=k, exclude_same="slide"))
    stranger = _mosaic(rng, "a.svs", None, bytes([int(rng.integers(0, 5))]) * 16)
    for query in [*mosaics, stranger]:
        own = {m.name for m in mosaics if m.name == query.name}
        own |= {m.name for m in mosaics if m.content == query.content and any(m.content)}
        patients = {m.patient for m in mosaics if m.name in own} - {None}
        if query.patient is not None:
            patients = {query.patient}
        answer = searcher.search(query)
        found = [one.slide for one in answer.neighbours]
        allowed = {m.name for m in mosaics if m.name not in own and m.patient not in patients}
        assert set(found) <= allowed
        assert len(found) == min(k, len(allowed))
        others = [one.slide for one in by_slide.search(query).neighbours]
        assert len(others) == min(k, len(mosaics) - len(own))
        assert not own & set(others)


@pytest.fixture(params=["hamming", "l2"])
def by(request):
    return request.param


def _searcher(archive, **settings):
    snapshot = open_archive(archive)
    mosaics = mosaics_of_archive(snapshot, MosaicSettings(share=0.2, clusters=4)).mosaics
    labels = labels_by_patches(snapshot, list(mosaics.names))
    return SlideSearcher(mosaics, labels, SlideSearchSettings(**settings))


def test_synthetic_patients_find_slides_of_their_class(make_archive, make_cohort, by):
    slides = make_cohort(18)
    true = {name: label for name, _, label in slides}
    searcher = _searcher(make_archive(slides), by=by)
    answers = [searcher.search(searcher.mosaics.mosaic(n)) for n in range(len(slides))]
    right = sum(answer.prediction == true[answer.query] for answer in answers)
    assert right >= 0.8 * len(slides)  # a third by chance
    # What makes it hard: the other slide of the patient would be the nearest.
    tempting = SlideSearchSettings(by=by, k=1, exclude_same="slide")
    tempted = SlideSearcher(searcher.mosaics, searcher.labels, tempting)
    first = [tempted.search(searcher.mosaics.mosaic(n)).neighbours[0] for n in range(len(slides))]
    own = sum(
        neighbour.patient == answer.patient
        for neighbour, answer in zip(first, answers, strict=True)
    )
    assert own > 0.5 * len(slides)


def test_majorities_are_of_the_nearest_that_have_a_label(make_archive, make_cohort, by):
    slides = [*make_cohort(6), ("none.svs", "N", None), ("none2.svs", "N2", None)]
    searcher = _searcher(make_archive(slides), by=by, k=7)
    for number in range(len(slides)):
        answer = searcher.search(searcher.mosaics.mosaic(number))
        assert [one.k for one in answer.majorities] == [1, 3, 5, 7]
        for majority in answer.majorities:
            votes = Counter(n.label for n in answer.neighbours[: majority.k] if n.label is not None)
            assert majority.votes == votes
            if votes:
                assert votes[majority.prediction] == max(votes.values())
                share = max(votes.values()) / sum(votes.values())
                assert majority.confidence == pytest.approx(share)
            else:
                assert majority.prediction is None
        assert answer.prediction == answer.majorities[-1].prediction


def test_slides_without_a_label_may_be_left_out(make_archive, make_cohort):
    slides = [*make_cohort(3), *((f"n{n}.svs", f"N{n}", None) for n in range(4))]
    archive = make_archive(slides)
    answer = _searcher(archive, k=9, labelled_only=True).search(
        _searcher(archive).mosaics.mosaic(0)
    )
    assert {n.label for n in answer.neighbours} >= {"adeno"}
    assert len(answer.neighbours) == 6


def test_matches_are_patches_of_both_slides(make_archive, make_cohort, by):
    searcher = _searcher(make_archive(make_cohort(4)), by=by, matches=4)
    mosaics = searcher.mosaics
    query = mosaics.mosaic(3)
    answer = searcher.search(query, label="benign")
    for neighbour in answer.neighbours:
        other = mosaics.mosaic(searcher.number_of(neighbour.slide))
        assert len(neighbour.matches) == 4
        distances = [match.distance for match in neighbour.matches]
        assert distances == sorted(distances)
        for match in neighbour.matches:
            mine = query.coords.tolist().index(list(match.query))
            its = other.coords.tolist().index(list(match.found))
            if by == "hamming":
                away = np.bitwise_count(query.codes[mine] ^ other.codes[its]).sum()
            else:
                away = np.linalg.norm(query.features[mine] - other.features[its].astype(float))
            assert match.distance == pytest.approx(away)
    told = json.loads(json.dumps(answer.as_json()))
    assert told["label"] == "benign"
    assert told["majority"]["1"]["prediction"] in {"adeno", "benign", "squamous"}
    assert told["neighbours"][0]["matches"][0]["query"].startswith(f"{query.name}@")


def test_nobody_is_left_to_answer(make_archive):
    searcher = _searcher(make_archive([("a.svs", "P", "benign"), ("b.svs", "P", "benign")]))
    answer = searcher.search(searcher.mosaics.mosaic(0))
    assert answer.neighbours == ()
    assert answer.prediction is None
