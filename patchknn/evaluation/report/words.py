"""Values as words: what people read of numbers, shares and names that anyone may have chosen."""

from __future__ import annotations

import math
from typing import Any

NOTHING = "–"


def shown(text: str) -> str:
    """Text with its control characters as visible signs, and nothing that UTF-8 cannot write.

    Names come from files: they may hold line ends, NUL, or bytes that are no text at all.
    """
    if text.isprintable():
        return text
    return "".join(map(_sign, text))


def percent(share: float | None) -> str:
    """A share as per cent with one digit; what is not everything never reads 100 %."""
    if share is None or math.isnan(share):
        return NOTHING
    tenths = round(share * 1000)
    if tenths == 1000 and share < 1:
        tenths = 999
    elif tenths == 0 and share > 0:
        tenths = 1
    return f"{tenths // 10} %" if tenths % 10 == 0 else f"{tenths / 10:.1f} %"


def number(value: float | None) -> str:
    """A number with four significant digits at most."""
    if value is None or math.isnan(value):
        return NOTHING
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def word(value: Any) -> str:
    """Any value of a table or record."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(word, value))
    return str(value)


def shortened(text: str, most: int) -> str:
    """At most ``most`` characters, for figures, where nothing wraps."""
    text = shown(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def plural(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def _sign(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if 0x80 <= code < 0xA0 or 0xD800 <= code < 0xE000:
        return char.encode("ascii", "backslashreplace").decode()
    return char
