"""The command line: one small file a command, imported when the command is used."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from pyxai import __version__

# The commands, in the order of the help, and the first line of the help of each: to list them, none
# is imported.
COMMANDS = {
    "audit": (
        "Look over a folder of photos before training: bad, odd, unusual and mislabelled ones."
    ),
    "duplicates": "Find photos that show the same, and say which copy to keep; nothing is deleted.",
    "explain": "Show where a classifier looked: an overlay picture and a JSON file for each photo.",
    "features": (
        "Show what channels or classes of a network respond to: pictures, crops and a sheet."
    ),
    "gallery": (
        "Show what each class looks like to a classifier: its best crops out of many photos."
    ),
    "info": "Print versions, the instruction set in use, threads, and the state of CUDA.",
    "layers": (
        "List the layers of a network, as --layer takes them, and say which one is the default."
    ),
    "novelty": "Tell photos of the kind that a classifier knows from all others.",
    "playground": "A web site to explore what classifiers see in photos.",
    "shap": (
        "Show what speaks for classes and against them: a figure and a JSON file for each photo."
    ),
    "search": "Find photos that a classifier finds alike, in an index of its features.",
    "train": "Train a classifier to tell the classes of a folder of photos apart.",
    "undesirable": (
        "Show which pixels stand in the way of a class: a figure and a JSON file for each photo."
    ),
    "windows": (
        "Show which pieces of a photo look like a class: a sheet, an overlay and a JSON file each."
    ),
}


_STOPPED = 130  # by Ctrl-C, as shells have it


class _Commands(TyperGroup):
    """Lists commands by their names, and imports the one that is used."""

    # Of click, or of the copy of it that newer versions of typer have: so no types are named.

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        help_line = COMMANDS.get(cmd_name)
        return None if help_line is None else TyperCommand(cmd_name, help=help_line)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, None if command is None else load(command.name or ""), rest


def load(name: str) -> Any:
    """The command of that name, imported."""
    command: Callable[..., Any] | typer.Typer = getattr(import_module(f"pyxai.cli.{name}"), name)
    if isinstance(command, typer.Typer):
        group = typer.main.get_command(command)
        group.name = name
        return group
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name)(command)
    return typer.main.get_command(single)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pyxai {__version__}")
        raise typer.Exit


@app.callback(help="Explains image classifiers, fast.")
def _pyxai(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Does nothing before a command."""


def main() -> None:
    """Runs the command line; what a user can mend is one line, without a traceback.

    Exit codes: 0 when the job was done, with the photos that could not be used named; 1 when
    nothing could be done; 2 for arguments that do not fit; 130 after Ctrl-C.
    """
    warnings.showwarning = _show
    try:
        app()
    except (KeyboardInterrupt, SystemExit) as end:  # typer ends by itself with 130
        if isinstance(end, SystemExit) and end.code != _STOPPED:
            raise
        sys.stderr.write("pyxai: stopped; what was written stays\n")
        sys.exit(_STOPPED)
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        sys.stderr.write(f"pyxai: error: {error}\n")
        sys.exit(code)


def _exit_code(error: Exception) -> int | None:
    """That of an error which pyxai raises for a user to read; None of others."""
    from pyxai._errors import MissingExtraError
    from pyxai._locks import BusyError
    from pyxai.images import ImageError
    from pyxai.ops import CudaUnavailableError

    if isinstance(error, ImageError):
        names = [name for name, _ in getattr(error, "failures", [(error.name, "")])]
        return 1 if any(Path(name).is_file() for name in names) else 2
    if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
        return 2
    if isinstance(error, (OSError, BusyError)):
        return 1
    wrong = (ValueError, MissingExtraError, CudaUnavailableError)
    return 2 if isinstance(error, wrong) else None


_python_shows = warnings.showwarning


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Of ours, the words without the line of the source."""
    from pyxai.images import PhotoWarning

    if issubclass(category, PhotoWarning):
        sys.stderr.write(f"pyxai: {message}\n")
    else:
        _python_shows(message, category, filename, lineno, file, line)
