"""UIDs that follow from what they name, so that the same result made twice is one object in an archive."""

from __future__ import annotations

import uuid

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:pleura:dicom")


def derived_uid(*parts: str) -> str:
    """Return the UID of a list of texts: the same for the same list, and for no other.

    A name-based UUID below 2.25, which needs no registered root. Source: DICOM PS3.5 B.2; RFC 9562 5.5 (version 5).
    """
    # Lengths tell ("a", "bc") from ("ab", "c").
    name = "".join(f"{len(part)}:{part}" for part in parts)
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"


IMPLEMENTATION_CLASS_UID = derived_uid("implementation")
"""In the file meta information of every DICOM file that pleura writes: one with it is no radiograph."""
