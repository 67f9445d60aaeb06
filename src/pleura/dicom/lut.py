"""Look-up tables of a DICOM header, by their entries as well as by their descriptor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pleura.dicom.header import is_little_endian, items, value_of, words
from pleura.errors import InputError

# A picture that ends below a quarter of its scale is black to the eye, and the depths of detectors are two bits apart.
_LEAST_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class Table:
    """A look-up table: inputs up to `first_word` give the first entry, the next input the second, and so on.

    `entries` is float64 (count,). `first_word` is 16 bits; the sign of the inputs decides whether it is signed.
    `declared_full` is the highest value of the depth that the descriptor states.
    Source: DICOM PS3.3 C.11.1.1.1, C.11.2.1.1.
    """

    entries: NDArray[np.float64]
    first_word: int
    declared_full: float

    @property
    def full(self) -> float:
        """The full scale of the output.

        It is the highest value of the declared depth, unless the highest entry contradicts that: larger than it, less
        than a quarter of it, or exactly the full scale of a smaller depth. Then it is the highest entry. So entries
        from 100 to 3000 that are declared as 12 bits have 4095; entries up to 4095 declared as 16 or as 8 bits too.
        """
        highest = float(self.entries.max())
        bits = int(highest).bit_length()
        is_smaller_depth = bits >= 8 and highest == 2**bits - 1
        if is_smaller_depth or not _LEAST_SHARE * self.declared_full <= highest <= self.declared_full:
            return max(1.0, highest)
        return self.declared_full

    def look_up(self, values: NDArray[np.float64], first: int) -> NDArray[np.float64]:
        """Return `values` through the table, whose first entry is for `first`; beyond its ends, by the last entry."""
        index = np.clip(np.rint(values - first), 0, self.entries.size - 1).astype(np.int64)
        return self.entries[index]


def table_of(dataset: Dataset, keyword: str) -> Table | None:
    """Return the table of the first item of a LUT sequence that has one; None where all are empty.

    Raises: InputError where the table is not whole.
    """
    little = is_little_endian(dataset)
    for item in items(dataset, keyword):
        descriptor, data = words(item, "LUTDescriptor", little), value_of(item, "LUTData")
        has_data = data is not None and not (hasattr(data, "__len__") and len(data) == 0)
        if not descriptor and not has_data:
            continue
        if len(descriptor) != 3 or not has_data:
            raise InputError(f"its {keyword} has no descriptor, or no table; export it again")
        count, first, bits = descriptor
        count = count or 65536
        entries = _entries(item, count, bits, little)
        if entries.size != count or not 1 <= bits <= 16:
            sizes = f"{entries.size} entries of {bits} bits where {count} are declared"
            raise InputError(f"its LUT has {sizes}; export it again")
        return Table(entries.astype(np.float64), first, float(2**bits - 1))
    return None


def _entries(item: Dataset, count: int, bits: int, little: bool) -> NDArray[np.uint16]:
    """Return the entries of a table; those of up to 8 bits may be packed two to a word.

    Raises: InputError. Source: DICOM PS3.3 C.11.1.1.1, PS3.5 7.3 (byte ordering).
    """
    data = item.LUTData
    if not isinstance(data, bytes):
        return np.asarray(words(item, "LUTData", little), dtype=np.uint16)
    if bits <= 8 and len(data) - count in (0, count % 2):
        # The first of the two is in the low byte of the word.
        swapped = not little and item["LUTData"].VR == "OW" and len(data) % 2 == 0
        packed = np.frombuffer(data, dtype=">u2").astype("<u2").tobytes() if swapped else data
        return np.frombuffer(packed[:count], dtype=np.uint8).astype(np.uint16)
    return np.frombuffer(data[: len(data) // 2 * 2], dtype="<u2" if little else ">u2").astype(np.uint16)
