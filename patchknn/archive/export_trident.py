"""An archive as TRIDENT lays features out: an HDF5 file per slide, ``features`` and ``coords``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from patchknn.archive.export import Export, ExportPlan, export_to, folder_mark, write_mark
from patchknn.archive.imported import noted_attributes, noted_encoder, own_attributes
from patchknn.archive.rows import Source
from patchknn.archive.shard import Shard
from patchknn.files import ErrorKeepingFile

_FORMAT_VERSION = 1
# What TRIDENT cuts off a slide's name; a dot within a name is none of these.
_SUFFIXES = (
    *(".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".svslide", ".bif", ".vms", ".vmu"),
    *(".czi", ".qptiff", ".dcm", ".png", ".jpg", ".jpeg", ".bmp"),
)
_LONGEST = 200  # bytes of a name; file systems take 255, with the suffix
_UM_PER_MAGNIFICATION = 10.0  # 20× is 0.5 µm/px, 40× is 0.25
_NOMINAL = 0.06  # a scanner's 0.2526 µm/px is called 40× too
_GIVEN_BACK = (
    *("overlap", "patch_level", "custom_downsample", "level0_width", "level0_height"),
    *("tile_size_um", "tile_size_px", "feat_type", "stamp_version"),
)


class SlideRows(NamedTuple):
    """All exported rows of one source; as in an archive, by y and x."""

    source: Source
    features: npt.NDArray[Any]
    coords: npt.NDArray[np.int64]
    labels: list[str | None]


def export_trident(plan: ExportPlan, out: Path) -> Export:
    """Write a folder with ``<slide>.h5`` for each slide, and for each plain image.

    ``features`` (n, D) are the archive's bit for bit, ``coords`` (n, 2) int64 level-0 pixels with
    the attributes that TRIDENT's loaders ask for: ``patch_size``, ``patch_size_level0``,
    ``level0_magnification``, ``target_magnification``, ``overlap``, ``name``; beside these
    ``level0_mpp``, ``target_mpp`` and ``patient``. They are made of the archive's patch size and
    µm/px and the slide's µm/px; what else the imported file said is given back. What is not
    known is left out. ``label`` (n,) where there are labels. One slide at a time is in memory.
    Errors as ``export_to``.
    """
    return export_to(plan, out, lambda temporary: _write(plan, temporary), folder_mark)


def _write(plan: ExportPlan, folder: Path) -> tuple[str, ...]:
    folder.mkdir()
    files = _file_names(plan)
    for slide in _slides(plan):
        name = plan.names.slide(slide.source.name)
        path = folder / files[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_slide(path, plan, slide, name)
    write_mark(folder, plan)
    return ()


def _write_slide(path: Path, plan: ExportPlan, slide: SlideRows, name: str) -> None:
    import h5py

    description = plan.snapshot.bundle().description
    patient = plan.names.patient(slide.source.patient)
    with ErrorKeepingFile(path) as raw, h5py.File(raw, "w") as file:
        features = file.create_dataset("features", data=slide.features)
        features.attrs["name"] = name
        encoder = noted_encoder(description)
        if encoder is not None:
            features.attrs["encoder"] = encoder
        coords = file.create_dataset("coords", data=slide.coords, dtype="<i8")
        noted = noted_attributes(description)
        if not plan.names.is_hidden:  # a slide's width tells which it is
            noted |= own_attributes(slide.source)
        attributes = _attributes(plan, slide.source.mpp, noted)
        for key, value in attributes.items():
            coords.attrs[key] = value
        coords.attrs["name"] = name
        if patient is not None:
            coords.attrs["patient"] = patient
        if any(slide.labels):
            texts = [label or "" for label in slide.labels]
            file.create_dataset("label", data=texts, dtype=h5py.string_dtype())
        file.attrs["patchknn_export"] = _FORMAT_VERSION


def _attributes(
    plan: ExportPlan, level0: float | None, noted: Mapping[str, Any]
) -> dict[str, int | float | str]:
    settings = plan.snapshot.settings
    mpp, patch_px = settings.mpp, settings.patch_px
    found: dict[str, Any] = {"patch_size": patch_px}
    if level0 is not None:
        found["level0_mpp"] = level0
        found["level0_magnification"] = _magnification(level0, noted.get("level0_magnification"))
        # An archive without µm/px has patches of level-0 pixels.
        found["patch_size_level0"] = round(patch_px * mpp / level0) if mpp else patch_px
    if mpp is not None:
        found["target_mpp"] = mpp
        found["target_magnification"] = _magnification(mpp, noted.get("target_magnification"))
    return found | {name: noted[name] for name in _GIVEN_BACK if name in noted}


def _magnification(mpp: float, nominal: Any) -> int | float:
    """As the files said where that is near, else exactly; a whole number as such."""
    exact = _UM_PER_MAGNIFICATION / mpp
    if isinstance(nominal, int | float) and abs(nominal / exact - 1) < _NOMINAL:
        return nominal
    return round(exact) if abs(exact - round(exact)) < 1e-9 else exact


def _slides(plan: ExportPlan) -> Iterator[SlideRows]:
    """Source by source, gathered from all shards that have rows of it."""
    parts = [_Grouped(plan, shard, rows) for shard, rows in plan.parts()]
    keys = [part.shard.source_keys[part.sources] for part in parts]
    distinct, counts = np.unique(np.concatenate(keys), return_counts=True)
    split = set(distinct[counts > 1].tolist())
    done: set[str] = set()
    for place, part in enumerate(parts):
        for number in part.sources.tolist():
            source = part.shard.source_record(number)
            key = int(part.shard.source_keys[number])
            pieces = [part.rows_of(number)]
            if key in split:
                if source.name in done:
                    continue
                done.add(source.name)
                for other in parts[place + 1 :]:
                    found = other.shard.source_number(source.name, key)
                    if found is not None:
                        pieces.append(other.rows_of(found))
            yield _joined(source, pieces)
        part.forget()


_Piece = tuple[npt.NDArray[Any], npt.NDArray[np.int64], list[str | None]]


class _Grouped:
    """The rows of one shard by their source."""

    def __init__(self, plan: ExportPlan, shard: Shard, rows: npt.NDArray[np.int64]) -> None:
        self.shard = shard
        self._plan = plan
        self._rows = rows
        self._ordered: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None
        self.sources = np.unique(shard.source[rows])

    def rows_of(self, source: int) -> _Piece:
        if self._ordered is None:
            numbers = self.shard.source[self._rows]
            order = np.argsort(numbers, kind="stable")
            self._ordered = numbers[order], self._rows[order]
        numbers, rows = self._ordered
        first, after = np.searchsorted(numbers, [source, source + 1])
        chosen = np.sort(rows[first:after])
        labels = [self._plan.label(number) for number in self.shard.labels[chosen].tolist()]
        return self.shard.features[chosen], self.shard.coords[chosen], labels

    def forget(self) -> None:
        self._ordered = None


def _joined(source: Source, pieces: list[_Piece]) -> SlideRows:
    coords = np.concatenate([piece[1] for piece in pieces])
    order = np.lexsort((coords[:, 0], coords[:, 1]))
    features = np.concatenate([piece[0] for piece in pieces])[order]
    labels = [label for piece in pieces for label in piece[2]]
    return SlideRows(source, features, coords[order], [labels[row] for row in order.tolist()])


def _file_names(plan: ExportPlan) -> dict[str, Path]:
    """A file below the folder for each name in the export, no two alike."""
    names = {
        plan.names.slide(name)
        for shard, rows in plan.parts()
        for name in shard.source_names.take(np.unique(shard.source[rows]))
    }
    bare: dict[str, int] = {}
    for name in names:
        stem = _without_suffix(name).lower()
        bare[stem] = bare.get(stem, 0) + 1
    files = {}
    for name in sorted(names):
        stem = _without_suffix(name)
        # s.svs and s.tif are two: then both keep their suffixes.
        chosen = stem if bare[stem.lower()] == 1 else name
        parts = [_safe(part) for part in chosen.split("/")]
        files[name] = Path(*parts[:-1], f"{parts[-1]}.h5")
    return files


def _without_suffix(name: str) -> str:
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def _safe(part: str) -> str:
    """A name for a file: none that is hidden, leads upwards, or is too long for a file system."""
    if part in {"", ".", ".."} or part.startswith(".") or "\\" in part:
        part = quote(part, safe=" ", errors="surrogateescape").replace(".", "%2E", 1) or "%"
    if len(part.encode("utf-8", "surrogateescape")) > _LONGEST:
        digest = hashlib.sha256(part.encode("utf-8", "surrogateescape")).hexdigest()
        part = f"{part[:40]}-{digest[:32]}"
    return part
