"""One row per epoch: a line for the reader while it runs, a CSV for afterwards."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patchknn.errors import UsageError
from patchknn.files import write_bytes

LOG_FILE = "training.csv"
# Columns that say when and how fast, not how good.
NOT_METRICS = frozenset({"epoch", "train_seconds", "images_per_second", "slides_per_second"})

_SHOWN = {
    "loss": "loss {:.4f}",
    "accuracy": "accuracy {:.3f}",
    "p_at_10": "P@10 {:.3f}",
    "l2_p_at_10": "(L2 {:.3f})",
    "bit_entropy": "bit entropy {:.2f}",
    "stuck_bits": "stuck {:.0%}",
    "ball_1": "ball {:.0f}",
    "empty_1": "empty {:.0%}",
    "images_per_second": "{:.0f} images/s",
}


def epoch_line(row: Mapping[str, Any], epochs: int) -> str:
    """``epoch 3/10: loss 1.2345, accuracy 0.812, …`` with what the row has."""
    epoch = int(row["epoch"])
    name = f"epoch {epoch}/{epochs}"
    if epoch == 0:
        name = "new layers" if "loss" in row else "as it comes"
    parts = [text.format(row[key]) for key, text in _SHOWN.items() if row.get(key) is not None]
    return f"{name}: {', '.join(parts)}".replace(", (L2", " (L2")


class EventLog:
    """TensorBoard's event files in a folder, where one was asked for."""

    def __init__(self, folder: Path | None) -> None:
        self._writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            message = "--tensorboard needs the package tensorboard: pip install tensorboard."
            raise UsageError(message) from None
        self._writer = SummaryWriter(str(folder))

    def write(self, row: Mapping[str, Any]) -> None:
        """Add the numbers of one epoch."""
        if self._writer is None:
            return
        for name, value in row.items():
            if name != "epoch" and not isinstance(value, str):
                self._writer.add_scalar(name.replace(":", "/"), value, int(row["epoch"]))
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


def write_log(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write all rows as CSV, atomically; columns in the order in which they first appear."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())
