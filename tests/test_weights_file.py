"""Classifiers as safetensors files: the same bytes each time, and no damaged or foreign file."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from networks import SmallNet
from safetensors.torch import load_file, save_file

import pyxai
from pyxai.zoo import load_classifier, save_classifier
from pyxai.zoo.model_file import ModelFileError

SAVING = """
import sys
import torch
import pyxai
from networks import SmallNet
from pyxai.zoo import save_classifier
torch.set_num_threads(int(sys.argv[2]))
torch.manual_seed(3)
model = SmallNet()
save_classifier(pyxai.Classifier(model, class_names=[*"abcdefg"]), sys.argv[1])
"""


@pytest.fixture
def saved(tmp_path):
    file = tmp_path / "net.safetensors"
    save_classifier(pyxai.Classifier(SmallNet(), class_names=[*"abcdefg"]), file)
    return file


def test_the_same_bytes_in_every_process(tmp_path):
    digests = set()
    for number in range(3):
        file = tmp_path / f"{number}.safetensors"
        threads = 1 + number % 2
        environment = {**os.environ, "PYTHONHASHSEED": str(number)}
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        command = [sys.executable, "-c", SAVING, str(file), str(threads)]
        subprocess.run(command, check=True, env=environment, cwd=tmp_path)
        digests.add(hashlib.sha256(file.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_saved_again_it_is_the_same(saved):
    before = saved.read_bytes()
    loaded = load_classifier(saved, architecture=SmallNet())
    save_classifier(loaded, saved)  # over its own file
    assert saved.read_bytes() == before


def test_every_byte_counts(saved):
    """A file in which a byte differs is an error that names it, or has the same contents."""
    content = saved.read_bytes()
    expected = load_file(saved)
    random.seed(0)
    start = int.from_bytes(content[:8], "little") + 8  # of the numbers
    places = [*range(0, start, 37), *random.choices(range(start, len(content)), k=60)]
    refused = []
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << random.randrange(8)
        saved.write_bytes(damaged)
        try:
            found = load_classifier(saved, architecture=SmallNet()).model.state_dict()
        except ModelFileError as error:
            refused.append(str(error))
            continue
        assert all(torch.equal(found[name], each) for name, each in expected.items())
    assert len(refused) > 0.95 * len(places)  # the others are of the padding of the header
    assert all(each.startswith(f"{saved}: ") for each in refused)


def test_digests_are_not_to_be_lost(saved):
    """Without them it is no file of ours; so the mark that it is one does not do alone."""
    content = saved.read_bytes()
    for key in (b'"digests"', b'"pyxai"'):
        saved.write_bytes(content.replace(key, key.replace(b"s", b"t").replace(b"y", b"x"), 1))
        with pytest.raises(ModelFileError, match=r"damaged or cut off .*the header is not as"):
            load_classifier(saved, architecture=SmallNet())


def test_weights_of_others_are_read(saved):
    save_file(load_file(saved), saved, metadata={"class_names": '["a","b","c","d","e","f","g"]'})
    found = load_classifier(saved, architecture=SmallNet())
    assert found.class_names == tuple("abcdefg")


@pytest.mark.parametrize("kind", ["weights of others", "a photo", "a folder", "a damaged one"])
def test_other_files_are_not_written_over(saved, kind):
    classifier = pyxai.Classifier(SmallNet())
    if kind == "weights of others":
        save_file(load_file(saved), saved)
    elif kind == "a photo":
        saved.write_bytes(b"\xff\xd8\xff\xe0photo")
    elif kind == "a damaged one":
        saved.write_bytes(saved.read_bytes()[:-1])
    else:
        saved.unlink()
        saved.mkdir()
    before = saved.read_bytes() if saved.is_file() else None
    message = "path: expected a new path, or that of a classifier saved by pyxai"
    with pytest.raises(ValueError, match=message):
        save_classifier(classifier, saved)
    assert saved.is_dir() if before is None else saved.read_bytes() == before
