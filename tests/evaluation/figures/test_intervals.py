import numpy as np
import pytest

from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.figures.intervals import bootstrap_intervals, n_patients
from patchknn.evaluation.outcomes import Outcome, Outcomes
from patchknn.figures.resampling import dense_numbers, draws


def outcomes_of(rng: np.random.Generator, patients: list[str | None], k: int = 5) -> Outcomes:
    """Queries whose chance to be right hangs on their patient."""
    skill = {patient: rng.uniform(0.2, 0.95) for patient in dict.fromkeys(patients)}
    made = []
    for number, patient in enumerate(patients):
        label = "ABC"[rng.integers(3)]
        others = [name for name in "ABC" if name != label]
        votes = [
            label if rng.random() < skill[patient] else others[rng.integers(2)] for _ in range(k)
        ]
        best = max("ABC", key=votes.count)
        share = votes.count(best) / k
        made.append(Outcome(f"q{number}", label, best, share, tuple(votes), patient=patient))
    return Outcomes.of(made, k, "ABC")


def test_intervals_are_those_of_whole_patients_drawn_again() -> None:
    """Against a loop that puts the queries of each draw together and judges them anew."""
    rng = np.random.default_rng(1)
    patients = [f"P{rng.integers(8)}" for _ in range(150)]
    outcomes = outcomes_of(rng, [*patients, None, None])
    groups = dense_numbers(outcomes.groups)
    assert n_patients(outcomes) == 10
    replicates = 40
    figures: dict[str, list[float | None]] = {}
    for weights in np.concatenate(list(draws(10, replicates, 7, 10))):
        drawn = np.repeat(np.arange(len(outcomes)), weights[groups].astype(int))
        for name, value in Evaluation("m", outcomes.select(drawn), ()).figures().items():
            figures.setdefault(name, []).append(value)
    found = bootstrap_intervals(outcomes, replicates, 7)
    assert set(found) == {
        *("accuracy", "mean_class_recall", "precision_at_k", "all_k_true", "map_at_k"),
        *("ndcg_at_k", "confidence_auroc", "ece"),
    }
    for name, interval in found.items():
        np.testing.assert_allclose(interval, np.quantile(figures[name], [0.025, 0.975]), rtol=1e-12)


def test_a_patient_alone_gives_no_interval() -> None:
    outcomes = outcomes_of(np.random.default_rng(0), ["P1"] * 30)
    assert bootstrap_intervals(outcomes, 100, 0) == {}
    assert bootstrap_intervals(outcomes_of(np.random.default_rng(0), ["P1", "P2"]), 0, 0) == {}


def test_intervals_by_patient_are_wider_than_those_of_queries_taken_for_independent() -> None:
    """50 patients of 20 queries each: the variance is that of means of patients, a formula."""
    rng = np.random.default_rng(4)
    outcomes = outcomes_of(rng, [f"P{number // 20}" for number in range(1000)])
    (low, high) = bootstrap_intervals(outcomes, 4000, 0)["accuracy"]
    means = outcomes.correct.reshape(50, 20).mean(axis=1)
    half = 1.96 * means.std() / 50**0.5
    assert (high - low) / 2 == pytest.approx(half, rel=0.06)
    independent = 1.96 * outcomes.correct.std() / 1000**0.5
    assert half > 1.5 * independent
