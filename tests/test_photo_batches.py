"""Boxes of photos, and batches of them."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from pyxai.images import Preprocessing
from pyxai.train import listing as listings
from pyxai.train import photo_set
from pyxai.train.photo_batches import normalized_batch, one_ahead, random_boxes


def test_random_boxes_reach_every_place_and_stay_inside():
    sizes = torch.tensor([[10, 12], [8, 8]]).repeat(300, 1)
    boxes = random_boxes(sizes, 8, torch.Generator().manual_seed(0))
    assert {tuple(box) for box in boxes[1::2].tolist()} == {(0, 0, 8, 8)}
    assert {tuple(box[:2]) for box in boxes[::2].tolist()} == {
        (x, y) for x in range(5) for y in range(3)
    }
    assert (boxes[:, 2:] - boxes[:, :2] == 8).all()


def test_batches_are_cut_normalised_and_mirrored(squares):
    listing = listings.list_photos(squares / "train")
    photos = photo_set.PhotoSet(listing, listing.classes, lambda picture: picture, progress=False)
    boxes = random_boxes(photos.sizes, 20, torch.Generator().manual_seed(0))
    mirrored = torch.arange(len(photos)) % 2 == 0
    places = torch.tensor([3, 0, 20])
    batch = normalized_batch(photos, places, boxes, Preprocessing(), mirrored)
    for row, place in enumerate(places.tolist()):
        picture = Image.open(listing.paths[place]).crop(boxes[place].tolist())
        if mirrored[place]:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        torch.testing.assert_close(batch[row], Preprocessing()(picture))


def test_jobs_are_done_one_ahead_in_order_and_errors_come_out():
    started = []

    def work(job):
        started.append(job)
        if job == 3:
            raise OSError("disk")
        return -job

    results = one_ahead(work, range(5))
    assert next(results) == 0
    assert [next(results), next(results)] == [-1, -2]
    with pytest.raises(OSError, match="disk"):
        next(results)
    assert 5 not in started
