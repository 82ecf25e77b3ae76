"""One JSON object a line: what happened, never of what. No image, file name, query or key is in it."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

LOGGER = "finevote.serving"
_OF_UVICORN = "uvicorn.error"


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON: time, level, event, and the fields that it was given."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            told["trace"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def configure_logs(stream: TextIO | None = None) -> None:
    """Let the server and uvicorn log as JSON to `stream`, standard error unless given; uvicorn only what is wrong."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name, level in ((LOGGER, logging.INFO), (_OF_UVICORN, logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level)
    logging.getLogger("uvicorn.access").disabled = True


def log(event: str, *, level: int = logging.INFO, trace: bool = False, **fields: Any) -> None:
    """Write a line about an event."""
    logging.getLogger(LOGGER).log(level, event, extra={"fields": fields}, exc_info=trace)
