"""Imports timm, as `pleura.models.encoders` does: for the process that others are forked from."""

from pleura.models.encoders import import_timm

import_timm()
