"""Semantic search: photos that a classifier finds alike, by the features of any of its layers."""
