"""What a shared storage's server has, in memory: the confirmed entries, up to a revision.

A namespace in use has a copy of its own, which shows this process's writes at once. A change of
another process is shown there unless a write of this process to the same key is under way: that
one comes later in the server's order, or the server's order has reached it and is shown then. So
all processes show the same in the end (test_storage_shared.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .changes import Watches
from .codec import Packed
from .namespace import Namespace
from .port import Contents, Record
from .write import Write

__all__ = ["Mirror"]


class Mirror:
    """The confirmed entries.

    Args:
        namespaces: The namespaces in use, by name.
        watches: Those that watch them.
        expire: Called with namespace, key and encoded value of each new entry.

    Attributes:
        revision: The server's revision that is reached.
    """

    def __init__(
        self,
        namespaces: dict[str, Namespace],
        watches: Watches,
        expire: Callable[[str, str, bytes], object],
    ) -> None:
        self.revision = -1
        self._entries: dict[str, dict[str, bytes]] = {}
        self._namespaces = namespaces
        self._watches = watches
        self._expire = expire
        # Writes that are not confirmed: not acknowledged, or the revision is not reached.
        self._writes: dict[str, list[Write]] = {}
        self._acknowledged: list[tuple[int, Write]] = []

    def get(self, namespace: str, key: str) -> bytes | None:
        """Return the encoded value of an entry, or `None`."""
        return self._entries.get(namespace, {}).get(key)

    def read(self, namespace: str) -> dict[str, object]:
        """Return a copy of a namespace's encoded entries."""
        return {key: Packed(value) for key, value in self._entries.get(namespace, {}).items()}

    def names(self) -> list[str]:
        """Return the namespaces that have entries, sorted."""
        return sorted(name for name, entries in self._entries.items() if entries)

    def copy(self) -> dict[str, dict[str, bytes]]:
        """Return all entries, in dicts of their own."""
        return {name: dict(entries) for name, entries in self._entries.items()}

    def unconfirmed(self, namespace: str) -> list[Write]:
        """Return the writes to a namespace that the entries do not have yet, in order."""
        return self._writes.get(namespace, [])

    def began(self, write: Write) -> None:
        """Add a write that is under way."""
        self._writes.setdefault(write.namespace, []).append(write)

    def acknowledged(self, write: Write, revision: int) -> None:
        """Take note that the server has carried out a write, at a revision."""
        if revision <= self.revision:
            self.confirm([write])
        else:
            self._acknowledged.append((revision, write))

    def confirm(self, writes: Iterable[Write]) -> None:
        """Forget writes that are carried out, or have failed; show what the server has."""
        for write in writes:
            others = self._writes[write.namespace]
            others.remove(write)
            if not others:
                del self._writes[write.namespace]
            namespace = self._namespaces.get(write.namespace)
            if namespace is None:
                continue
            if write.cleared:
                namespace.forget()
                continue
            entries = self._entries.get(write.namespace, {})
            for key, value in write.entries.items():
                confirmed = entries.get(key)
                if confirmed != value and not self._is_pending(namespace, key):
                    namespace.show(key, confirmed)

    def take(self, records: Sequence[Record]) -> None:
        """Carry out changes that the server reports, in its order."""
        for record in records:
            self._carry_out(record)
        if records:
            self.revision = max(self.revision, records[-1].revision)
            reached = [one for revision, one in self._acknowledged if revision <= self.revision]
            if reached:
                self._acknowledged = [one for one in self._acknowledged if one[0] > self.revision]
                self.confirm(reached)

    def _carry_out(self, record: Record) -> None:
        entries = self._entries.setdefault(record.namespace, {})
        changed: dict[str, bytes | None] = {}
        if record.cleared:
            changed.update(dict.fromkeys(entries))
            entries.clear()
        changed.update(record.entries)
        for key, value in record.entries.items():
            if value is None:
                entries.pop(key, None)
            else:
                entries[key] = value
                self._expire(record.namespace, key, value)
        self._show(record.namespace, changed)

    def _show(self, name: str, changed: dict[str, bytes | None]) -> None:
        namespace = self._namespaces.get(name)
        if namespace is not None:
            for key, value in changed.items():
                if not self._is_pending(namespace, key):
                    namespace.show(key, value)
        if name in self._watches:
            self._watches.publish(name, changed)

    def _is_pending(self, namespace: Namespace, key: str) -> bool:
        return any(
            write.cleared or key in write.entries
            for write in (*self._writes.get(namespace.name, ()), *namespace.queued)
        )

    def acknowledged_so_far(self) -> list[Write]:
        """Return writes that the server has carried out: what is loaded from now on has them."""
        return [write for _, write in self._acknowledged]

    def replace(self, contents: Contents, included: Iterable[Write]) -> None:
        """Exchange all entries for what was loaded.

        Args:
            contents: The server's entries.
            included: `acknowledged_so_far()` from before they were loaded. The revision alone does
                not say so: a server that lost its data counts from the beginning again.
        """
        former, self._entries = self._entries, contents.entries
        self.revision = contents.revision
        for name in former.keys() | contents.entries.keys():
            old, new = former.get(name, {}), contents.entries.get(name, {})
            changed: dict[str, bytes | None] = {
                key: value for key, value in new.items() if old.get(key) != value
            }
            for key, value in new.items():
                if key in changed:
                    self._expire(name, key, value)
            changed.update((key, None) for key in old if key not in new)
            if changed:
                self._show(name, changed)
        done = {id(write) for write in included}
        reached = [
            write
            for revision, write in self._acknowledged
            if id(write) in done or revision <= self.revision
        ]
        self._acknowledged = [
            one for one in self._acknowledged if not any(one[1] is write for write in reached)
        ]
        self.confirm(reached)
