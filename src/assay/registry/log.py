"""The append-only log of what happened to the registered models, one line of JSON for each step."""

import json
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assay.errors import AssayError
from assay.files import disk_errors

Event = dict[str, Any]
"""``id``, ``time`` (ISO 8601, UTC), ``kind``, ``model``, ``version``, ``actor``, and more by kind."""


def new_event(kind: str, model: str, version: int | None, **fields: Any) -> Event:
    """Return an event with an id that sorts by time.

    Example:
        >>> event = new_event("promotion", "classifier", 2, reason="passed the gate")
        >>> event["kind"], event["version"], event["id"][:8] == event["time"][:10].replace("-", "")
        ('promotion', 2, True)
    """
    now = datetime.now(UTC)
    return {
        "id": f"{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}",
        "time": now.isoformat(timespec="milliseconds"),
        "kind": kind,
        "model": model,
        "version": version,
        **fields,
    }


class PromotionLog:
    """A JSONL file that is only ever appended to; each line is on the disk before ``append`` returns.

    A step of an event is a line with the event's ``id``; a later line adds to or overrides an earlier one.

    Example:
        >>> import tempfile; log = PromotionLog(Path(tempfile.mkdtemp()) / "log.jsonl")
        >>> log.append({"id": "1", "step": "intent"}); log.append({"id": "1", "step": "done"}); log.events()
        {'1': {'id': '1', 'step': 'done'}}
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line and wait until the disk has it.

        Raises:
            UserError: the disk is full or may not be written.
        """
        data = json.dumps(line, allow_nan=False).encode() + b"\n"
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                if file.tell() and not self._ends_whole(file):
                    data = b"\n" + data  # a writer was killed inside its line: leave that line torn
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

    @staticmethod
    def _ends_whole(file: Any) -> bool:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"

    def events(self) -> dict[str, Event]:
        """Return the events by id, oldest first, with their steps folded together.

        A torn line, left by a process that was killed inside a write, says nothing was done and is skipped.

        Raises:
            AssayError: a line is JSON but not an event.
        """
        folded: dict[str, Event] = {}
        if not self.path.is_file():
            return folded
        for number, text in enumerate(self.path.read_bytes().splitlines(), start=1):
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if not isinstance(line, dict) or "id" not in line:
                raise AssayError(f"{self.path}:{number} is not an event: restore the file from a backup.")
            folded.setdefault(line["id"], {}).update(line)
        return folded
