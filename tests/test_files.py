"""Files of ours: all or nothing, with digests, in folders with one run at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pyxai._files import refuse_other_file, replacing, write_json, write_table, write_text
from pyxai._locks import BusyError, locked
from pyxai._sealed import (
    DamagedError,
    load_tensors,
    map_tensors,
    read_record,
    save_tensors,
    write_record,
)

LATIN = os.fsdecode(b"caf\xe9.jpg")


def names(folder):
    return {path.name for path in folder.iterdir()}


def write_half(path):
    with replacing(path) as partial:
        assert partial.suffix == ".json"
        partial.write_text("half")
        raise ZeroDivisionError


def enter(folder):
    with locked(folder, "checkpoint"):
        pass


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": LATIN})
    with pytest.raises(ZeroDivisionError):
        write_half(path)
    assert json.loads(path.read_text()) == {"old": LATIN}
    assert names(tmp_path) == {"a.json"}
    with pytest.raises(IsADirectoryError), replacing(tmp_path):
        pass


def test_what_a_killed_writer_left_goes(tmp_path):
    code = """
import os, pathlib, sys
from pyxai._files import replacing
with replacing(pathlib.Path(sys.argv[1]) / "a.txt") as partial:
    partial.write_text("half")
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, cwd=tmp_path)
    (left,) = names(tmp_path)
    foreign = left.replace(f".{left.split('.')[2]}.", ".abcdef.")  # of another machine
    (tmp_path / foreign).write_text("half")
    (tmp_path / ".part").write_text("mine")
    write_text(tmp_path / "b.txt", "whole")
    assert names(tmp_path) == {"b.txt", ".part", foreign}


def test_what_a_killed_process_of_the_same_number_left_goes(tmp_path):
    """As in a container, where the first process is always number 1."""
    code = """
import os, pathlib, sys
from pyxai._files import _HOST, replacing, write_text
folder = pathlib.Path(sys.argv[1])
(folder / f".123456789abc.{_HOST}.{os.getpid()}.0.pyxai-part.txt").write_text("half")
with replacing(folder / "a.txt") as partial:
    partial.write_text("whole")
    write_text(folder / "b.txt", "whole")
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=tmp_path)
    assert names(tmp_path) == {"a.txt", "b.txt"}


def test_threads_write_the_same_path(tmp_path):
    path = tmp_path / "a.txt"
    texts = [str(number) * 100_000 for number in range(8)]
    threads = [threading.Thread(target=write_text, args=(path, text)) for text in texts]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert path.read_text() in texts
    assert names(tmp_path) == {"a.txt"}


def test_names_that_are_not_utf8(tmp_path):
    write_table(tmp_path / "a.csv", ("photo",), [(LATIN,)])
    assert (tmp_path / "a.csv").read_bytes() == b"photo\r\ncaf\xe9.jpg\r\n"
    write_text(tmp_path / "a.txt", LATIN)
    assert (tmp_path / "a.txt").read_bytes() == b"caf\xe9.jpg"


def test_files_of_another_kind_are_not_replaced(tmp_path):
    path = tmp_path / "photo.jpg"
    refuse_other_file("path", path, "a table", lambda found: True)
    path.write_text("mine")
    refuse_other_file("path", path, "a table", lambda found: True)

    def unreadable(found):
        raise ValueError("no table")

    for check in (unreadable, lambda found: False):
        with pytest.raises(ValueError, match=r"^path: expected a new path, or that of a table"):
            refuse_other_file("path", path, "a table", check)


def test_records(tmp_path):
    path = tmp_path / "a.json"
    record = {
        "names": [LATIN, "ü"],
        "numbers": [0.1, 1e300, -0.0],
        "by": {10: 1, 9: 2},
        "t": (1, 2),
    }
    write_record(path, record)
    assert read_record(path) == json.loads(json.dumps(record))
    text = path.read_text()
    changed = (text.replace("1e+300", "1e+301"), text.replace('"by"', '"bz"'))
    for bad in (*changed, "{}", "[]", "", "{"):
        path.write_text(bad)
        with pytest.raises(DamagedError, match=r"a\.json is damaged"):
            read_record(path)


def test_a_record_cannot_have_the_key_of_its_digest(tmp_path):
    with pytest.raises(ValueError, match="record: expected one without 'digest'"):
        write_record(tmp_path / "a.json", {"digest": [1]})
    assert not (tmp_path / "a.json").exists()


def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "b": torch.rand(3, 5, generator=generator),
        "a": torch.arange(7, dtype=torch.uint8),
        "empty": torch.empty(0, 4),
        "one": torch.tensor(2.5, dtype=torch.float64),
        "half": torch.rand(4, 4, generator=generator).bfloat16().t(),
        "flags": torch.tensor([True, False]),
        "pieces": [torch.ones(2, 3), torch.zeros(1, 3)],
    }


def test_tensors(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(path, tensors(), {"said": "ü", "b": "2"})
    found, metadata = load_tensors(path)
    assert metadata == {"said": "ü", "b": "2"}
    for name, value in tensors().items():
        expected = torch.cat(value) if isinstance(value, list) else value
        assert found[name].dtype == expected.dtype
        assert found[name].shape == expected.shape
        assert torch.equal(found[name], expected)
        assert found[name].data_ptr() % found[name].element_size() == 0
    with safe_open(path, framework="np") as file:  # an ordinary safetensors file
        np.testing.assert_array_equal(file.get_tensor("a"), np.arange(7, dtype=np.uint8))
    again = tmp_path / "b.safetensors"
    save_tensors(again, dict(reversed(tensors().items())), {"b": "2", "said": "ü"})
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match=r"^x: expected a type of safetensors"):
        save_tensors(path, {"x": torch.zeros(2, dtype=torch.complex128)})
    assert again.read_bytes() == path.read_bytes()


def test_every_changed_byte_is_found(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"a": torch.arange(4.0), "b": torch.ones(2)}, {"said": "this"})
    whole = path.read_bytes()
    same = 0
    for place in range(len(whole)):
        for change in (1, 0x20, 0x80):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
            try:
                found, metadata = load_tensors(path)
            except DamagedError as error:
                assert "a.safetensors is damaged" in str(error)  # noqa: PT017
                continue
            same += 1
            assert metadata == {"said": "this"}
            assert torch.equal(found["a"], torch.arange(4.0))
            assert torch.equal(found["b"], torch.ones(2))
    assert same < len(whole) * 3 * 0.05  # blanks, and digits of hexadecimal numbers
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedError):
            load_tensors(path)


def test_tensors_are_checked_when_they_are_used(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"a": torch.arange(4.0), "b": torch.ones(2)})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    file = map_tensors(path)
    assert torch.equal(file.checked("a"), torch.arange(4.0))
    with pytest.raises(DamagedError, match="'b' is not as it was written"):
        file.checked("b")
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(DamagedError, match="the header"):
        map_tensors(path)


def test_one_run_at_a_time(tmp_path):
    folder = tmp_path / "run"
    said = rf"^checkpoint: .*run', busy, by process {os.getpid()} since \d{{4}}-"
    with locked(folder, "checkpoint"):
        for _ in range(2):
            with pytest.raises(BusyError, match=said):
                enter(folder)
    enter(folder)


def test_a_killed_run_leaves_no_lock(tmp_path):
    code = """
import os, pathlib, sys
from pyxai._locks import locked
with locked(pathlib.Path(sys.argv[1]), "checkpoint"):
    print("in", flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), 9)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "in\n"
        with pytest.raises(BusyError, match=f"process {process.pid} since"):
            enter(tmp_path)
        process.communicate("\n")
    enter(tmp_path)
