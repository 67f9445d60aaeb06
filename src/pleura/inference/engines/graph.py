"""What an exported graph has to look like, whichever engine builds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pleura.errors import CheckpointError, excerpt
from pleura.models.exported import INPUT, OUTPUT, WAY_OUT, Exported


@dataclass(frozen=True)
class Port:
    """An input or an output of a graph."""

    name: str
    dtype: str
    """As numpy names it."""
    shape: tuple[int | str, ...]
    """A word for a side that is open."""

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join(map(str, self.shape))})"

    def fits(self, wanted: Port) -> bool:
        """Whether it takes, or gives, what another one does; it may do more, by sides that are open."""
        same = (self.name, self.dtype, len(self.shape)) == (wanted.name, wanted.dtype, len(wanted.shape))
        pairs = zip(self.shape, wanted.shape, strict=False)
        return same and all(side == other or isinstance(side, str) or isinstance(other, str) for side, other in pairs)


def refuse_another_graph(exported: Exported, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
    """Refuse a graph that does not go from squares to probabilities of the sizes in its header.

    Raises: CheckpointError.
    """
    prepared_px, size_px = exported.preprocessing.prepared_px, exported.preprocessing.size_px
    for found, wanted in (
        (inputs, Port(INPUT, "uint8", ("N", prepared_px, prepared_px))),
        (outputs, Port(OUTPUT, "float32", ("N", size_px, size_px))),
    ):
        if len(found) != 1 or not found[0].fits(wanted):
            there = excerpt("; ".join(map(str, found))) or "nothing"
            raise CheckpointError(
                f"{exported.path}: its graph has {there} where its metadata ask for {wanted}; {WAY_OUT}"
            )
