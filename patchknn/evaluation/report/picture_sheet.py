"""Small pictures for a page that must not grow too large: each once, however often it is shown."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Hashable, Iterator
from io import BytesIO

import numpy as np

from patchknn.evaluation.pictures import Picture

# Side in pixels and JPEG quality, from what a large screen shows well to what still tells tissues
# apart. A patch of H&E takes 4.3, 3.2, 2.6, 2.1, 1.6, 1.2, 0.8 and 0.5 kB of them.
_STEPS = ((112, 80), (112, 65), (112, 50), (96, 50), (80, 50), (72, 40), (56, 40), (48, 30))


class PictureSheet:
    """Takes pictures one by one; number ``n`` of them is the background of the CSS class ``pn``.

    ``expected`` is how many different ones will come: together they stay below ``most`` bytes of
    CSS, as near to it as they must, and each has what those before it left over.
    """

    def __init__(self, expected: int, most: int) -> None:
        self._left = most
        self._to_come = expected
        self._by_key: dict[Hashable, int | None] = {}
        self._by_content: dict[bytes, int] = {}
        self._encoded: list[str] = []
        self._step = 0

    def __len__(self) -> int:
        return len(self._encoded)

    def add(self, key: Hashable, read: Callable[[], Picture | None]) -> int | None:
        """The number of a picture that ``key`` stands for; None where there is none to read."""
        if key not in self._by_key:
            picture = read()
            self._by_key[key] = None if picture is None else self._add(picture)
            self._to_come -= 1
        return self._by_key[key]

    @property
    def missing(self) -> int:
        """How many pictures were asked for and not found."""
        return sum(number is None for number in self._by_key.values())

    def css(self) -> Iterator[str]:
        """A rule for each picture."""
        for number, data in enumerate(self._encoded):
            yield f".p{number}{{background-image:url(data:image/jpeg;base64,{data})}}\n"

    def _add(self, picture: Picture) -> int:
        content = hashlib.blake2b(picture.tobytes(), digest_size=16).digest()
        content += repr(picture.shape).encode()
        if content not in self._by_content:
            room = self._left // max(self._to_come, 1)
            data = self._fitted(picture, room)
            self._left -= len(data) + 60
            self._by_content[content] = len(self._encoded)
            self._encoded.append(data)
        return self._by_content[content]

    def _fitted(self, picture: Picture, room: int) -> str:
        # Neighbours in the sheet are of about one size: the step that served last is near.
        for step in range(max(self._step - 1, 0), len(_STEPS)):
            data = _encoded(picture, *_STEPS[step])
            if len(data) <= room:
                break
        self._step = step
        return data


def _encoded(picture: Picture, side: int, quality: int) -> str:
    from PIL import Image, ImageOps

    image = Image.fromarray(np.ascontiguousarray(picture))
    side = min(side, *image.size)
    if image.size != (side, side):
        image = ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)
    out = BytesIO()
    image.save(out, format="JPEG", quality=quality, optimize=True)
    return b64encode(out.getvalue()).decode()
