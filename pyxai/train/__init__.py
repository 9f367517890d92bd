"""Prepares photos for training and trains classifiers on them."""
