"""The demo's own conduct; the whole of it is run by continuous integration, as users run it."""

from __future__ import annotations

from patchknn.cli import demo


def test_a_folder_that_no_demo_made_is_left_alone(patchknn, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    result = patchknn("demo", tmp_path)
    assert result.code == 1
    assert f"{tmp_path} holds files that no demo made; name another folder." in result.err
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_a_folder_that_a_demo_made_is_made_anew(tmp_path):
    folder = tmp_path / "demo"
    demo._prepare(folder)
    (folder / "old").touch()
    demo._prepare(folder)
    assert [path.name for path in folder.iterdir()] == [".patchknn-demo"]


def test_a_command_that_fails_is_named_with_its_exit_code(patchknn, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_KNOWN", "tiles/none.h5")
    monkeypatch.setattr(demo._Shell, "capture", lambda *_: "")
    result = patchknn("demo", tmp_path / "demo")
    assert result.code == 1
    assert "The demo stopped at: patchknn train tiles/none.h5" in result.err
    assert "(exit 1)" in result.err
