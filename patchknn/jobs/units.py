"""A unit of work, and what becomes of it; whatever goes wrong in one is that unit's failure."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from patchknn.errors import ConflictError, PatchknnError, UsageError

Payload = TypeVar("Payload")
Status = Literal["done", "skipped", "empty", "failed", "planned"]

_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@dataclass(frozen=True)
class Outcome:
    """What became of one unit; ``detail`` says more, and why where it failed.

    ``count``: how many things the unit gave, such as tiles; ``result`` is what else the work
    returns. ``held``: another process has it. ``final``: it would fail again. ``inputs``: what of a
    unit has failed, where that is a part of it.
    """

    unit: str
    status: Status
    detail: str = ""
    count: int | None = None
    held: bool = False
    final: bool = False
    inputs: tuple[str, ...] = ()
    result: Any = None


@dataclass(frozen=True)
class Unit(Generic[Payload]):
    """A piece of work that one process does: a name that is unique, and what the work needs."""

    name: str
    payload: Payload


Work = Callable[[Unit[Payload]], Outcome]


def guarded(unit: Unit[Payload], work: Work[Payload]) -> Outcome:
    """Do a unit; every exception is its failure, but for what ends a run.

    That is a full disk, a read-only one (OSError), StoppedError and KeyboardInterrupt.
    """
    try:
        return work(unit)
    except (ConflictError, UsageError) as error:
        return Outcome(unit.name, "failed", str(error), final=True)
    except PatchknnError as error:
        return Outcome(unit.name, "failed", str(error))
    except OSError as error:
        if error.errno in _FATAL:
            raise
        thing = f"{error.filename}: " if error.filename else f"{unit.name}: "
        return Outcome(unit.name, "failed", f"{thing}{error.strerror or error}.")
    except MemoryError:
        return Outcome(unit.name, "failed", f"{unit.name} needs more memory than there is.")
    except Exception as error:  # noqa: BLE001  one unit must not end the batch
        reason = f"{unit.name}: unexpected {type(error).__name__}: {error}; please report it."
        return Outcome(unit.name, "failed", reason)
