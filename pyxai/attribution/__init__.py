"""Explanations of a classifier's decisions."""
