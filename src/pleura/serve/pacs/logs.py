"""The log of a listener: that of the service, and nothing besides it that could quote a header.

What other libraries log can name a patient, and so can the text of an exception: of those, only the type and the place
are written.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from types import TracebackType

from pleura.serve.logs import LOGGER, log_error, use_json_logs

_OTHERS = ("pynetdicom", "pydicom", "dicomweb_client", "urllib3", "requests")


def begin_log(level: int = logging.INFO) -> None:
    """Log as the service does, from `level` on, and keep what may quote a header out of it."""
    use_json_logs()
    logging.getLogger(LOGGER).setLevel(level)
    for name in _OTHERS:
        other = logging.getLogger(name)
        other.handlers, other.propagate = [_WithoutWords(logging.ERROR)], False
        other.setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    sys.excepthook = _say_where
    threading.excepthook = lambda args: _say_where(args.exc_type, args.exc_value, args.exc_traceback)


class _WithoutWords(logging.Handler):
    """Says that another library logged an exception, and where; nothing of what it logged."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, OSError):  # a connection that broke off is no news
            log_error("fault in a library", error, library=record.name.partition(".")[0])


def _say_where(kind: type[BaseException], error: BaseException | None, _: TracebackType | None) -> None:
    """Log where a thread or the process came to an unexpected end."""
    if error is not None and not issubclass(kind, SystemExit | KeyboardInterrupt):
        log_error("unexpected end", error)
