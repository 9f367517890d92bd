"""Exact nearest neighbours of any number of rows, block by block: search, novelty, audits."""
