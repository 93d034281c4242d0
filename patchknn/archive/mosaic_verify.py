"""Everything in an archive's kept mosaics that is not as it was written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from patchknn.archive.index.layout import array_file
from patchknn.archive.index.names import INDEX, MOSAICS, is_segment_name, mosaics_folder
from patchknn.archive.index.verify import array_problem
from patchknn.archive.mosaic_files import HEAD, read_head
from patchknn.errors import PatchknnError


def mosaic_findings(path: Path, advance: Callable[[int], None]) -> Iterator[tuple[str, str]]:
    """(file below the archive, sentence) for each thing wrong in kept mosaics.

    ``advance`` is told of bytes as they are read.
    """
    folder = mosaics_folder(path)
    remedy = f"Mosaics are derived: remove them by 'patchknn archive index {path} --rebuild'."
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        yield f"{INDEX}/{MOSAICS}", f"It cannot be read: {error.strerror}. {remedy}"
        return
    for name in filter(is_segment_name, names):
        place = f"{INDEX}/{MOSAICS}/{name}"
        try:
            head = read_head(folder / name, path)
        except PatchknnError as error:
            yield f"{place}/{HEAD}", f"{str(error).split(' See all that is wrong by ')[0]} {remedy}"
            continue
        for array, record in head.arrays.items():
            problem = array_problem(Path(array_file(folder / name, array)), record)
            if problem is not None:
                yield f"{place}/{array}.bin", f"{problem} {remedy}"
            advance(record.nbytes)
