"""The viewer's page and its modules: files of the package, in memory, with the headers that bound what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

HEADERS = {
    # No inline script or style, and nothing from elsewhere: what a file says in a name or a header runs nowhere.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
"""Of the page and of each module, besides those of every answer."""
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FOLDER = "/web/"


@dataclass(frozen=True)
class Page:
    """One file as it is sent."""

    content: bytes
    media_type: str


def _pages() -> dict[str, Page]:
    web = files("pleura.serve").joinpath("web")
    found = {}
    for file in sorted(web.iterdir(), key=lambda each: each.name):
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _TYPES:
            path = "/" if file.name == "index.html" else FOLDER + file.name
            found[path] = Page(file.read_bytes(), _TYPES[suffix])
    return found


PAGES = _pages()
"""Address -> what is there. Without a key: nothing of a patient is in them, and a browser could not give one."""
