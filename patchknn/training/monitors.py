"""Whether features and codes are healthy: their spread, and one sentence when they are not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from patchknn.hamming.packing import unpack_bits

_STUCK = 0.01
_LOW_ENTROPY = 0.4
_MANY_STUCK = 0.5
_LARGE_BALL = 0.5
_MANY_SATURATED = 0.3
_MANY_EMPTY = 0.5
_LITTLE_SPREAD = 0.1
# The part of a loss that can have nothing left to learn, and what asks more of it.
_MARGINS = {"deep-knn": ("deep_knn", "--alpha"), "triplet": ("triplet", "--margin")}
_REMEDY = "train longer, or lower --lr and --backbone-lr"
_OTHER_LOSS = ", or take --loss multitask or cross-entropy"


def bit_statistics(codes: npt.NDArray[np.uint8]) -> dict[str, float]:
    """``bit_entropy``, the mean entropy per bit (1 is best), and ``stuck_bits``, a share.

    codes (N, K/8). A bit is stuck where fewer than 1 % of the rows differ from the rest.
    """
    ones = unpack_bits(codes).mean(axis=0)
    rarer = np.minimum(ones, 1 - ones)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -(ones * np.log2(ones) + (1 - ones) * np.log2(1 - ones))
    return {
        "bit_entropy": float(np.nan_to_num(entropy).mean()),
        "stuck_bits": float((rarer < _STUCK).mean()),
    }


def feature_spread(features: npt.NDArray[np.floating]) -> float:
    """How far features (N, D) lie apart, in [0, 1]: their RMS deviation over their RMS length.

    About 0.8 for networks as they come from ImageNet and for trained ones; 0 where all are the
    same.
    """
    values = np.asarray(features, np.float64)
    length = np.square(values).sum(axis=1).mean()
    if length == 0:
        return 0.0
    deviation = np.square(values - values.mean(axis=0)).sum(axis=1).mean()
    return float(np.sqrt(deviation / length))


def health_warning(
    figures: Mapping[str, float], gallery_rows: int, *, loss: str, learnt: bool
) -> str | None:
    """One sentence where codes or features tell images apart no longer, or nothing is learnt.

    ``figures`` of an epoch; ``learnt`` where the hash is trained, with that ``loss``, rather than
    fitted afterwards.
    """
    entropy, stuck = figures["bit_entropy"], figures["stuck_bits"]
    remedy = f"{_REMEDY}{'' if learnt else _OTHER_LOSS}."
    spread = figures.get("feature_spread", 1.0)
    if spread < _LITTLE_SPREAD:
        return (
            f"the features shrink to a point: they differ by {spread:.1%} of their length; take "
            "--mining semi-hard, go on from a trained encoder (--from), or lower the rates."
        )
    part, margin = _MARGINS.get(loss, ("", ""))
    if figures.get("triplets") and figures.get(part) == 0:
        return (
            f"all triplets of the epoch keep their margin, so the {loss} loss is 0 and teaches "
            f"nothing: raise {margin}, or end earlier."
        )
    if stuck > _MANY_STUCK:
        return f"the codes collapse: {stuck:.0%} of the bits are the same for all images; {remedy}"
    if entropy < _LOW_ENTROPY:
        return f"the codes collapse: a bit carries {entropy:.2f} of 1 bit on average; {remedy}"
    ball = figures.get("ball_2", 0.0) / max(gallery_rows, 1)
    if ball > _LARGE_BALL:
        return (
            f"the codes collapse: a ball of radius 2 holds {ball:.0%} of the images; "
            "use more --bits or lower --lr."
        )
    saturated = figures.get("saturated_triplets", 0.0)
    if saturated > _MANY_SATURATED:
        return (
            f"{saturated:.0%} of the triplets are violated so far that they give no gradient; "
            "lower --lr, or raise --w-ce and --w-c against --w-t."
        )
    empty = figures.get("empty_2", 0.0)
    if learnt and empty > _MANY_EMPTY:
        return (
            f"the codes scatter: {empty:.0%} of the validation images find no code within 2 bits; "
            f"train longer{', raise --w-c' if loss == 'multitask' else ''}, or use fewer --bits."
        )
    return None
