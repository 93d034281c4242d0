"""What the figures of an evaluation are called on the page, and what they mean in a sentence."""

from __future__ import annotations

from typing import NamedTuple


class Explanation(NamedTuple):
    """A figure's name for people, a sentence, how it reads, and which way is better.

    ``kind``: "share" is shown in per cent, "number" as it is; ``better`` is 1 where more is better,
    −1 where less is, 0 where neither.
    """

    name: str
    sentence: str
    kind: str = "share"
    better: int = 1


_BY_DISTANCE = "As above, where nearer neighbours weigh more."

EXPLANATIONS = {
    "accuracy": Explanation(
        "Accuracy", "How many of all queries were given their true class. Common classes rule it."
    ),
    "mean_class_recall": Explanation(
        "Mean class recall", "Accuracy within each class, averaged: rare classes count as much."
    ),
    "recall_smallest_class": Explanation(
        "Recall of the smallest class", "How many of the rarest class's queries were found."
    ),
    "precision_at_k": Explanation(
        "True neighbours", "How many of the neighbours shown are of the query's own class."
    ),
    "all_k_true": Explanation(
        "All neighbours true", "How many queries have neighbours of their own class alone."
    ),
    "map_at_k": Explanation(
        "Mean average precision", "True neighbours, counting more the nearer to the query they are."
    ),
    "ndcg_at_k": Explanation(
        "nDCG", "How near to the best possible order the neighbours are: true ones before others."
    ),
    "l2_precision_at_k": Explanation(
        "True neighbours, searching all",
        "The same without hash codes, comparing with every patch: what the short cut costs.",
        better=0,
    ),
    "mean_ball": Explanation(
        "Patches compared",
        "How many archived patches had a similar code and were compared, on average.",
        "number",
        0,
    ),
    "empty_balls": Explanation(
        "No similar code", "Queries without any archived patch of similar code at first.", better=-1
    ),
    "widened": Explanation(
        "Search widened", "Queries whose search had to go further to find enough.", better=0
    ),
    "confidence_auroc": Explanation(
        "Confidence tells right from wrong (AUROC)",
        "The chance that a right answer is surer than a wrong one; 0.5 is no better than a coin.",
        "number",
    ),
    "aurc": Explanation(
        "Errors left when the unsure are set aside (AURC)",
        "The error rate among the surest answers, averaged over how many are kept.",
        "number",
        -1,
    ),
    "ece": Explanation(
        "Calibration error (ECE)",
        "How far confidence lies from the share of right answers, on average.",
        "number",
        -1,
    ),
    "ece_bias": Explanation(
        "Calibration error by chance alone",
        "What the ECE would be of so few queries if every confidence were true.",
        "number",
        0,
    ),
    "brier": Explanation(
        "Brier score", "The mean squared distance of confidence from being right.", "number", -1
    ),
    "weighted_confidence_auroc": Explanation(
        "AUROC of confidence by distance", _BY_DISTANCE, "number"
    ),
    "weighted_aurc": Explanation(
        "AURC of confidence by distance",
        _BY_DISTANCE,
        "number",
        -1,
    ),
    "weighted_ece": Explanation(
        "ECE of confidence by distance",
        _BY_DISTANCE,
        "number",
        -1,
    ),
    "weighted_brier": Explanation(
        "Brier score of confidence by distance", _BY_DISTANCE, "number", -1
    ),
    "classifier_accuracy": Explanation(
        "Accuracy of the classifier",
        "What the encoder's classifier gets right, without neighbours.",
    ),
    "classifier_aurc": Explanation(
        "AURC of the classifier", "The same area for the classifier's probability.", "number", -1
    ),
}
