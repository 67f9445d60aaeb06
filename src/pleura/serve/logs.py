"""One JSON document a line on standard output, without anything of a patient.

An exception is logged by its type and the lines that it passed: its message may quote a file. Nothing goes to standard
error, which the decoder of some files takes for itself while it reads (`dicom.decode`).
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

LOGGER = "pleura.serve"
_QUOTING = ("python_multipart", "pydicom", "PIL")
"""They log what they find in a file; what matters of it is in the refusal."""
_SERVERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


def use_json_logs(stream: TextIO | None = None) -> None:
    """Send what the service and its web server log to standard output, or to a stream."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(_JsonLines())
    for name in (LOGGER, *_SERVERS):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == LOGGER else logging.WARNING)
    for name in _QUOTING:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def log(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log an event; None fields are left out."""
    logging.getLogger(LOGGER).log(level, event, extra={"fields": fields})


def log_error(event: str, error: BaseException, **fields: Any) -> None:
    """Log a fault of the service: the type of an exception and where it came from."""
    caught = (type(error), error, error.__traceback__)
    logging.getLogger(LOGGER).error(event, exc_info=caught, extra={"fields": fields})


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage() if record.name == LOGGER else record.name,
            **getattr(record, "fields", {}),
        }
        if record.name != LOGGER:  # without its arguments, which may be of a request
            fields["message"] = str(record.msg).strip()
        if record.exc_info and record.exc_info[0] is not None:
            fields["error"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])
            fields["at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps({name: value for name, value in fields.items() if value is not None})
