"""Compiled code on disk: one file a compile unit, found by a hash of all that shapes its code.

    first line   JSON: format, key, toolchain, symbol, signature, size, sha256 (over the rest of the line and the code), ...
    the rest     one relocatable object, as LLVM wrote it

No pickle, and nothing is believed: a file whose key, toolchain, size or hash is not what it should be is a miss, and is
replaced. Files come into being whole (written beside, then renamed), so a process that dies while writing leaves nothing
but a stray temporary file. The folder belongs to the user alone. Whatever goes wrong with the disk costs compiling
again, never more: one warning, then code stays in memory.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ..locks import Lock

FORMAT = 1
SUFFIX = ".code"
LIMIT_MIB = 256
"""Default bound of the folder's size; some 30,000 kernels."""
_TOUCH_S = 3600.0
"""A hit renews the file's time stamp this often: what eviction goes by."""
_NAME = re.compile(r"[0-9a-f]{64}\.code")
_HEADER_BYTES = 1 << 16
_STALE_S = 600.0
"""A temporary file older than this was left behind by a process that died."""
_LOCK_S = 5.0


class Entry(NamedTuple):
    """Compiled code and what is known of it."""

    meta: dict[str, Any]
    code: bytes


class Miss(NamedTuple):
    """Why there is no entry."""

    reason: str


class CacheWarning(UserWarning):
    """The cache on disk cannot be used as asked; code is compiled in memory instead."""


@cache
def _warn_once(text: str) -> None:
    warnings.warn(text, CacheWarning, stacklevel=2)


def default_folder() -> Path | None:
    """``FASTGRAD_CACHE_DIR``, or the user's cache folder; None where the variable is "off"."""
    given = os.environ.get("FASTGRAD_CACHE_DIR")
    if given == "off":
        return None
    try:
        if given:
            return Path(given).expanduser().absolute()
        from platformdirs import user_cache_path

        return user_cache_path("fastgrad").absolute()
    except (OSError, RuntimeError) as error:  # no home, or no such user
        _warn_once(f"fastgrad: no cache of compiled code: {error}. FASTGRAD_CACHE_DIR names a folder.")
        return None


def limit_bytes() -> int:
    """The bound of the folder's size: ``FASTGRAD_CACHE_MIB``, or `LIMIT_MIB`."""
    given = os.environ.get("FASTGRAD_CACHE_MIB", "")
    return (int(given) if given.isascii() and given.isdigit() else LIMIT_MIB) << 20


@cache
def _store_at(folder: Path) -> Store:
    return Store(folder)


def store() -> Store | None:
    """The store at the default folder, or None where the cache is off."""
    folder = default_folder()
    return None if folder is None else _store_at(folder)


class Store:
    """A folder of entries. Reads and writes never raise for the disk's faults: they miss, or warn once and give up."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._bytes: int | None = None  # what the folder held when last looked at, and what came since
        self._thread_lock = Lock()
        self._writes = True

    @property
    def refusal(self) -> str | None:
        """Why the folder is not used, or None; looked at anew each time, as it may be replaced."""
        refusal = _refusal(self.folder)
        if refusal is not None:
            _warn_once(f"fastgrad: no cache of compiled code: {refusal}. Code is compiled in memory.")
        return refusal

    def path(self, key: str) -> Path:
        """The file of an entry."""
        return self.folder / (key + SUFFIX)

    def get(self, key: str, toolchain: str) -> Entry | Miss:
        """The entry of ``key``, checked; a file that fails the check is deleted."""
        refusal = self.refusal
        if refusal is not None:
            return Miss("the cache is not used: " + refusal)
        path = self.path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return Miss("not in the cache")
        except OSError as error:
            return Miss(f"cannot be read: {error.strerror}")
        found = parse(data, key, toolchain)
        if isinstance(found, Entry):
            self._touch(path)
        else:
            self.drop(key)
        return found

    def put(self, key: str, meta: dict[str, Any], code: bytes) -> None:
        """Write an entry, whole or not at all; evict the least recently used where the folder grows too large."""
        if not self._writes or self.refusal is not None:
            return
        data = encode(key, meta, code)
        with self._thread_lock.current:
            try:
                with self.locked():
                    self._write(self.path(key), data)
                    self._bytes = self._size() if self._bytes is None else self._bytes + len(data)
                    if self._bytes > limit_bytes():
                        self._bytes = self.evict(limit_bytes() * 4 // 5)
            except IsADirectoryError:  # somebody's folder in the place of this one entry
                return
            except OSError as error:
                self._writes = False
                _warn_once(
                    f"fastgrad: cannot keep compiled code in {self.folder} ({error.strerror or error}). "
                    "It will be compiled again next time; FASTGRAD_CACHE_DIR names another folder."
                )

    def drop(self, key: str) -> None:
        """Delete an entry."""
        with contextlib.suppress(OSError):
            self.path(key).unlink()

    @contextlib.contextmanager
    def locked(self, name: str = "write", seconds: float = _LOCK_S) -> Iterator[bool]:
        """Hold the folder's lock ``name``, so that processes take turns; False, unlocked, after ``seconds``.

        Nothing is wrong without it, since files are renamed into place: it saves double work, and keeps eviction apart
        from writing. The operating system frees the lock of a process that dies.
        """
        import filelock

        self._make_folder()
        lock = filelock.FileLock(self.folder / f".{name}.lock", timeout=seconds, mode=0o600)
        try:
            lock.acquire()
        except (filelock.Timeout, NotImplementedError):
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _make_folder(self) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self.folder.mkdir(mode=0o700)
        refusal = self.refusal
        if refusal is not None:  # somebody else was quicker
            raise PermissionError(errno.EPERM, refusal)

    def _write(self, path: Path, data: bytes) -> None:
        beside = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns():x}.tmp")
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise

    def _touch(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _TOUCH_S:
                os.utime(path)

    # -- looking after the folder ------------------------------------------------------------------------------------

    def files(self) -> list[tuple[Path, os.stat_result]]:
        """Every entry's file, least recently used first."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as each:
            for item in each:
                if _NAME.fullmatch(item.name):  # whatever else lies there is not ours
                    with contextlib.suppress(FileNotFoundError):
                        found.append((Path(item.path), item.stat()))
        return sorted(found, key=lambda f: f[1].st_mtime)

    def _size(self) -> int:
        return sum(stat.st_size for _, stat in self.files())

    def evict(self, bound: int) -> int:
        """Delete least recently used entries until at most ``bound`` bytes are left, and strays; the bytes left."""
        files = self.files()
        size = sum(stat.st_size for _, stat in files)
        for path, stat in files:
            if size <= bound:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                size -= stat.st_size
        self._sweep(_STALE_S)
        return size

    def _sweep(self, older_than: float) -> None:
        for stray in self.folder.glob(f".*{SUFFIX}.*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - stray.stat().st_mtime > older_than:
                    stray.unlink()

    def verify(self) -> dict[str, str]:
        """What is wrong, by file name; sound entries (of this or another toolchain) are not listed."""
        faults = {}
        for path, _ in self.files():
            found = self.look(path)
            if isinstance(found, Miss):
                faults[path.name] = found.reason
        return faults

    def look(self, path: Path) -> Entry | Miss | None:
        """An entry of any toolchain as it lies there, checked; None for one that has just gone."""
        try:
            return parse(path.read_bytes(), path.name.removesuffix(SUFFIX), None)
        except FileNotFoundError:
            return None
        except OSError as error:
            return Miss(f"cannot be read: {error.strerror}")

    def clear(self) -> tuple[int, int]:
        """Delete everything that is ours in the folder; entries and bytes deleted. Raises `OSError` as the disk does."""
        if not self.folder.exists():
            return 0, 0
        with self.locked():
            files = [(path, stat) for path, stat in self.files() if path.is_file()]
            for path, _ in files:
                path.unlink(missing_ok=True)
            self._sweep(0.0)
            self._bytes = None
        return len(files), sum(stat.st_size for _, stat in files)


def encode(key: str, meta: dict[str, Any], code: bytes) -> bytes:
    """The bytes of an entry's file."""
    head = {"format": FORMAT, "key": key, **meta, "size": len(code)}
    return json.dumps(head | {"sha256": _sha256(head, code)}).encode() + b"\n" + code


def parse(data: bytes, key: str, toolchain: str | None) -> Entry | Miss:
    """The entry in a file's bytes, or what is wrong with it; ``toolchain`` None takes any."""
    if not data:
        return Miss("its file is empty")
    end = data.find(b"\n", 0, _HEADER_BYTES)
    line, code = data[: max(end, 0)], data[end + 1 :]
    try:
        head: dict[str, Any] = json.loads(line) if line else {}
        sha256 = head.pop("sha256")
        if head["format"] != FORMAT:
            return Miss(f"its file has format {head['format']!r}, this is {FORMAT}")
        if head["size"] > len(code):
            return Miss("its file is truncated")
        if sha256 != _sha256(head, code):
            return Miss("its file is damaged (sha256 differs)")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return Miss("its file is damaged (no header)")
    if head["key"] != key:
        return Miss("its file holds another kernel")
    if toolchain is not None and head.get("toolchain") != toolchain:
        return Miss("its file stems from another toolchain or processor")
    return Entry(head, code)


def _sha256(head: dict[str, Any], code: bytes) -> str:
    return hashlib.sha256(json.dumps(head, sort_keys=True).encode() + b"\n" + code).hexdigest()


def _refusal(folder: Path) -> str | None:
    """Why a folder must not be used: another user owns it or may write to it, or it is none; None where it is fine."""
    try:
        stat = folder.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{folder} cannot be opened ({error.strerror})"
    if not folder.is_dir():
        return f"{folder} is not a folder"
    if sys.platform == "win32":
        return None
    if stat.st_uid != os.geteuid():
        return f"{folder} belongs to another user (uid {stat.st_uid}); code from it would run as you"
    if stat.st_mode & 0o022:
        return f"{folder} may be written to by other users; try: chmod go-w {folder}"
    return None
