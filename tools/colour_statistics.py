"""How red, green and blue vary together in photos.

    python tools/colour_statistics.py PHOTOS

Prints the covariance of logit(RGB) over all pixels, and the matrix of
`pyxai.feature_visualization.fourier` made from it: its principal axes, each as long as its
standard deviation, the longest of length 1.
Photos count alike, whatever their size.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pyxai.images import ImageError, iterate_photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="+")
    count, total, products = 0, np.zeros(3), np.zeros((3, 3))
    for _, photo in iterate_photos(parser.parse_args().photos):
        if isinstance(photo, ImageError):
            continue
        photo.thumbnail((256, 256))
        # Half a grey level from the ends, where the logarithms would be infinite.
        values = (np.asarray(photo, np.float64).reshape(-1, 3) + 0.5) / 256
        values = np.log(values / (1 - values))
        count += 1
        total += values.mean(axis=0)
        products += values.T @ values / len(values)
    mean = total / count
    covariance = products / count - np.outer(mean, mean)
    lengths, axes = np.linalg.eigh(covariance)
    order = np.argsort(-lengths)
    matrix = axes[:, order] * np.sqrt(lengths[order] / lengths.max())
    matrix *= np.where(matrix.sum(axis=0) < 0, -1, 1)
    print(f"{count} photos")
    print("covariance of logit(RGB)\n", covariance.round(4))
    print("principal axes as columns\n", matrix.round(3))


if __name__ == "__main__":
    main()
