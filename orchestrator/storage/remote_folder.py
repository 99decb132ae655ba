"""A folder behind any URL that fsspec knows: ``s3://``, ``gs://``, ``sftp://``, ``file://``, ...

Files come whole or not at all where the store allows: an object store's put is atomic, elsewhere a file is written
under another name and moved. What a store raises becomes a ``RemoteError`` that names the URL and the reason.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from specvit.errors import SpecsweepError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_PASSWORD = re.compile(r"[^/@]*:(?!\d+/)[^@]*@")
"""``user:password@`` at the start of what follows ``://``; a port is none."""

_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "hf", "memory"})
"""Stores with atomic puts and without folders that would have to be made."""

_PACKAGES = {
    "s3": "specsweep[s3]",
    "s3a": "specsweep[s3]",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "smb": "smbprotocol",
    "webdav": "webdav4",
    "oss": "ossfs",
    "hdfs": "pyarrow",
}
"""What pip has to install for a scheme."""


class RemoteError(SpecsweepError):
    """A store that cannot be used; the text names the URL and the reason."""


def is_url(text: str) -> bool:
    """Return whether a place of results is a URL, and not a path."""
    return "://" in text


@dataclass(frozen=True)
class RemoteFolder:
    """A place in a store. It can be sent to other processes; connections are made where they are used.

    Attributes:
        url: Its URL.
    """

    url: str

    def __post_init__(self) -> None:
        """Check and normalise the URL.

        Raises:
            RemoteError: If it is chained, or has a password in it: command lines are shown and recorded.
        """
        scheme, _, rest = self.url.partition("://")
        if not _SCHEME.fullmatch(scheme):
            raise RemoteError(f"{scheme[:40]!r} is no scheme; a URL for results is such as s3://bucket/folder")
        if _PASSWORD.match(rest):
            raise RemoteError(
                f"{scheme}://...: a URL for results must not hold a password, since command lines are recorded; "
                f"give it by the environment (such as FSSPEC_{scheme.upper()}_PASSWORD) or the store's own settings"
            )
        object.__setattr__(self, "url", f"{scheme}://{rest.rstrip('/')}")

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemoteFolder:
        return RemoteFolder(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """Return the last part of the URL."""
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> RemoteFolder:
        """Return the folder that this one lies in."""
        return RemoteFolder(self.url.rpartition("/")[0])

    def put(self, name: str, source: Path) -> None:
        """Upload a file; one of that name is replaced.

        Raises:
            RemoteError: If that is not possible.
        """
        with self._translate_store_errors("written", name) as store:
            self._write(store, name, lambda path: store.put_file(str(source), path))

    def put_bytes(self, name: str, data: bytes) -> None:
        """Write a small file; one of that name is replaced.

        Raises:
            RemoteError: If that is not possible.
        """
        with self._translate_store_errors("written", name) as store:
            self._write(store, name, lambda path: store.pipe_file(path, data))

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file unless one of that name is there; atomic where the store has conditional writes.

        A store that has none is asked what is there, and then written to: of two processes that come in the same
        moment both may be told that they wrote.

        Returns:
            Whether it was written.

        Raises:
            RemoteError: If that is not possible. A conditional write that fails is never followed by another kind of
                write; where it failed after all was written (a connection that broke before the answer), the file
                is there with ``data`` in it.
        """
        with self._translate_store_errors("written", name) as store:
            self._make_parent(store, name)
            try:
                store.pipe_file(self._path(store, name), data, mode="create")
            except FileExistsError:
                return False
            except (NotImplementedError, TypeError, ValueError) as error:
                if not _says_no_such_mode(error):
                    raise
            else:
                return True
        if self.get_bytes(name) is not None:
            return False
        self.put_bytes(name, data)
        return True

    def get(self, name: str, target: Path) -> bool:
        """Download a file into an existing folder.

        Returns:
            False, and ``target`` is as it was, if there is no such file.

        Raises:
            RemoteError: If that is not possible.
        """
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        with self._translate_store_errors("read", name) as store:
            try:
                store.get_file(self._path(store, name), str(temporary))
                temporary.replace(target)
            except FileNotFoundError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def get_bytes(self, name: str) -> bytes | None:
        """Return the content of a small file; None if there is no such file.

        Raises:
            RemoteError: If it cannot be read.
        """
        with self._translate_store_errors("read", name) as store:
            try:
                return bytes(store.cat_file(self._path(store, name)))
            except FileNotFoundError:
                return None

    def modified_at(self, name: str) -> datetime | None:
        """Return when a file was written, by the store's clock; None if there is no such file, or it does not say.

        Raises:
            RemoteError: If that cannot be found out.
        """
        with self._translate_store_errors("read", name) as store:
            try:
                at: datetime = store.modified(self._path(store, name))
            except (FileNotFoundError, NotImplementedError):
                return None
        return at if at.tzinfo else at.replace(tzinfo=UTC)

    def names(self, *, folders: bool = False) -> tuple[str, ...]:
        """Return the names of the files, or of the folders, directly in this folder; none if it does not exist.

        Raises:
            RemoteError: If it cannot be listed.
        """
        wanted = "directory" if folders else "file"
        with self._translate_store_errors("listed") as store:
            try:
                entries = store.ls(self._path(store), detail=True)
            except FileNotFoundError:
                return ()
        names = (entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == wanted)
        return tuple(sorted(name for name in names if name))

    def delete(self, name: str) -> None:
        """Delete a file; it need not exist.

        Raises:
            RemoteError: If that is not possible.
        """
        with self._translate_store_errors("deleted", name) as store, suppress(FileNotFoundError):
            store.rm_file(self._path(store, name))

    @contextmanager
    def _translate_store_errors(self, what: str, name: str = "") -> Iterator[Any]:
        """Give the file system, and turn what it raises into a RemoteError."""
        place = f"{self.url}/{name}" if name else self.url
        try:
            store = self._store()
            store.invalidate_cache()  # others write here too
            yield store
        except SpecsweepError:
            raise
        except Exception as error:
            # Every store raises exceptions of its own, which share no base; here they get one.
            text = next(iter(str(error).strip().splitlines()), "")
            reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
            raise RemoteError(f"{place}: cannot be {what} ({reason})") from error

    def _store(self) -> Any:
        """Return the file system; fsspec keeps one for each process and thread."""
        import fsspec

        scheme = self._scheme
        try:
            return fsspec.core.url_to_fs(self.url)[0]
        except ImportError as error:
            package = _PACKAGES.get(scheme)
            hint = f"pip install '{package}'" if package else str(error)
            raise RemoteError(f"{self.url}: needs a package that is not installed here: {hint}") from error
        except ValueError as error:
            raise RemoteError(f"{self.url}: is no URL that fsspec can use ({error})") from error

    @property
    def _scheme(self) -> str:
        return self.url.partition("://")[0]

    def _path(self, store: Any, name: str = "") -> str:
        path: str = store._strip_protocol(f"{self.url}/{name}" if name else self.url)
        return path

    def _make_parent(self, store: Any, name: str) -> None:
        if self._scheme not in _OBJECT_STORES:
            store.makedirs(self._path(store, name).rpartition("/")[0], exist_ok=True)

    def _write(self, store: Any, name: str, write: Any) -> None:
        path = self._path(store, name)
        if self._scheme in _OBJECT_STORES:
            write(path)
            return
        self._make_parent(store, name)
        folder, _, last = path.rpartition("/")
        temporary = f"{folder}/.{last}.{secrets.token_hex(4)}"
        try:
            write(temporary)
            try:
                store.mv(temporary, path)
            except FileExistsError:
                store.rm_file(path)
                store.mv(temporary, path)
        except BaseException:
            with suppress(Exception):
                store.rm_file(temporary)
            raise


Location = Path | RemoteFolder
"""A place on this machine or in a store."""


def _says_no_such_mode(error: NotImplementedError | TypeError | ValueError) -> bool:
    """Return whether a store has no conditional writes: it knows no ``mode``, or not this one."""
    # A TypeError or a ValueError can also be a fault of the store's answer, which says nothing of modes.
    return isinstance(error, NotImplementedError) or (type(error) in (TypeError, ValueError) and "mode" in str(error))
