"""Which slides a command line names: files, folders, lists, and what each is called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from patchknn.errors import InputError
from patchknn.slides.pixels import IMAGE_SUFFIXES
from patchknn.slides.readers import SLIDE_SUFFIXES
from patchknn.tables import TABLE_SUFFIXES, read_table

_DICOM_HEADER_BYTES = 65536
_SERIES_INSTANCE_UID = b"\x20\x00\x0e\x00UI"


@dataclass(frozen=True)
class SlideEntry:
    """A slide to work on, and what a list says of it."""

    name: str
    path: Path
    mpp: float | None = None
    patient: str | None = None
    label: str | None = None
    annotations: Path | None = None


def list_slides(
    arguments: Sequence[str | Path], *, exclude: Path | None = None
) -> list[SlideEntry]:
    """Slides that files, folders (with all below them) and CSV, TSV or Parquet lists name.

    A list has ``path`` (relative to the list) and optionally ``name``, ``mpp``, ``patient``,
    ``label``, ``annotations``. Folders give every slide and image below them but what lies under
    ``exclude`` or has a hidden name; of a DICOM series, its first file. A file named twice counts
    once. Files are not opened: a missing one is found out when it is its turn. Raises InputError
    for a folder without slides and for a list that cannot be read.
    """
    entries: dict[tuple[str, Path], SlideEntry] = {}
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            found = _of_folder(path, exclude)
        elif path.suffix.lower() in TABLE_SUFFIXES:
            found = _of_list(path)
        else:
            found = [SlideEntry(path.name, path.absolute())]
        for entry in found:
            entries.setdefault((entry.name, entry.path), entry)
    return list(entries.values())


def source_name(path: Path, root: Path) -> str:
    """What a file is called: its posix path below ``root``, the folder or list's folder.

    Elsewhere its bare name, as that of a file given by itself: a name must not hang on where the
    command was started, or one slide gets two.
    """
    base = root.absolute()
    absolute = path.absolute()
    if absolute.is_relative_to(base) and ".." not in absolute.parts:
        return absolute.relative_to(base).as_posix()
    return path.name


def stem_of(name: str) -> str:
    """A slide's name without its suffix (``a/b.ome.tif`` → ``a/b``), as its files are called.

    What follows another dot belongs to the name: a list may have ``S1.1`` and ``S1.2``.
    """
    whole = PurePath(name)
    known = whole.suffix.lower() in SLIDE_SUFFIXES | IMAGE_SUFFIXES
    stem = whole.with_suffix("") if known else whole
    if stem.suffix.lower() == ".ome":
        stem = stem.with_suffix("")
    return stem.as_posix()


def slides_below(folder: Path, *, exclude: Path | None = None) -> Iterator[Path]:
    """Files below a folder that may be slides or images by their name, sorted."""
    suffixes = SLIDE_SUFFIXES | IMAGE_SUFFIXES
    left_out = exclude.resolve() if exclude is not None else None
    seen_series: set[tuple[Path, bytes]] = set()
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.suffix.lower() not in suffixes or not path.is_file():
            continue
        if left_out is not None and path.resolve().is_relative_to(left_out):
            continue
        if path.suffix.lower() == ".dcm":
            series = (path.parent, _dicom_series(path))
            if series[1] and series in seen_series:
                continue
            seen_series.add(series)
        yield path


def _of_folder(folder: Path, exclude: Path | None) -> list[SlideEntry]:
    found = [
        SlideEntry(source_name(path, folder), path.absolute())
        for path in slides_below(folder, exclude=exclude)
    ]
    if not found:
        message = f"{folder} holds no slide; name files, a folder of slides or a list."
        raise InputError(message)
    return found


def _of_list(path: Path) -> list[SlideEntry]:
    table = read_table(path, required=["path"])
    mpps = table.numbers("mpp")
    entries = []
    for line, row, mpp in zip(table.lines, table.rows, mpps, strict=True):
        text = row["path"]
        if text is None:
            message = f"{path}, line {line}: the path is empty."
            raise InputError(message)
        slide = path.parent / text
        annotations = row.get("annotations")
        entries.append(
            SlideEntry(
                name=row.get("name") or source_name(slide, path.parent),
                path=slide.absolute(),
                mpp=mpp,
                patient=row.get("patient"),
                label=row.get("label"),
                annotations=path.parent / annotations if annotations else None,
            )
        )
    return entries


def _dicom_series(path: Path) -> bytes:
    # Every file of a series opens the whole slide. The tag stands early in the file, so that no
    # DICOM library is needed to tell one slide from the next.
    try:
        with path.open("rb") as file:
            header = file.read(_DICOM_HEADER_BYTES)
    except OSError:
        return b""
    at = header.find(_SERIES_INSTANCE_UID)
    if at < 0:
        return b""
    start = at + len(_SERIES_INSTANCE_UID) + 2
    length = int.from_bytes(header[start - 2 : start], "little")
    return header[start : start + length].rstrip(b"\0 ")
