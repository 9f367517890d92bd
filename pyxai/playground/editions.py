"""The folder of a site: an edition that visitors see, and the next one, which is made beside it."""

from __future__ import annotations

import bisect
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pyxai._files import sweep
from pyxai._locks import locked
from pyxai._outputs import OutputFolder, written_in
from pyxai._sealed import digest, read_record, write_record

PAGE = "index.html"
RECORD = "build.json"
_DATA = "data"
_NEXT = ".next"  # in the folder of data: hidden, so that nobody takes it for a part of the site
_NAME = re.compile(r"[0-9a-f]{12}")  # of an edition
_POINTER = '<meta name="data" content='
_FOLDER = re.compile(rf'{_POINTER}"({_DATA}(?:/[0-9a-f]+)?)"')
_LINK = re.compile(r'\b(href|src)="(icon\.svg|style\.css|scripts/)')


class Edition:
    """A folder with all the data of a site as they were at one time, and the list of its files.

    Attributes:
        path: the folder.
        keys: what the files of each step were made from.
        files: the folder with its list.
    """

    def __init__(self, path: Path) -> None:
        """Opens what there is.

        Raises:
            ValueError: the folder holds other files.
        """
        self.path = path
        self.files = OutputFolder(path, "directory", by="a site", whole=True)
        self.keys: dict[str, str] = {}
        if self.files.is_intact(RECORD):
            record = read_record(path / RECORD)
            if record["files"] in (None, self._all_files()):
                self.keys = record["steps"]
        self._names = sorted(self.files.files)

    def names(self, starts: Sequence[str]) -> list[str]:
        """The files whose names begin so, as they were when this was opened."""
        found = []
        for start in starts:
            first = bisect.bisect_left(self._names, start)
            for name in self._names[first:]:
                if not name.startswith(start):
                    break
                found.append(name)
        return found

    def save(self, *, whole: bool = False) -> None:
        """Writes the keys; of an edition that is `whole`, with a digest of its list of files."""
        record = {"steps": self.keys, "files": self._all_files() if whole else None}
        with self.files.writing(RECORD) as path:
            write_record(path, record)

    def _all_files(self) -> str:
        listed = sorted(self.files.files.items())
        return digest(f"{name} {each}\n".encode() for name, each in listed if name != RECORD)


class SiteHome:
    """The folder of a site, for one build at a time.

    What visitors see is an edition, a folder below `data/` that the page names. A build works on
    the next one and then exchanges the page, which is one step: whenever it is stopped, the site
    is the old one or the new one, whole. Files of others stay.

    Attributes:
        root: the folder.
        others: editions that there are: the one that is seen, and what stopped builds have left.
    """

    def __init__(self, root: Path) -> None:
        """Opens the folder; see `site_home`."""
        self.root = root
        self._page = OutputFolder(root, "directory", by="a site")
        self._page.claim()
        self._page.check(PAGE)
        data = root / _DATA
        data.mkdir(exist_ok=True)
        for path in data.iterdir():  # a kill may have left the folder of an edition that went
            if _NAME.fullmatch(path.name) and not path.is_symlink():
                with suppress(OSError):  # not empty
                    path.rmdir()
        self._next = data / _NEXT
        self._seen = _edition_of(root)
        self.others = [Edition(path) for path in sorted(data.iterdir()) if _is_edition(path)]
        self.others.sort(key=lambda each: each.path != self._seen)

    def next(self) -> Edition:
        """The edition that is made; what a build that was stopped has left of one is there."""
        if self._next.is_dir():
            sweep(self._next, below=True)
        edition = Edition(self._next)
        edition.files.claim()
        return edition

    def publish(self, page: str) -> Path:
        """Has visitors see the next edition, and removes all others.

        Args:
            page: the text of the page, whose links lead to the files beside it.

        Returns:
            The path of the page.
        """
        goal = self.root / _DATA / secrets.token_hex(6)
        self._next.rename(goal)
        self._show(page, goal)
        for each in self.others:
            each.files.discard()
        return self.root / PAGE

    def stay(self, page: str) -> Path:
        """Has visitors see what they saw before, as nothing has changed; see `publish`."""
        assert self.seen is not None
        self._show(page, self.seen.path)
        for each in (self.next(), *self.others):
            if each is not self.seen:
                each.files.discard()
        return self.root / PAGE

    @property
    def seen(self) -> Edition | None:
        """The edition that visitors see."""
        return next((each for each in self.others if each.path == self._seen), None)

    def _show(self, page: str, edition: Path) -> None:
        with self._page.writing(PAGE) as path:
            path.write_text(_pointing(page, f"{_DATA}/{edition.name}"), encoding="utf-8")


@contextmanager
def site_home(root: Path) -> Iterator[SiteHome]:
    """The folder of a site, which no other build works in meanwhile.

    Raises:
        ValueError: it holds other files than those of a site.
        BusyError: another build works in it.
    """
    is_site = written_in(root) is not None
    if root.exists() and not root.is_dir():
        raise ValueError(f"directory: expected a folder, got the file {str(root)!r}")
    if root.is_dir() and not is_site and not all(map(_goes_with_a_site, root.iterdir())):
        raise ValueError(
            f"directory: expected a new or empty folder, or that of a site, got {root}, which "
            f"holds other files"
        )
    with locked(root, "directory"):
        yield SiteHome(root)


def _goes_with_a_site(path: Path) -> bool:
    """Whether people put it beside a site before there is one: `.git`, what hosts ask for."""
    return path.name[0] == "." or path.name in {"CNAME", "LICENSE", "README.md", "robots.txt"}


def data_folder(root: Path) -> Path:
    """Where the data are that the page of a site shows.

    Raises:
        ValueError: there is no page, or it names none.
        OSError: it cannot be read.
    """
    found = _edition_of(root)
    if found is None:
        raise ValueError(f"{root / PAGE}: expected the page of a site, got something else")
    return found


def _edition_of(root: Path) -> Path | None:
    try:
        found = _FOLDER.search((root / PAGE).read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return None
    return None if found is None else root / found[1]


def _is_edition(path: Path) -> bool:
    if path.name == _NEXT or path.is_symlink() or not path.is_dir():
        return False
    written = written_in(path)
    return written is not None and written.whole


def _pointing(page: str, folder: str) -> str:
    """The page with its links into an edition."""
    linked = _LINK.sub(rf'\1="{folder}/pages/\2', page)
    return linked.replace(f'{_POINTER}"{_DATA}"', f'{_POINTER}"{folder}"')
