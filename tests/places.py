"""Where tests find things."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "recipes" / "smoke.yaml"
