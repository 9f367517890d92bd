"""Which files were moved away from where: written down before each move."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pyxai.curate.duplicates.lines import Lines
from pyxai.curate.duplicates.relocate import sync_folder

JOURNAL = "moved.jsonl"
"""The file in the folder that copies were moved to; it stays until all are back."""

_KIND = "pyxai moved copies 1"

MOVING = "moving"
COPYING = "copying"
MOVED = "moved"
RETURNING = "returning"
COPYING_BACK = "copying back"
BACK = "back"
_UNDER_WAY = (MOVING, COPYING, RETURNING, COPYING_BACK)


@dataclass
class Move:
    """One file that was to be moved.

    Attributes:
        number: of the move.
        home: where it came from, absolute.
        name: what it is called below the folder that it was moved to, with "/".
        contents: digest of its bytes.
        state: how far it got.
    """

    number: int
    home: str
    name: str
    contents: str
    state: str = MOVING

    @property
    def is_under_way(self) -> bool:
        """Whether a kill or an error has stopped it."""
        return self.state in _UNDER_WAY


class Journal:
    """The moves into a folder, each with its state; the folder must be locked.

    Attributes:
        moves: in the order in which they were begun.
    """

    def __init__(self, folder: Path) -> None:
        """Reads what is there.

        Raises:
            ValueError: the file is something else.
            DamagedError: it is not as it was written.
        """
        self._path = folder / JOURNAL
        self._lines = Lines(
            self._path,
            _KIND,
            argument="directory",
            expected=f"a folder without {JOURNAL}, or with one that tells of moved copies",
        )
        self.moves: list[Move] = []
        for record in self._lines.records:
            if record["state"] == MOVING:
                self.moves.append(Move(**record))
            else:
                self.moves[record["number"]].state = record["state"]

    def begin(self, home: Path, name: str, contents: str) -> Move:
        """Writes down that a file is about to be moved."""
        move = Move(len(self.moves), str(home), name, contents)
        self._lines.append(vars(move), sync=True)
        if not self.moves:
            sync_folder(self._path.parent)
        self.moves.append(move)
        return move

    def note(self, move: Move, state: str) -> None:
        """Writes down how far a move got."""
        self._lines.append({"number": move.number, "state": state}, sync=state in _UNDER_WAY)
        move.state = state

    def close(self) -> None:
        """Removes the file if nothing is left to be moved back."""
        if all(move.state == BACK for move in self.moves):
            self._path.unlink(missing_ok=True)
            sync_folder(self._path.parent)
