"""Scores of overlapping windows of one photo: where they lie, and three ways to compute them."""
