"""Made-up cohorts are what their settings say."""

from __future__ import annotations

import numpy as np

from patchknn.simulate.cohorts import CohortSettings, simulate_cohort


def test_positive_slides_alone_have_the_rare_tissue():
    slides = list(simulate_cohort(CohortSettings(slides=40, rare=0.1)))
    for slide in slides:
        assert bool(slide.rare.any()) == bool(slide.label)
        assert not (slide.rare & ~slide.mask).any()
        assert (slide.features[:, ~slide.mask] == 0).all()
        assert slide.burden == slide.rare.sum() / slide.mask.sum()
    burdens = [slide.burden for slide in slides if slide.label]
    assert 0.04 < min(burdens) < 0.1 < max(burdens) < 0.16
    assert 10 < len(burdens) < 30


def test_patients_have_one_label_and_settings_one_cohort():
    settings = CohortSettings(slides=40)
    slides, again = list(simulate_cohort(settings)), list(simulate_cohort(settings))
    labels = {}
    for one, other in zip(slides, again, strict=True):
        assert labels.setdefault(one.patient, one.label) == one.label
        np.testing.assert_array_equal(one.features, other.features)
    assert 20 < len(labels) < 40


def test_the_rare_tissue_lies_apart_from_the_others():
    settings = CohortSettings(slides=20, rare=0.3, staining=0.0)
    slides = list(simulate_cohort(settings))
    rare = np.concatenate([s.features[:, s.rare].T for s in slides])
    others = np.concatenate([s.features[:, s.mask & ~s.rare].T for s in slides])
    assert np.linalg.norm(rare.mean(axis=0) - others.mean(axis=0)) > 2
    np.testing.assert_allclose(rare.std(axis=0).mean(), 1, atol=0.05)


def test_a_null_cohort_has_labels_and_no_rare_tissue():
    slides = list(simulate_cohort(CohortSettings(slides=20, rare=0.0)))
    assert {slide.label for slide in slides} == {0, 1}
    assert not any(slide.rare.any() for slide in slides)


def test_larger_burdens_mean_shorter_times():
    slides = list(simulate_cohort(CohortSettings(slides=400, rare=0.2, side=6)))
    seen = [slide for slide in slides if slide.event]
    high = np.median([s.time for s in seen if s.burden > 0.2])
    low = np.median([s.time for s in seen if s.burden == 0])
    assert high < low / 2
