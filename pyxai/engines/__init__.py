"""Engines: where the body of a network runs."""
