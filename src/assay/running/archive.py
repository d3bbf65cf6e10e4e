"""What tasks made, kept in the object store by the digest of its content."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from assay.storage import ObjectStore


@dataclass(frozen=True)
class Archive:
    """The outputs of tasks below ``ASSAY_ARTIFACTS``, each under its digest, so that an equal one is kept once."""

    store: ObjectStore

    @classmethod
    def from_environment(cls) -> Self | None:
        """Return the archive that ``ASSAY_ARTIFACTS`` names, or None where it is not set.

        Raises:
            UserError: it is not an address in S3.
        """
        address = os.environ.get("ASSAY_ARTIFACTS", "")
        return cls(ObjectStore(address)) if address else None

    def keep(self, path: Path, digest: str) -> None:
        """Store a file or a folder, unless its content is there already."""
        if path.exists() and not self.store.exists(digest):
            self.store.put(path, digest)

    def restore(self, path: Path, digest: str) -> None:
        """Bring back a file or a folder that is gone; what lies there, and what was never kept, is left as it is."""
        if not path.exists() and self.store.exists(digest):
            self.store.get(digest, path)
