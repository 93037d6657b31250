"""Where recorded content is stored: a folder of a file system that fsspec knows (local, s3, gcs, abfs, sftp, memory …).

A local file appears whole or not at all, under its name, and only its owner may read it and its folders; it is not
flushed to the disk. An object of an object store appears whole by nature. On others (sftp and its like) a reader may
see the beginning of a file.
"""

import math
import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
REOPEN_AFTER_S: Final = 10.0
"""A client of an object store takes some 0.3 s of CPU to make, which its observer needs for other things."""
_PASSWORD: Final = re.compile(r"//([^/@:\s]*):[^/@\s]*@")
_LOCAL: Final = ("file", "local")


class StoreError(Exception):
    """It can never be written to; the text says why and what would be right."""


class Place:
    """What a base path says, before anything is opened. StoreError where that cannot be used."""

    def __init__(self, base: str) -> None:
        """`base`: as fsspec takes it, `/var/lib/prompts`, `file:///…`, `s3://bucket/folder`."""
        try:
            from fsspec.core import split_protocol  # noqa: PLC0415 - for those few that want it; an extra
            from fsspec.registry import get_filesystem_class  # noqa: PLC0415
        except ImportError:
            raise StoreError("fsspec is not there; `pip install fsspec` into this environment would be right") from None
        protocol, _ = split_protocol(base)
        if "::" in base:
            raise StoreError("a chain of file systems is not built; one like s3://bucket/folder would be right")
        try:
            system: Any = get_filesystem_class(protocol or "file")
        except (ImportError, ValueError) as error:  # s3fs is not installed, or no such protocol
            raise StoreError(str(error)) from None
        self.is_local = protocol is None or protocol in _LOCAL
        self._base = base
        where = Path(system._strip_protocol(base)).as_uri() if self.is_local else base  # noqa: SLF001 - fsspec's own way
        self.url = _PASSWORD.sub(r"//\1@", where if where.endswith("/") else f"{where}/")
        """Where references begin; without a password, and with a slash at its end."""

    def open(self) -> "Store":
        """Open it. May connect, and raises whatever the file system raises. One for each thread."""
        from fsspec.core import url_to_fs  # noqa: PLC0415

        return Store(*url_to_fs(self._base, skip_instance_cache=True), is_local=self.is_local)


class Store:
    """An open place. For one thread."""

    def __init__(self, system: Any, root: str, *, is_local: bool) -> None:
        self._system = system
        self._root = root.rstrip("/")
        self._is_local = is_local

    def write(self, name: str, data: bytes) -> None:
        """Store a file; `name` is relative, its folders are made, and of local ones the place itself.

        Blocks; raises what the file system raises.
        """
        path = f"{self._root}/{name}"
        if self._is_local:
            _write_file(Path(path), data)
            return
        try:
            self._system.pipe_file(path, data)
        except FileNotFoundError:  # one that has folders
            if not self._system.isdir(self._root):  # s3fs would make a bucket that is missing
                raise
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._system.pipe_file(path, data)

    def probe(self) -> None:
        """Write a file and remove it. Raises as `write` does; that it cannot be removed is no fault."""
        name = f".sluiceway-{secrets.token_hex(8)}"
        self.write(name, b"\n")
        try:
            self._system.rm_file(f"{self._root}/{name}")
        except Exception:  # noqa: BLE001 - who may write need not be allowed to delete
            return


class Stores:
    """A place's store, opened when it is first needed, and anew some time after it has failed. For one thread."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._store: Store | None = None
        self._opened_at = -math.inf

    def write(self, name: str, data: bytes) -> None:
        """As of a store."""
        self._try(lambda store: store.write(name, data))

    def probe(self) -> None:
        """As of a store."""
        self._try(Store.probe)

    def _try(self, act: Callable[[Store], None]) -> None:
        now = time.monotonic()
        if self._store is None:
            if now - self._opened_at < REOPEN_AFTER_S:
                raise StoreError("it could not be opened a moment ago")
            self._opened_at = now
            self._store = self._place.open()
        try:
            act(self._store)
        except Exception:
            if now - self._opened_at >= REOPEN_AFTER_S:  # its connection broke, and it makes no other
                self._store = None
            raise


def _write_file(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(new, flags, FILE_MODE)
    except FileNotFoundError:
        for folder in reversed(path.parents):  # not `parents=True`: that would make those above for all to read
            if not folder.is_dir():
                folder.mkdir(FOLDER_MODE, exist_ok=True)
        fd = os.open(new, flags, FILE_MODE)
    try:
        with open(fd, "wb") as file:
            file.write(data)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
