"""What the gallery leaves out where there is too much of it."""

from patchknn.evaluation.pictures import PictureFinder
from patchknn.evaluation.report.cards import Asked, Finders
from patchknn.evaluation.report.gallery import build_gallery
from patchknn.search.engine import Searcher
from patchknn.search.query import stored_queries
from patchknn.search.settings import SearchSettings


def test_methods_that_have_no_room_are_named(picture_archive) -> None:
    snapshot = picture_archive(60)
    searcher = Searcher(snapshot, SearchSettings(k=10, max_radius=16))
    ids = [snapshot.row(row).id for row in range(40)]
    answers = list(searcher.search_many(stored_queries(snapshot, ids)))
    methods = ("first", "second", "third")
    asked = [Asked(tuple((m, answer) for m in methods), row=n) for n, answer in enumerate(answers)]
    with PictureFinder(snapshot) as finder:
        everything = build_gallery(asked, Finders(finder), snapshot.classes)
        # Room for the texts of one method and a half beside what pictures need at least.
        texts = 40 * (900 + 1.5 * (500 + 10 * 600))
        some = build_gallery(
            asked, Finders(finder), snapshot.classes, most_bytes=4_000_000 + int(texts)
        )
        least = build_gallery(asked, Finders(finder), snapshot.classes, most_bytes=0)
    assert (everything.methods, everything.no_room) == (methods, ())
    assert some.methods[0] == "first"
    assert 1 <= len(some.methods) < 3
    assert some.methods + some.no_room == methods
    assert least.methods == ("first",)
    for card in some.cards:
        assert tuple(answer.method for answer in card.answers) == some.methods


def test_the_least_sure_come_first_or_the_order_is_kept(picture_archive) -> None:
    snapshot = picture_archive(60)
    searcher = Searcher(snapshot, SearchSettings(k=10, radius=0, max_radius=0))
    ids = [snapshot.row(row).id for row in range(40)]
    answers = list(searcher.search_many(stored_queries(snapshot, ids)))
    assert any(answer.confidence is None for answer in answers)
    asked = [Asked((("m", answer),), row=number) for number, answer in enumerate(answers)]
    with PictureFinder(snapshot) as finder:
        ranked = build_gallery(asked, Finders(finder), snapshot.classes)
        kept = build_gallery(asked, Finders(finder), snapshot.classes, by_confidence=False)
    assert [card.name for card in kept.cards] == ids
    shares = [-1 if answer.confidence is None else answer.confidence for answer in answers]
    assert [card.confidence for card in ranked.cards] == sorted(shares)
