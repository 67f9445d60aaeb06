"""Recipes, ensembles and model cards as files: read, overridden, checked, and explained where they are wrong."""

from __future__ import annotations

from pleura.config.idle import Idle, idle_settings
from pleura.config.parse import Card, load_card, load_ensemble, load_recipe, parse_model, parse_recipe

__all__ = ["Card", "Idle", "idle_settings", "load_card", "load_ensemble", "load_recipe", "parse_model", "parse_recipe"]
