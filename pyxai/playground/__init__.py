"""The playground: a web site to explore what classifiers see in photos."""

from pyxai.playground.build import build
from pyxai.playground.serve import serve

__all__ = ["build", "serve"]
