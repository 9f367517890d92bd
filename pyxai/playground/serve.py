"""Serves a playground to this machine."""

from __future__ import annotations


def serve() -> None:
    """."""
