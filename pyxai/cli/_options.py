"""Options that several commands have, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Photos: TypeAlias = Annotated[
    list[Path] | None,
    typer.Argument(help="Photos or folders; without any, two sample photos of scikit-learn."),
]
ModelName: TypeAlias = Annotated[
    str, typer.Option(help="demo, torchvision:NAME, timm:NAME, hf:NAME, or a file.")
]
Architecture: TypeAlias = Annotated[
    str | None, typer.Option(help="For a file of weights: torchvision:NAME, timm:NAME.")
]
Target: TypeAlias = Annotated[
    str | None, typer.Option(help="Class name or index; by default each photo's top class.")
]
Output: TypeAlias = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")]
Checkpoint: TypeAlias = Annotated[
    Path | None, typer.Option(help="Folder from which an interrupted run goes on.")
]
Device: TypeAlias = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")]
AllowRemoval: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--allow-removal",
        help="Even if most photos of the index are gone, or all below an empty folder.",
    ),
]
