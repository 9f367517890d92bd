"""One way to go through many photos: what is known of each is kept, and a stopped run goes on.

A run has an identity (what its rows depend on, compared word by word), parts (files of rows, each
written all or nothing), the photos that failed, a lock, a bar and an executor.
"""

from pyxai.images.errors import PhotoFailure
from pyxai.runs.going import Run, open_run
from pyxai.runs.parts import Kind, Part
from pyxai.runs.photos import OpenPhoto, PhotoState
from pyxai.runs.state import RunState, open_state
from pyxai.runs.working import Executor, Row

__all__ = [
    "Executor",
    "Kind",
    "OpenPhoto",
    "Part",
    "PhotoFailure",
    "PhotoState",
    "Row",
    "Run",
    "RunState",
    "open_run",
    "open_state",
]
