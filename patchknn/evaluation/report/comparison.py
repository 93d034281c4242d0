"""The section that says whether methods differ by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from patchknn.evaluation.report.parts import Section, Table
from patchknn.evaluation.report.words import NOTHING, number


def comparison_section(reports: Sequence[dict[str, Any]]) -> Section | None:
    """Differences of accuracy, from the ``paired`` of ``as_json()``; None without any."""
    rows = []
    for report in reports:
        paired = report.get("paired")
        if not paired:
            continue
        ends = paired.get("interval")
        rows.append(
            (
                f"{report['method']}, against {paired['against']}",
                points(paired["difference"]),
                NOTHING if ends is None else " to ".join(map(points, ends)),
                number(paired["p"]),
                paired["n"],
                paired["patients"],
            )
        )
    if not rows:
        return None
    return Section(
        "Differences",
        "How much more one method gets right than another on the same queries, in percentage "
        "points. p is how often chance alone would part them as far, where whole patients and not "
        "single patches are drawn: below 0.05 it hardly would.",
        Table(("method", "difference", "95 % interval", "p", "queries", "patients"), tuple(rows)),
    )


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "−")
