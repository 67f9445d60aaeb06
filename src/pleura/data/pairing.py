"""Which names of masks and rows mean which images: the one rule of `ids.Names`, and that nothing counts twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pleura.data.ids import Names
from pleura.errors import InputError, excerpt


def by_themselves(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Names without any alias, as `pair` takes them."""
    return dict.fromkeys(names, ())


def pair(names: Mapping[str, Sequence[str]], images: Mapping[str, Sequence[str]], where: Path | str) -> dict[str, str]:
    """Name -> the image that it means; a name that fits none is left out.

    names, images: each with other names that it goes by, as paths; of its name and these the first that fits.
    where: for the refusal, what the names are of.
    Raises: InputError if a name fits several images, or several names one image.
    """
    index = Names((image, alias) for image, aliases in images.items() for alias in (aliases or ("",)))
    found, first = dict[str, str](), dict[str, str]()
    for name, aliases in names.items():
        image = next((hit for alias in (name, *aliases) if (hit := index.find(alias, where)) is not None), None)
        if image is None:
            continue
        if (other := first.setdefault(image, name)) != name:
            raise InputError(f"{where}: {excerpt(other)} and {excerpt(name)} are the same image; keep one")
        found[name] = image
    return found
