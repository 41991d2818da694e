"""Icons: each is drawn once on a page, as a `<symbol>`, and used wherever it stands (`{% icon %}`)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from xml.etree import ElementTree

from lucide import _load_icon

USUAL_SIZE = 16  # pixels; portal.css gives it to every icon that names no size
_USED = re.compile(rb'<use href="#i-([a-z0-9-]+)"/>')
# Where the drawings of a page stand, before the end of its body. What htmx brings adds to them.
_PLACE = "drawings"


def drawing_id(name: str) -> str:
    """The id of an icon's drawing."""
    return f"i-{name}"


@lru_cache(maxsize=256)
def drawing(name: str) -> str:
    """The drawing of an icon of Lucide. Raises `lucide.IconDoesNotExist`."""
    shapes = "".join(ElementTree.tostring(shape, encoding="unicode").strip() for shape in _load_icon(name))
    return f'<symbol id="{drawing_id(name)}" viewBox="0 0 24 24">{shapes.replace(" />", "/>")}</symbol>'


def with_drawings(page: bytes) -> bytes:
    """The page, or the part of one, with the drawings of all icons that it uses.

    A part carries them for the place that its page has for them; portal.js leaves out those that are there already.
    """
    names = sorted({name.decode() for name in _USED.findall(page)})
    if not names:
        return page
    body, end, rest = page.rpartition(b"</body>")
    if end:
        return b"".join((body, _sprite(names, f'id="{_PLACE}"'), end, rest))
    return page + _sprite(names, f'hx-swap-oob="beforeend:#{_PLACE}"')


def _sprite(names: Iterable[str], attributes: str) -> bytes:
    return f'<svg {attributes} class="drawings" aria-hidden="true">{"".join(map(drawing, names))}</svg>'.encode()
