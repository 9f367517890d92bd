"""The playground: a web site to explore what classifiers see in photos."""

from pyxai.playground.builder import Site, build
from pyxai.playground.server import serve
from pyxai.playground.settings import SiteSettings

__all__ = ["Site", "SiteSettings", "build", "serve"]
