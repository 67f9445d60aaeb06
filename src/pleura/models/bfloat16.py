"""What bfloat16 changes in a model's results: measured, kept in its header, and judged for `auto`.

There are two limits, because Dice on positives is about outlines, where rounding averages out, and a decision about a
single image, where it does not.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MOST_DICE_CHANGE, MOST_DECISIONS_CHANGED = 0.002, 0.01
"""What `auto` may change: Dice on positives, and the share of images on which something is found or not."""
FEWEST_CASES = 50
"""On fewer, no decision may change at all, and one that would is likely not among them."""


class Bfloat16Change(BaseModel):
    """bfloat16 against float32, on cases that the weights have not learned from, by the checkpoint's decision rule."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    weights_sha256: str
    """It holds for these weights alone, as `weights_hash` names them."""
    triplet: dict[str, Any]
    tta: str
    device: str
    """`cpu` or `cuda`: they round different layers."""
    cases: int = Field(ge=0)
    positives: int = Field(ge=0)
    dice_on_positives: float
    """In float32."""
    dice_change: float
    """Of Dice on positives: that in bfloat16 minus that in float32."""
    decisions_changed: int = Field(ge=0)
    """Of the cases, on how many something is found in one and nothing in the other."""
    largest_score_change: float
    """Of an image score."""
    data_sha256: str
    pleura: str

    @property
    def in_words(self) -> str:
        """The change, to follow on 'bfloat16'."""
        return (
            f"changes its Dice on positives by {self.dice_change:+.4f} and {self.decisions_changed} of {self.cases} "
            "decisions"
        )

    @property
    def excess(self) -> str | None:
        """Why `auto` does not accept it, to follow on `in_words`; None: it does."""
        if self.cases < FEWEST_CASES:
            return f"and auto asks for {FEWEST_CASES} cases"
        # Written so that what is no number is refused.
        small = abs(self.dice_change) <= MOST_DICE_CHANGE
        if small and self.decisions_changed <= MOST_DECISIONS_CHANGED * self.cases:
            return None
        return f"and auto accepts {MOST_DICE_CHANGE:g} and {100 * MOST_DECISIONS_CHANGED:g} % at most"

    @property
    def verdict(self) -> str:
        """One line on what was measured, and what `auto` does with it."""
        return f"bfloat16 {self.in_words}{', ' + self.excess if self.excess else ': auto takes it where it is faster'}"
