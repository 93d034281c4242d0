"""Names and numbers as the page shows them."""

import pytest

from patchknn.evaluation.report.words import number, percent, plural, shortened, shown, word


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain é 日本 🔬", "plain é 日本 🔬"),
        ("a\nb\tc\0", "a␊b␉c␀"),
        ("\x7f\x85", "␡\\x85"),
        ("bad\udcff", "bad\\udcff"),
        ("<b>", "<b>"),
    ],
)
def test_what_cannot_be_printed_is_seen(text: str, wanted: str) -> None:
    assert shown(text) == wanted
    shown(text).encode()


@pytest.mark.parametrize(
    ("share", "wanted"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.9999, "99.9 %"),
        (0.0001, "0.1 %"),
        (0.5, "50 %"),
        (0.1234, "12.3 %"),
    ],
)
def test_what_is_not_everything_is_never_100_percent(share: float | None, wanted: str) -> None:
    assert percent(share) == wanted


def test_numbers_and_other_values() -> None:
    assert number(0.123456) == "0.1235"
    assert number(100000) == "100000"
    assert word([True, None, 2.5, "x"]) == "yes, –, 2.5, x"
    assert plural(1, "patch", "patches") == "1 patch"
    assert plural(0, "bit") == "0 bits"
    assert shortened("abcdef\n", 4) == "abc…"
