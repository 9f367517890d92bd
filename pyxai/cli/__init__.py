"""The command line: one small file a command."""

from __future__ import annotations

import sys
import warnings
from typing import TextIO

import typer

from pyxai._errors import MissingExtraError
from pyxai._locks import BusyError
from pyxai.cli.audit import audit
from pyxai.cli.duplicates import duplicates
from pyxai.cli.explain import explain
from pyxai.cli.features import features
from pyxai.cli.gallery import gallery
from pyxai.cli.info import info
from pyxai.cli.layers import layers
from pyxai.cli.novelty import novelty
from pyxai.cli.playground import playground
from pyxai.cli.search import search
from pyxai.cli.shap import shap
from pyxai.cli.train import train
from pyxai.cli.undesirable import undesirable
from pyxai.cli.windows import windows
from pyxai.images import PhotoWarning
from pyxai.ops import CudaUnavailableError

app = typer.Typer(
    help="Explains image classifiers, fast.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(audit)
app.command()(duplicates)
app.command()(explain)
app.command()(features)
app.command()(gallery)
app.command()(info)
app.command()(layers)
app.add_typer(novelty, name="novelty")
app.add_typer(playground, name="playground")
app.command()(shap)
app.add_typer(search, name="search")
app.command()(train)
app.command()(undesirable)
app.command()(windows)


def main() -> None:
    """Runs the command line; what a user can mend is one line and exit code 2, no traceback."""
    warnings.showwarning = _show
    try:
        app()
    except (ValueError, OSError, BusyError, MissingExtraError, CudaUnavailableError) as error:
        sys.exit(_fail(str(error)))
    except KeyboardInterrupt:
        sys.stderr.write("pyxai: stopped; what was written stays, the same command goes on\n")
        sys.exit(130)


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
    if issubclass(category, PhotoWarning):
        sys.stderr.write(f"pyxai: {message}\n")
    else:
        _python_shows(message, category, filename, lineno, file, line)


def _fail(message: str) -> int:
    sys.stderr.write(f"pyxai: error: {message}\n")
    return 2
