"""The exception family; the command line alone turns it into sentences and exit codes."""


class PatchknnError(Exception):
    """Base of every error that patchknn raises on purpose.

    The message is one plain sentence that names the thing and the remedy. ``exit_code`` is
    what a command that fails as a whole exits with.
    """

    exit_code = 1


class UsageError(PatchknnError):
    """The command line or a setting asks for something that cannot be."""

    exit_code = 2


class InputError(PatchknnError):
    """An input file is missing, unreadable or not what it was given as."""


class ConflictError(PatchknnError):
    """Two things that must agree do not: encoders, source names, settings."""


class DamageError(PatchknnError):
    """Something that patchknn wrote is no longer as it was written."""


class StoppedError(BaseException):
    """A signal asked for an end; work is saved and the same command goes on from there.

    Like KeyboardInterrupt no Exception, so that it is never taken for the failure of one input.
    """

    exit_code = 75
