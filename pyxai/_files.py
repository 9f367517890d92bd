"""Files that are written all or nothing, whoever is killed or writes as well."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_MARK = "pyxai-part"
_HOST = hashlib.blake2b(socket.gethostname().encode(), digest_size=3).hexdigest()
_numbers = itertools.count()
_cleaned: set[Path] = set()
_open: set[str] = set()  # names of files that this process writes just now


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Another file to write to, which takes the place of the path unless an error comes first.

    It lies in the same folder, is hidden, has the same suffix, and is no one else's: threads and
    processes that write the same path do not meet. What a killed process left goes when the folder
    is written to again.
    """
    if path.is_dir():
        raise IsADirectoryError(f"expected a file to write, got the folder {str(path)!r}")
    _clean(path.parent)
    stem = hashlib.blake2b(os.fsencode(path.name), digest_size=6).hexdigest()
    name = f".{stem}.{_HOST}.{os.getpid()}.{next(_numbers)}.{_MARK}{path.suffix}"
    partial = path.with_name(name)
    _open.add(name)
    try:
        yield partial
        partial.replace(path)
    except OSError as error:  # of a full disk it names no file, else the hidden one
        if error.errno is None or error.filename not in (None, str(partial), partial):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
        _open.discard(name)


def write_json(path: Path, record: dict[str, Any], *, indent: int | None = 1) -> None:
    """Writes JSON, all or nothing; names that are not UTF-8 survive as escapes."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(record, indent=indent) + "\n", encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    """Writes text, all or nothing; names that are not UTF-8 are written as the bytes they are."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV file, all or nothing; names that are not UTF-8 are the bytes they are."""
    with (
        replacing(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def refuse_other_file(
    argument: str, path: Path, kind: str, is_ours: Callable[[Path], bool]
) -> None:
    """Refuses to write over what is not a file of this kind.

    Args:
        argument: what the path is called.
        path: where a file shall be written.
        kind: of file, in words, such as "a detector saved by pyxai".
        is_ours: whether a file is one; errors of reading and values count as no.

    Raises:
        ValueError: something else has this path.
    """
    if not path.exists() and not path.is_symlink():
        return
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        if path.is_file() and is_ours(path):
            return
    expected = f"a new path, or that of {kind}, which is replaced"
    what = "a link" if path.is_symlink() else "something else"
    raise ValueError(f"{argument}: expected {expected}, got {str(path)!r}, which is {what}")


def is_part(name: str) -> bool:
    """Whether a file of this name is one that `replacing` has begun."""
    parts = name.split(".")
    return len(parts) >= 6 and not parts[0] and parts[5].startswith(_MARK)


def sweep(folder: Path, *, below: bool = False) -> None:
    """Removes what writers have left in a folder that no other run works in.

    Args:
        folder: the folder.
        below: whether in all folders in it as well.
    """
    pattern = f".*.{_MARK}*"
    for path in [*(folder.rglob(pattern) if below else folder.glob(pattern))]:
        if is_part(path.name):
            path.unlink(missing_ok=True)


def _clean(folder: Path) -> None:
    """Removes what writers that are no more have left, once in the life of this process."""
    key = folder.absolute()
    if key in _cleaned:
        return
    _cleaned.add(key)
    with suppress(OSError):
        for entry in os.scandir(folder):
            if not is_part(entry.name) or entry.name.split(".")[2] != _HOST:
                continue
            process = entry.name.split(".")[3]
            if entry.name in _open or not process.isdigit():
                continue
            # In a container a process often has the number of one that was killed.
            if int(process) == os.getpid() or not _runs(int(process)):
                Path(entry.path).unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether there is such a process; where that cannot be asked, there is."""
    if os.name != "posix":  # a signal 0 would end it there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
