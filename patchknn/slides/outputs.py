"""Where what is made of each slide goes, and whether two of them would share a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from patchknn.errors import ConflictError
from patchknn.slides.listing import stem_of
from patchknn.slides.readers import SLIDE_SUFFIXES


class Named(Protocol):
    """A slide, or what stands for one."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def path(self) -> Path:
        """Its file."""


@dataclass(frozen=True)
class Output:
    """The file that is made of a slide; ``clash`` is the sentence that says why it must not be."""

    path: Path
    clash: str | None = None


@dataclass(frozen=True)
class MadeOf:
    """Which slide a file was made of: its name, file, and the quickhash of its content in hex."""

    name: str
    slide: Path | None
    content: str | None


def output_files(slides: Sequence[Named], folder: Path, suffix: str) -> list[Output]:
    """Give each slide its file below ``folder``: its name with ``suffix`` for its own.

    Of two slides that claim one file, the later one carries a ``clash`` that names both; a picture
    beside a slide, as viewers save them, does so wherever it stands.
    """
    owners: dict[Path, Named] = {}
    for slide in sorted(slides, key=lambda one: one.path.suffix.lower() not in SLIDE_SUFFIXES):
        owners.setdefault(_file_of(slide, folder, suffix), slide)
    outputs = []
    for slide in slides:
        file = _file_of(slide, folder, suffix)
        clash = None
        if not file.resolve().is_relative_to(folder.resolve()):
            clash = f"{slide.name} would be written outside {folder}; give it another name."
        owner = owners[file]
        if owner is not slide:
            clash = (
                f"{owner.path} and {slide.path} would both be {file}; rename one, or name "
                "them apart in a list with a name column."
            )
        outputs.append(Output(file, clash))
    return outputs


def refuse_another(file: Path, earlier: MadeOf, wanted: MadeOf) -> None:
    """Raise ConflictError where ``file`` was made of another slide than is ``wanted`` now.

    It may have moved, or changed in its place, but not both.
    """
    same_file = earlier.slide == wanted.slide
    same_content = earlier.content == wanted.content
    if earlier.name != wanted.name or not (same_file or same_content):
        message = (
            f"{file} is of {earlier.slide}, not of {wanted.slide}; choose another -o, "
            "or name them apart in a list with a name column."
        )
        raise ConflictError(message)


def _file_of(slide: Named, folder: Path, suffix: str) -> Path:
    return folder / f"{stem_of(slide.name)}{suffix}"
