"""The metadata of OpenVINO's .xml, read and written without OpenVINO: the section `pleura` of its `rt_info`.

The weights of the graph lie beside it, in a .bin of the same name.
Source: https://docs.openvino.ai, "OpenVINO IR format": elements of rt_info hold a text in `value`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

SECTION, HOLDER = "pleura", b"</rt_info>"
BLOCK_BYTES = 1 << 20


def weights_of(path: Path) -> Path:
    """Return where the weights of a graph lie."""
    return path.with_suffix(".bin")


def read_metadata(path: Path) -> tuple[dict[str, str], str]:
    """Return the metadata of an .xml, and the sha256 of all the rest of it and of its .bin.

    Raises: ValueError if it is no such file; OSError if it, or its .bin, cannot be read.
    """
    graph, section = _split(path.read_bytes())
    digest = hashlib.sha256(graph)
    with weights_of(path).open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    from xml.etree import ElementTree  # here, because most models are none of OpenVINO's

    try:
        entries = list(ElementTree.fromstring(section)) if section else []
    except ElementTree.ParseError as error:
        raise ValueError(f"its metadata are damaged: {error}") from error
    return {entry.tag: entry.get("value", "") for entry in entries}, digest.hexdigest()


def with_metadata(graph: bytes, weights: bytes, metadata: Mapping[str, str], sum_key: str) -> bytes:
    """Return an .xml with these metadata, and no others of pleura but `sum_key`: the sha256 of the rest and the .bin.

    graph, weights: the bytes of an .xml and of its .bin. metadata: their keys are names of XML.
    Raises: ValueError if `graph` is no such file.
    """
    from xml.sax.saxutils import quoteattr

    rest, _ = _split(graph)
    texts = {**metadata, sum_key: hashlib.sha256(rest + weights).hexdigest()}
    entries = "".join(f"<{key} value={quoteattr(text)} />" for key, text in sorted(texts.items()))
    at = rest.rindex(HOLDER)
    return rest[:at] + f"<{SECTION}>{entries}</{SECTION}>".encode() + rest[at:]


def _split(content: bytes) -> tuple[bytes, bytes]:
    """The rest of an .xml, and the section; empty where there is none."""
    if not content.rstrip().endswith(b"</net>") or HOLDER not in content:
        raise ValueError("it is no graph of OpenVINO, or is cut off")
    opened, closed = f"<{SECTION}>".encode(), f"</{SECTION}>".encode()
    start, end = content.rfind(opened), content.rfind(closed) + len(closed)  # text elsewhere has no bare <
    return (content, b"") if start < 0 else (content[:start] + content[end:], content[start:end])
