"""Backups: plugins, states, configurations and storage in one checksummed file. See `plugin`."""

from .._saved.documents import BackupError
from .plugin import Backup, RestoreReport

__all__ = ["Backup", "BackupError", "RestoreReport"]
