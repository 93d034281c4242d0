"""What slides are called."""

from __future__ import annotations

from collections import Counter

import pytest

from patchknn.archive.choice import Choice
from patchknn.archive.relabel import Correction, relabel_patches
from patchknn.archive.remove import remove_rows
from patchknn.archive.snapshot import open_archive
from patchknn.errors import InputError
from patchknn.wholeslide.mosaics.slide_labels import (
    labels_by_patches,
    most_frequent,
    read_label_table,
)


def test_most_patches_decide_after_all_corrections(make_archive, make_cohort):
    archive = make_archive([*make_cohort(3), ("none.svs", None, None)], parts=2, patches=9)
    ids = [f"p0s0.svs@{224 * (n % 3)}_{224 * (n // 3)}" for n in range(9)]
    relabel_patches(archive, {one: Correction("squamous", "A") for one in ids[:4]})
    relabel_patches(archive, {"none.svs@0_0": Correction("benign", "A")})
    remove_rows(archive, Choice(ids=ids[4:6]))
    snapshot = open_archive(archive)
    names = ["none.svs", "p0s0.svs", "p0s1.svs", "p1s0.svs", "gone.svs"]
    by_hand = {name: Counter() for name in names}
    for shard in snapshot.shards:
        for row in shard.live_rows().tolist():
            name = shard.source_names[int(shard.source[row])]
            if name in by_hand and shard.labels[row] >= 0:
                by_hand[name][snapshot.classes[shard.labels[row]]] += 1
    assert by_hand["p0s0.svs"] == {"squamous": 4, "adeno": 3}
    expected = [by_hand[name].most_common(1)[0][0] if by_hand[name] else None for name in names]
    assert labels_by_patches(snapshot, names) == expected
    assert expected == ["benign", "squamous", "adeno", "benign", None]


def test_a_tie_goes_to_the_name_that_sorts_first():
    assert most_frequent(["b", None, "a", None, None]) == "a"
    assert most_frequent(["b", "b", "a"]) == "b"
    assert most_frequent([None]) is None


def test_a_table_is_of_slides_or_of_patients(tmp_path):
    (tmp_path / "s.csv").write_text("slide,label,patient\na.svs,X,P\nb.svs,,P\n")
    (tmp_path / "p.tsv").write_text("patient\tlabel\nP\tX\nP\tX\nQ\tY\n")
    by_slide = read_label_table(tmp_path / "s.csv")
    assert [by_slide.label_of(name, "P") for name in ("a.svs", "b.svs")] == ["X", None]
    by_patient = read_label_table(tmp_path / "p.tsv")
    assert [by_patient.label_of("a", patient) for patient in ("P", "Q", "R", None)] == [
        *("X", "Y", None, None)
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name,label\na,X\n", "neither a column 'slide' nor 'patient': it has name, label"),
        ("slide,class\na,X\n", "no column 'label'"),
        ("slide,label\na,X\na,Y\n", "line 3: a is labelled 'Y', and 'X' before"),
    ],
)
def test_a_table_that_does_not_say_it_is_refused(tmp_path, text, problem):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=problem):
        read_label_table(tmp_path / "t.csv")
