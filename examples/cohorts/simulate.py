"""Write a made-up cohort of slides as grids, and the table of what is known of each.

    python examples/cohorts/simulate.py OUT [--slides 100] [--rare 0.05] [--seed 0]

Positive slides hold a tissue, of the share ``--rare``, that negative ones lack; with ``--rare 0``
labels say nothing. The table OUT/slides.csv has slide, patient, label, burden, time and event, for
``patchknn slide train OUT OUT/slides.csv -o MODEL``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from patchknn.simulate.cohorts import CohortSettings
from patchknn.wholeslide.grids.simulated import write_cohort


def main() -> None:
    """Write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--slides", type=int, default=100)
    parser.add_argument("--rare", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    settings = CohortSettings(slides=options.slides, rare=options.rare, seed=options.seed)
    print(write_cohort(options.out, settings))


if __name__ == "__main__":
    main()
