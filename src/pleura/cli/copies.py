"""URLs among the options of a command: copied for verbs that only read them, and refused by all others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pleura.errors import InputError, PleuraError
from pleura.urls.copies import copied, said
from pleura.urls.url import Url, is_url, place_of

COPIES = {
    "score": ("truth", "pred", "patients"),
    "doctor": ("path", "patients", "masks", "images", "truth", "data"),
}
"""Commands, and those of their options that may be URLs. `predict` takes its own."""


@contextmanager
def local(options: dict[str, Any], command: str) -> Iterator[dict[str, Any]]:
    """Yield the options of a command with copies in place of URLs. Raises: InputError where it takes none."""
    urls: dict[str, Url] = {}
    for name, value in options.items():
        for path in value if isinstance(value, list) else [value]:
            if not (isinstance(path, Path) and is_url(path)):
                continue
            url = place_of(path)
            if not isinstance(url, Url) or name not in COPIES.get(command, ()):
                verb, option = command.replace("_", "-"), name.replace("_", "-")
                raise InputError(
                    f"{url}: pleura {verb} takes no URL as {option}; give a file or folder of this machine"
                )
            urls[name] = url
    if not urls:
        yield options
        return
    with copied(list(urls.values())) as paths:
        try:
            yield options | dict(zip(urls, paths, strict=True))
        except PleuraError as error:
            raise type(error)(said(str(error))) from error
