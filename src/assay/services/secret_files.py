"""Files that only their owner can read."""

import contextlib
import os
import secrets
from pathlib import Path

from assay.files import disk_errors


def write_secret(path: Path, content: str, owner: tuple[int, int] | None = None) -> None:
    """Write a file with mode 0600 from its first byte on, whole or not at all.

    Args:
        path: replaced if it is there.
        content: its text.
        owner: user and group; None is who runs this.
    """
    staging = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with disk_errors(path):
        try:
            with os.fdopen(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                if owner is not None:
                    os.fchown(file.fileno(), *owner)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            staging.replace(path)
        finally:
            with contextlib.suppress(OSError):
                staging.unlink(missing_ok=True)
