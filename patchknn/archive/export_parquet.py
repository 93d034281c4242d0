"""An archive as Parquet: one row a patch, its features as a list of D float32."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.export import Export, ExportPlan, export_to, folder_mark, write_mark
from patchknn.archive.export_arrow import ARROW_SCHEMA, arrow_schema
from patchknn.archive.records_duckdb import exact_path, new_connection, reason
from patchknn.archive.shard import Shard
from patchknn.archive.snapshot import patch_id
from patchknn.errors import PatchknnError
from patchknn.files import errors_named

if TYPE_CHECKING:
    import duckdb

PARQUET_SUFFIX = ".parquet"
_MARK = "patchknn_export"
# Features of one block, as float32, are held twice in memory: by columns here, in DuckDB by rows.
_BLOCK_BYTES = 32 << 20
_VECTOR = 2048  # DuckDB counts rows of a group in these

_COLUMNS: tuple[tuple[str, str], ...] = (
    ("id", "text"),
    ("slide", "text"),
    ("x", "int64"),
    ("y", "int64"),
    ("label", "text"),
    ("patient", "text"),
    ("mpp", "double"),
    ("path", "text"),
    ("code", "bytes"),
)


def export_parquet(plan: ExportPlan, out: Path) -> Export:
    """Write the rows as one Parquet file, or as a folder of them where ``out`` has no ``.parquet``.

    Columns: ``id``, ``slide``, ``x``, ``y`` (int64, level-0 pixels, −1 for plain images),
    ``label``, ``patient``, ``mpp`` (double, µm/px of level 0) and ``path``, each null where it is
    unknown, ``code`` (K/8 bytes) and ``features`` (D float32, which hold a float16 without loss).
    Features come block by block and are never in memory as a whole. With pseudonyms there is no
    ``path``. Errors as ``export_to``.
    """
    return export_to(plan, out, lambda temporary: _write(plan, out, temporary), _mark_of)


def _write(plan: ExportPlan, out: Path, temporary: Path) -> tuple[str, ...]:
    is_file = out.suffix.lower() == PARQUET_SUFFIX
    folder = temporary.with_name(f"{temporary.name}-parts") if is_file else temporary
    folder.mkdir()
    parts: list[Path] = []
    connection = new_connection()
    try:
        metadata = _metadata(plan)
        for number, (shard, rows) in enumerate(_blocks(plan)):
            parts.append(folder / f"part-{number:05d}{PARQUET_SUFFIX}")
            connection.register("block", _block(plan, shard, rows))
            _copy(connection, _select(plan), parts[-1], metadata, len(rows))
            connection.unregister("block")
        if is_file:
            _join(connection, plan, parts, temporary, metadata)
        else:
            write_mark(folder, plan)
    finally:
        connection.close()
        if is_file:
            for part in parts:
                part.unlink(missing_ok=True)
            folder.rmdir()
    return ()


def _blocks(plan: ExportPlan) -> Iterator[tuple[Shard, npt.NDArray[np.int64]]]:
    for shard, rows in plan.parts():
        step = _rows_at_once(plan)
        for start in range(0, len(rows), step):
            yield shard, rows[start : start + step]


def _rows_at_once(plan: ExportPlan) -> int:
    rows = _BLOCK_BYTES // (4 * plan.snapshot.settings.feature_dim)
    return max(rows // _VECTOR, 1) * _VECTOR


def _block(
    plan: ExportPlan, shard: Shard, rows: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """The columns of some rows (m,), an empty text where there is none: DuckDB takes no other."""
    source = shard.source[rows]
    used, numbers = np.unique(source, return_inverse=True)
    records = [shard.source_record(number) for number in used.tolist()]
    names = plan.names
    slides = [names.slide(record.name) for record in records]
    patients = [names.patient(record.patient) or "" for record in records]
    paths = [record.path if record.path != record.name else "" for record in records]
    coords = np.array(shard.coords[rows])
    ids = [
        patch_id(slides[number], x, y)
        for number, (x, y) in zip(numbers.tolist(), coords.tolist(), strict=True)
    ]
    features = np.ascontiguousarray(np.asarray(shard.features[rows], np.float32).T)
    block: dict[str, npt.NDArray[Any]] = {
        "id": _texts(ids),
        "slide": _texts(slides)[numbers],
        "x": coords[:, 0],
        "y": coords[:, 1],
        "label": _texts([plan.label(n) or "" for n in shard.labels[rows].tolist()]),
        "patient": _texts(patients)[numbers],
        "mpp": np.array(shard.source_mpp[source]),
        "path": _texts(paths)[numbers],
        "code": np.array([code.tobytes().hex() for code in shard.codes[rows]]),
    }
    return block | {f"f{column}": values for column, values in enumerate(features)}


def _texts(texts: list[str]) -> npt.NDArray[np.str_]:
    """Names of files that are no valid UTF-8 have those bytes spelled out, as JSON would."""
    valid = [
        t.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for t in texts
    ]
    return np.array(valid, np.str_)


def _select(plan: ExportPlan) -> str:
    dim = plan.snapshot.settings.feature_dim
    listed = ", ".join(f"f{column}" for column in range(dim))
    made = {
        "id": "id",
        "slide": "slide",
        "x": "x",
        "y": "y",
        "label": "nullif(label, '')",
        "patient": "nullif(patient, '')",
        "mpp": "CASE WHEN isnan(mpp) THEN NULL ELSE mpp END",
        "path": "nullif(path, '')",
        "code": "unhex(code)",
    }
    columns = [f"{made[name]} AS {name}" for name, _ in _columns(plan)]
    return f"SELECT {', '.join(columns)}, list_value({listed}) AS features FROM block"


def _columns(plan: ExportPlan) -> list[tuple[str, str]]:
    return [pair for pair in _COLUMNS if not (plan.names.is_hidden and pair[0] == "path")]


def _metadata(plan: ExportPlan) -> str:
    columns: list[tuple[str, str | int]] = [*_columns(plan)]
    schema = arrow_schema([*columns, ("features", plan.snapshot.settings.feature_dim)])
    return f"{{{_MARK}: '{plan.mark}', '{ARROW_SCHEMA}': '{schema}'}}"


def _copy(
    connection: duckdb.DuckDBPyConnection, select: str, file: Path, metadata: str, rows: int
) -> None:
    import duckdb

    group = -(-rows // _VECTOR) * _VECTOR
    quoted = str(file).replace("'", "''")
    try:
        with errors_named(file):
            connection.execute(
                f"COPY ({select}) TO '{quoted}' "
                f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {group}, "
                f"KV_METADATA {metadata})"
            )
    except duckdb.Error as error:
        message = f"Parquet cannot be written to {file.parent}: {reason(error)}."
        raise PatchknnError(message) from None


def _join(
    connection: duckdb.DuckDBPyConnection,
    plan: ExportPlan,
    parts: list[Path],
    file: Path,
    metadata: str,
) -> None:
    if len(parts) == 1:
        parts[0].rename(file)
        return
    files = ", ".join("'" + exact_path(part).replace("'", "''") + "'" for part in parts)
    select = f"SELECT * FROM read_parquet([{files}], hive_partitioning = false)"
    _copy(connection, select, file, metadata, _rows_at_once(plan))


def _mark_of(out: Path) -> str | None:
    """Which export a file or folder is, None where it does not say."""
    import duckdb

    if out.is_dir():
        return folder_mark(out)
    connection = new_connection()
    try:
        found = connection.execute(
            "SELECT value FROM parquet_kv_metadata(?) WHERE key = ?",
            [exact_path(out), _MARK.encode()],
        ).fetchall()
    except duckdb.Error:
        return None
    finally:
        connection.close()
    return found[0][0].decode() if found else None
