"""The page in a real browser: nothing is fetched, controls and keys work, nothing sticks out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Test machines run as root, whom Chromium lets start without its sandbox only.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, hostile_page: Path) -> Iterator[Open]:
    """Open the page in a window of some width; what it asks for and says is kept, and must be
    nothing.
    """
    contexts, requests, said = [], [], []

    def go(width: int = 1280, height: int = 900, **more: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        page.goto(hostile_page.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    own = hostile_page.as_uri()
    assert [url for url in requests if not url.startswith(("data:", own))] == []
    assert requests.count(own) == len(contexts)
    assert said == []


def cards(page: Any) -> Any:
    return page.locator(".card:visible")


def shares(page: Any) -> list[float]:
    return [float(card.get_attribute("data-c")) for card in cards(page).all()]


def focused(page: Any, name: str) -> str | None:
    return page.evaluate(f"document.activeElement.{name} ?? null")


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out(opened: Open, width: int) -> None:
    page = opened(width, 844)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    beyond = """(width) => Array.from(document.querySelectorAll('main *')).filter((one) => {
        const box = one.getBoundingClientRect();
        return box.right > width + 0.5 && !one.closest('.scroll');
    }).map((one) => one.outerHTML.slice(0, 200))"""
    page.evaluate(
        "document.querySelectorAll('.card').forEach(c => "
        "{ c.style.contentVisibility = 'visible'; })"
    )
    assert page.evaluate(beyond, width) == []


def test_hostile_names_are_shown_as_text(opened: Open, hostile_names: tuple[str, ...]) -> None:
    from patchknn.evaluation.report.words import shown

    page = opened()
    text = page.locator("#cards").text_content()
    for name in hostile_names:
        assert shown(name) in text
    assert page.locator("#cards img, #cards script").count() == 0


def test_pictures_are_drawn(opened: Open) -> None:
    page = opened()
    background = "(one) => getComputedStyle(one).backgroundImage"
    pictures = page.locator(".card").first.locator(".p")
    assert pictures.count() == 21
    for picture in pictures.all():
        assert picture.evaluate(background).startswith('url("data:image/jpeg;base64,')
    figures = page.locator(".drawing img")
    assert figures.count() >= 4
    for figure in figures.all():
        assert figure.evaluate("(one) => one.naturalWidth") > 100


def test_it_sorts(opened: Open) -> None:
    page = opened()
    least_first = shares(page)
    assert least_first == sorted(least_first)
    assert len(set(least_first)) > 2
    page.select_option("#sort", "-c")
    assert shares(page) == sorted(least_first, reverse=True)
    page.select_option("#sort", "w")
    verdicts = [card.get_attribute("data-v") for card in cards(page).all()]
    assert verdicts == sorted(verdicts, key="ny".index)
    assert set(verdicts) == {"n", "y"}
    page.select_option("#sort", "p")
    predicted = [int(card.get_attribute("data-p")) for card in cards(page).all()]
    assert predicted == sorted(predicted)


def test_it_filters(opened: Open, class_names: tuple[str, ...]) -> None:
    page = opened()
    page.select_option("#true", label=class_names[0])
    shown = cards(page).all()
    assert 0 < len(shown) < 30
    assert {card.locator(".true b").text_content() for card in shown} == {class_names[0]}
    assert page.locator("#count").text_content() == f"{len(shown)} of 30 shown"
    page.select_option("#only", "v=n")
    wrong = cards(page).count()
    assert 0 < wrong < len(shown)
    for card in cards(page).all():
        assert "wrong" in card.locator(".predicted").first.text_content()
    page.click("#reset")
    assert cards(page).count() == 30
    page.fill("#low", "45")
    page.fill("#high", "60")
    assert all(0.45 <= share <= 0.6 for share in shares(page))
    assert 0 < cards(page).count() < 30
    page.click("#reset")
    page.select_option("#predicted", label=class_names[1])
    found = [card.locator(".predicted").first.text_content() for card in cards(page).all()]
    assert found
    assert all(text.startswith(class_names[1]) for text in found)
    page.click("#reset")
    page.fill("#text", "<SCRIPT> p0")
    assert all("<script>" in text for text in cards(page).all_text_contents())
    page.fill("#text", "nothing is called so")
    assert cards(page).count() == 0
    assert page.locator("#none").is_visible()


def test_it_works_by_keyboard_alone(opened: Open) -> None:
    page = opened()
    page.keyboard.press("/")
    assert focused(page, "id") == "text"
    page.keyboard.type("p1")
    assert page.input_value("#text") == "p1"
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    for wanted in ("size", "reset"):
        page.keyboard.press("Tab")
        assert focused(page, "id") == wanted
    page.keyboard.press("Tab")
    assert focused(page, "dataset.i") == "1"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert focused(page, "dataset.i") == "3"
    page.keyboard.press("ArrowUp")
    assert focused(page, "dataset.i") == "2"
    for wanted in (0, 1):
        page.keyboard.press("ArrowRight")
        at = (
            "Array.from(document.activeElement.parentNode.children).indexOf(document.activeElement)"
        )
        assert page.evaluate(at) == wanted
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert focused(page, "dataset.i") == "2"
    page.keyboard.press("End")
    assert focused(page, "dataset.i") == "30"
    page.keyboard.press("ArrowDown")
    assert focused(page, "dataset.i") == "30"
    page.keyboard.press("Home")
    assert focused(page, "dataset.i") == "1"
    # Out of five hundred cards one alone is a stop of the Tab key.
    assert page.locator("#cards [tabindex='0']").count() == 1
    page.keyboard.press("Shift+Tab")
    assert focused(page, "id") == "reset"


def test_larger_pictures(opened: Open) -> None:
    page = opened()
    picture = page.locator(".near .p").first
    small = picture.bounding_box()["width"]
    page.select_option("#size", "l")
    assert picture.bounding_box()["width"] > 1.8 * small


@pytest.mark.parametrize("width", [1280, 390])
def test_print_shows_everything_and_no_controls(opened: Open, width: int) -> None:
    page = opened(width)
    page.fill("#text", "nothing is called so")
    page.emulate_media(media="print")
    assert cards(page).count() == 30
    for hidden in (".controls", ".help", "nav", "#none"):
        assert not page.locator(hidden).is_visible()
    exact = "(one) => getComputedStyle(one).printColorAdjust"
    assert page.locator(".near .p").first.evaluate(exact) == "exact"


def test_without_javascript_it_is_readable(opened: Open) -> None:
    page = opened(java_script_enabled=False)
    assert cards(page).count() == 30
    assert not page.locator(".controls").is_visible()
    assert page.locator(".near li:visible").count() == 600


def test_everything_that_can_be_used_has_a_name(opened: Open) -> None:
    page = opened()
    for control in page.locator(".controls select, .controls input, .controls button").all():
        named = control.evaluate(
            "(one) => one.getAttribute('aria-label') || one.textContent.trim()"
            " || (one.labels[0] && one.labels[0].textContent.trim())"
        )
        assert named
    assert page.locator("#count").get_attribute("aria-live") == "polite"
    assert all(image.get_attribute("alt") for image in page.locator("img").all())
    ids = page.evaluate("Array.from(document.querySelectorAll('[id]')).map(one => one.id)")
    assert len(ids) == len(set(ids))
