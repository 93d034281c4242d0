"""The map of an archive as a figure: points, and a legend of few names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from patchknn.evaluation.diagnosis.maps import Map
from patchknn.files import check_output, replaced_atomically
from patchknn.search.answers import cell
from patchknn.slides.class_colours import Colour, class_colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAP_SUFFIXES = (".png", ".svg", ".pdf")
MOST_NAMES = 12
OTHERS: Colour = (200, 200, 204)
UNKNOWN: Colour = (228, 228, 230)
_RIGHT_AND_WRONG = {"right": class_colour(0), "wrong": class_colour(1)}
_LONGEST = 36
# One file for one map, whenever it is drawn.
_NO_DATES: dict[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {},
}


class Group(NamedTuple):
    """Points of one colour: the ``members`` (m,) by number, under a name."""

    name: str
    colour: Colour
    members: Any


def groups_of(values: Sequence[Any], classes: Sequence[str] = ()) -> list[Group]:
    """Points by value: what is unknown and the others first, for the rest to lie above them.

    The 12 most frequent values have colours of their own; a value among ``classes`` has that
    class's, as in every picture, and others the next ones.
    """
    names = [None if value is None else str(cell(value)) for value in values]
    counts = Counter(name for name in names if name is not None)
    shown = [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    shown, rest = shown[:MOST_NAMES], set(shown[MOST_NAMES:])
    numbers = {name: number for number, name in enumerate(classes)}
    if not set(shown) <= set(numbers):
        numbers = {name: number for number, name in enumerate(shown)}
    colours = {name: class_colour(numbers[name]) for name in shown}
    if set(shown) <= set(_RIGHT_AND_WRONG):
        colours = _RIGHT_AND_WRONG
    found = [
        Group("unknown", UNKNOWN, np.flatnonzero([name is None for name in names])),
        Group(f"{len(rest)} others", OTHERS, np.flatnonzero([name in rest for name in names])),
        *(
            Group(name, colours[name], np.flatnonzero([other == name for other in names]))
            for name in shown
        ),
    ]
    return [group for group in found if len(group.members)]


def is_scale(values: Sequence[Any]) -> bool:
    """Whether values are numbers, and too many different ones to name."""
    known = [value for value in values if value is not None]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)
    return numeric and len(set(known)) > MOST_NAMES


def map_figure(
    drawn: Map, colour: str, values: Sequence[Any], classes: Sequence[str] = ()
) -> Figure:
    """A map coloured by ``values``; many different numbers have a scale, all else a legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if is_scale(values):
        _draw_scale(figure, axes, drawn, colour, values)
    else:
        _draw_groups(figure, axes, drawn, colour, groups_of(values, classes))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    note = f"t-SNE of {len(drawn.points)} rows, evenly by class ({drawn.method})"
    axes.set_xlabel(note, fontsize=8, color="0.4")
    return figure


def write_map(path: Path, figure: Figure) -> None:
    """Write a map as PNG, SVG or PDF, whole or not at all. Raises as check_output."""
    import matplotlib as mpl

    check_output(path, "--map", MAP_SUFFIXES)
    style = path.suffix.lower().lstrip(".")
    with (
        replaced_atomically(path) as temporary,
        mpl.rc_context({"svg.hashsalt": "patchknn", "svg.fonttype": "none"}),
    ):
        figure.savefig(temporary, format=style, dpi=150, metadata=_NO_DATES[style])


def _draw_groups(figure: Any, axes: Any, drawn: Map, colour: str, groups: Sequence[Group]) -> None:
    size = _point_size(drawn)
    handles = [
        axes.scatter(
            *drawn.points[group.members].T,
            s=size,
            color=[tuple(part / 255 for part in group.colour)],
            linewidths=0,
            alpha=0.85,
        )
        for group in groups
    ]
    # The largest on top, what is unknown last, as they are read.
    told = list(zip(handles, groups, strict=True))
    told = [one for one in told if one[1].colour not in {OTHERS, UNKNOWN}] + [
        one for one in reversed(told) if one[1].colour in {OTHERS, UNKNOWN}
    ]
    legend = figure.legend(
        [handle for handle, _ in told],
        ["-"] * len(told),
        loc="outside right upper",
        title=_shown(colour),
        frameon=False,
        alignment="left",
        fontsize=9,
        markerscale=max(6 / size**0.5, 1),
    )
    legend.get_title().set_parse_math(False)
    # Set afterwards, since names are anybody's: matplotlib obeys "$", and leaves "_…" out.
    for text, (_, group) in zip(legend.get_texts(), told, strict=True):
        text.set_parse_math(False)
        text.set_text(f"{_shown(group.name)} ({len(group.members)})")


def _draw_scale(figure: Any, axes: Any, drawn: Map, colour: str, values: Sequence[Any]) -> None:
    size = _point_size(drawn)
    known = np.array([value is not None for value in values])
    numbers = np.array([value for value in values if value is not None], np.float64)
    unknown = tuple(part / 255 for part in UNKNOWN)
    axes.scatter(*drawn.points[~known].T, s=size, color=[unknown], linewidths=0)
    shown = axes.scatter(*drawn.points[known].T, s=size, c=numbers, cmap="cividis", linewidths=0)
    figure.colorbar(shown, ax=axes, shrink=0.6).set_label(_shown(colour), parse_math=False)


def _point_size(drawn: Map) -> float:
    """The area of a point in square points, so that many of them are still apart."""
    return float(np.clip(9000 / len(drawn.points), 3, 40))


def _shown(text: str) -> str:
    """Text of one line, without control characters, and not too long."""
    text = "".join(char if char.isprintable() else "�" for char in text[: 2 * _LONGEST])
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
