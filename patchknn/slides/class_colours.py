"""Colours of classes that colour-blind readers can tell apart, the same in every picture."""

from __future__ import annotations

Colour = tuple[int, int, int]

# Okabe and Ito 2008, without the black; those that differ most come first.
OKABE_ITO: tuple[Colour, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (230, 159, 0),
    (86, 180, 233),
    (204, 121, 167),
    (240, 228, 66),
)
UNKNOWN: Colour = (128, 128, 134)
_SHADES = ((0, 1.0), (0, 0.6), (255, 0.6))  # as they are, darker, lighter


def class_colour(number: int) -> Colour:
    """The colour (R, G, B) in 0 to 255 of class ``number`` of an archive, grey below 0.

    From the eighth class on they are darker, then lighter, and from the 22nd on they repeat.
    Classes of an archive keep their numbers, and so their colours, when others come.
    """
    if number < 0:
        return UNKNOWN
    shade, hue = divmod(number % (len(OKABE_ITO) * len(_SHADES)), len(OKABE_ITO))
    towards, share = _SHADES[shade]
    red, green, blue = (round(v * share + towards * (1 - share)) for v in OKABE_ITO[hue])
    return red, green, blue
