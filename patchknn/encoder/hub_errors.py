"""What is said where weights cannot be had: why, and what to do, in one sentence."""

from __future__ import annotations

import errno
import socket
import urllib.error
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from patchknn.errors import InputError, UsageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_NOW = {408, 500, 502, 503, 504}  # an answer, but not to what was asked
_OF_NETWORK = (ConnectionError, TimeoutError, socket.gaierror, urllib.error.URLError)
# By name: where they are, and what they are called by, differs by the version of the hub.
_CLIENTS = {"httpx", "httpx2", "requests"}
_COLD_CACHE = {"OfflineModeIsEnabled", "LocalEntryNotFoundError"}


def is_address(place: str) -> bool:
    """Whether weights lie at an address of their own, and not on the hub."""
    return "://" in place


def home_of(place: str) -> str:
    """The page of a model on the hub; an address as it is."""
    from huggingface_hub import constants

    return place if is_address(place) else f"{constants.ENDPOINT}/{place.partition('@')[0]}"


def has_answered(error: BaseException) -> bool:
    """Whether an error is the answer of a server that is there and well."""
    return _status(error) not in {None, *_NOT_NOW}


def refusal(
    name: str, place: str, error: Exception, silence: Exception | None, remedy: str
) -> Exception:
    """The error to raise for what came of asking ``place`` for what belongs to ``name``.

    ``silence`` is why the place did not answer before, ``remedy`` what to do where no network is.
    """
    from huggingface_hub import constants

    chain = list(_chain(error))
    for link in chain:
        if isinstance(link, OSError) and (
            link.errno in _FULL or (isinstance(link, PermissionError) and link.filename)
        ):
            return OSError(link.errno, link.strerror, link.filename or constants.HF_HUB_CACHE)
    if any(type(link).__name__ == "HFValidationError" for link in chain):
        return UsageError(f"{name} is not of the form hf-hub:owner/model.")
    reason = _words(error)
    if "state_dict" in reason:
        message = (
            f"The pretrained weights of {name} do not fit it; give the --model-arg that its "
            f"authors name: {reason}."
        )
        return InputError(message)
    if not place:
        return InputError(f"{name} cannot be read: {reason}.")
    answer = next(filter(has_answered, chain), None)
    if answer is not None and silence is None:
        return InputError(_told_by(place, answer))
    return InputError(
        f"The pretrained weights of {name} cannot be had{_why(place, error, silence)}: {remedy}."
    )


def _why(place: str, error: Exception, silence: Exception | None) -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE and not is_address(place):
        return f", as HF_HUB_OFFLINE is set and {constants.HF_HUB_CACHE} does not hold them"
    error = silence or error
    chain = list(_chain(error))
    if silence is not None or any(map(_is_of_network, chain)):
        return f", as {_host(place, chain)} cannot be reached ({_cause(chain)})"
    return f" ({_words(error)})"


def _told_by(place: str, answer: BaseException) -> str:
    from huggingface_hub import constants

    model, _, revision = place.partition("@")
    headers: Any = getattr(getattr(answer, "response", answer), "headers", None) or {}
    status, told = _status(answer), headers.get("X-Error-Code")
    page, tokens = home_of(place), f"{constants.ENDPOINT}/settings/tokens"
    if is_address(place):
        return f"{page} answers {status}: it has these weights no longer; update timm."
    if told == "GatedRepo":
        return (
            f"{model} is gated: ask for access at {page}, set HF_TOKEN to a token of that account "
            f"({tokens}), and run this again."
        )
    if told == "RevisionNotFound":
        return f"{page} has no revision {revision or 'main'}."
    if told == "EntryNotFound":
        return f"{page} does not hold the files of a timm model; it says itself how to load it."
    if told == "RepoNotFound" or status in {401, 403, 404}:
        return (
            f"{page} is not there, or not for your eyes: check the name, and for a private model "
            f"set HF_TOKEN to a valid token ({tokens})."
        )
    return f"{page} answers {status}: try again later."


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    if isinstance(error, urllib.error.HTTPError):
        return error.code
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _is_of_network(error: BaseException) -> bool:
    kind = type(error)
    named = kind.__module__.partition(".")[0] in _CLIENTS or kind.__name__ in _COLD_CACHE
    return named or isinstance(error, _OF_NETWORK)


def _host(place: str, chain: list[BaseException]) -> str:
    """Who was asked last: the hub hands large files to other hosts."""
    for link in chain:
        with suppress(AttributeError, RuntimeError):  # a request that is not known
            request: Any = link.request  # type: ignore[attr-defined]
            return urlsplit(str(request.url)).netloc
    return urlsplit(home_of(place)).netloc


def _cause(chain: list[BaseException]) -> str:
    for link in reversed(chain):
        cause = link.reason if isinstance(link, urllib.error.URLError) else link
        if isinstance(cause, TimeoutError):
            return "no answer in time"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    status = next(filter(None, map(_status, chain)), None)
    return _words(chain[-1]) if status is None else f"it answers {status}"


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(". ") or type(error).__name__
