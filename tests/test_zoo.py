"""Classifiers from everywhere: the demo, hubs (where installed) and files, the hostile ones too."""

import copy
import json
import pickle
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import Block, SmallNet
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

from pyxai._errors import MissingExtraError
from pyxai.classifier import Classifier
from pyxai.images import Preprocessing
from pyxai.images.configs import hf_preprocessing, timm_preprocessing
from pyxai.images.transforms import transforms_preprocessing
from pyxai.zoo import hubs, load_classifier
from pyxai.zoo import load as load_module
from pyxai.zoo.hubs import WeightsError
from pyxai.zoo.model_file import ModelFileError

NAMES = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu"]
PROGRAM = "models/model.json"


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (exec, (f"open({str(self.mark)!r}, 'w').close()",))


@pytest.fixture
def mark(tmp_path):
    """A file that only a payload writes; it must not be there at the end."""
    mark = tmp_path / "payload_ran"
    yield mark
    assert not mark.exists()


@pytest.fixture
def net():
    net = SmallNet().eval()
    for name, buffer in net.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return net


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 40)


def photo(width=61, height=47):
    pixels = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


# --------------------------------------------------------------------------------------------------
# Sources


def test_the_import_brings_no_optional_package(tmp_path):
    code = (
        "import sys, pyxai.zoo as zoo; zoo.load_classifier('demo')\n"
        "print([m for m in ('torchvision', 'timm', 'transformers') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert run.stdout.strip() == "[]"


def test_demo():
    classifier = load_classifier("demo")
    assert isinstance(classifier, Classifier)
    assert classifier.name == "demo"
    assert not classifier.model.training
    assert len(classifier.class_names) == 6
    assert classifier(photo(300, 260)).shape == (1, 6)


def test_demo_with_random_weights_and_what_is_given_instead():
    own = Preprocessing(resize=50)
    names = "abcdef"
    torch.manual_seed(3)
    classifier = load_classifier("demo", weights=None, class_names=[*names], preprocessing=own)
    assert classifier.class_names == tuple(names)
    assert classifier.preprocessing is own
    first = next(classifier.model.parameters())
    assert not torch.equal(first, next(load_classifier("demo").model.parameters()))


def test_pretrained_weights_use_up_no_random_numbers():
    before = torch.get_rng_state()
    load_classifier("demo")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("device", ["cpu", torch.device("meta")])
def test_device(device):
    classifier = load_classifier("demo", device=device)
    assert next(classifier.model.parameters()).device == torch.device(device)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("torchvison:resnet18", ["'torchvision:NAME'", "closest: 'torchvision'"]),
        ("zoo:x", ["'demo'", "'timm:NAME'", "'hf:NAME'"]),
        ("https://somewhere.example/model.pt", ["not downloaded"]),
        (3, ["source: expected", "got 3"]),
    ],
)
def test_unknown_sources(source, words):
    with pytest.raises(ValueError, match="source") as caught:
        load_classifier(source)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("name", ["resnet18", "no_such_folder/net.pt", Path("demo"), ""])
def test_missing_files(name):
    with pytest.raises(FileNotFoundError) as caught:
        load_classifier(name)
    assert str(name) in str(caught.value)
    assert ("torchvision:resnet18" in str(caught.value)) == (name == "resnet18")


def test_arguments_that_do_not_belong_to_the_source(tmp_path, net):
    file = tmp_path / "net.safetensors"
    save_file(net.state_dict(), file)
    with pytest.raises(ValueError, match=r"architecture: expected None for 'demo'"):
        load_classifier("demo", architecture="demo")
    with pytest.raises(ValueError, match=r"architecture: expected None for 'timm:resnet18'"):
        load_classifier("timm:resnet18", architecture="demo")
    with pytest.raises(ValueError, match=r"weights: expected 'default' or None"):
        load_classifier("demo", weights="V1")
    with pytest.raises(ValueError, match=r"weights: expected 'default' for a file"):
        load_classifier(file, architecture="demo", weights=None)


@pytest.mark.parametrize(
    ("source", "package", "extra"),
    [
        ("torchvision:resnet18", "torchvision", "torchvision"),
        ("timm:resnet18", "timm", "timm"),
        ("hf:owner/name", "transformers", "hf"),
    ],
)
def test_missing_packages(monkeypatch, source, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'pyxai-vision\[{extra}\]'"):
        load_classifier(source)


# --------------------------------------------------------------------------------------------------
# Weights alone


def same(classifier, net, images):
    with torch.no_grad():
        expected = net(images)
    assert torch.allclose(classifier(images), expected, atol=1e-5)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_state_dict(tmp_path, net, images, zipped, suffix):
    file = tmp_path / f"net{suffix}"
    torch.save(net.state_dict(), file, _use_new_zipfile_serialization=zipped)
    architecture = SmallNet().train()
    classifier = load_classifier(file, architecture=architecture, class_names=NAMES)
    assert classifier.model is architecture
    assert not architecture.training
    assert classifier.name == file.name
    same(classifier, net, images)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {"model_state_dict": state, "optimizer": {"state": {}}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
        lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
        lambda state: {key: v for key, v in state.items() if not key.endswith("_tracked")},
        lambda state: OrderedDict((key, value.double()) for key, value in state.items()),
    ],
)
def test_state_dicts_in_wrappers(tmp_path, net, images, wrap):
    file = tmp_path / "net.pth"
    torch.save(wrap(net.state_dict()), file)
    same(load_classifier(file, architecture=SmallNet()), net, images)


def test_a_prefix_that_the_model_has_too_is_kept(tmp_path, net, images):
    wrapped = nn.Sequential(OrderedDict(model=net))
    file = tmp_path / "net.pth"
    torch.save(wrapped.state_dict(), file)
    own = nn.Sequential(OrderedDict(model=SmallNet()))
    same(load_classifier(file, architecture=own), net, images)


def test_safetensors_with_class_names(tmp_path, net, images):
    file = tmp_path / "net.safetensors"
    save_file(net.state_dict(), file, metadata={"class_names": json.dumps(NAMES)})
    classifier = load_classifier(file, architecture=SmallNet())
    assert classifier.class_names == tuple(NAMES)
    same(classifier, net, images)
    for names in (dict(enumerate(NAMES)), {name: index for index, name in enumerate(NAMES)}):
        save_file(net.state_dict(), file, metadata={"class_names": json.dumps(names)})
        assert load_classifier(file, architecture=SmallNet()).class_names == tuple(NAMES)
    for text in ("ant, bee", '"ant"', "7", "[1, 2]", "[]", '{"1": "ant"}', "{}"):
        save_file(net.state_dict(), file, metadata={"class_names": text})
        with pytest.raises(ModelFileError, match="not a JSON list of strings"):
            load_classifier(file, architecture=SmallNet())


@pytest.mark.parametrize("classes", [6, 4])
def test_weights_for_demo_take_the_number_of_classes_from_the_file(tmp_path, classes):
    from pyxai.zoo.demo import DemoNet

    net = DemoNet(classes).eval()
    file = tmp_path / "tuned.safetensors"
    save_file(net.state_dict(), file)
    before = torch.get_rng_state()
    classifier = load_classifier(str(file), architecture="demo")
    assert torch.equal(before, torch.get_rng_state())
    assert classifier.class_names is None  # the file does not say that they are the demo's
    assert classifier.preprocessing == load_classifier("demo").preprocessing
    same(classifier, net, torch.randn(1, 3, 64, 64))


def test_weights_that_do_not_fit(tmp_path, net):
    state = net.state_dict()
    first, second, *_, last = state
    del state[first]
    state[second] = torch.zeros(3, 3)
    state |= {f"extra{index}": torch.zeros(1) for index in range(5)}
    file = tmp_path / "net.pth"
    torch.save(state, file)
    architecture = SmallNet()
    before = copy.deepcopy(architecture.state_dict())
    with pytest.raises(ModelFileError) as caught:
        load_classifier(file, architecture=architecture)
    message = str(caught.value)
    assert str(file) in message
    assert f"1 missing: {first}" in message
    assert "5 unexpected: extra0, extra1, extra2, …" in message
    assert f"1 of another shape: {second} [3, 3] for" in message
    for key, value in architecture.state_dict().items():  # all of the weights or none
        assert torch.equal(value, before[key])
    assert last in before


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        (None, "architecture: expected 'torchvision:NAME'"),
        ("torchvison:resnet18", "closest: 'torchvision'"),
        ("hf:owner/name", "config.json"),
    ],
)
def test_architectures_that_are_none(tmp_path, net, architecture, words):
    file = tmp_path / "net.pth"
    torch.save(net.state_dict(), file)
    with pytest.raises(ValueError, match="architecture") as caught:
        load_classifier(file, architecture=architecture)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.zeros(3), "float32 tensor [3]"),
        ({}, "a dict"),
        ({"weight": 3}, "'weight' with 3"),
        ({3: torch.zeros(1)}, "found 3 with"),
    ],
)
def test_what_is_no_state_dict(tmp_path, content, words):
    file = tmp_path / "net.pth"
    torch.save(content, file)
    with pytest.raises(ModelFileError, match="expected a state dict") as caught:
        load_classifier(file, architecture=SmallNet())
    assert words in str(caught.value)


# --------------------------------------------------------------------------------------------------
# What is refused, and what is damaged


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickled_module_is_refused_with_a_way_out(tmp_path, zipped):
    file = tmp_path / "net.pt"
    torch.save(Block(3, 4, 1), file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelFileError, match=r"refused: .*networks.Block.* any code") as caught:
        load_classifier(file, architecture=SmallNet())
    assert "torch.save(model.state_dict(), FILE)" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain", "protocol 5"])
def test_a_hostile_pickle_does_not_run(tmp_path, mark, kind):
    file = tmp_path / "net.pth"
    if kind in ("zip", "legacy"):
        state = {"weight": torch.zeros(1), "more": Payload(mark)}
        torch.save(state, file, _use_new_zipfile_serialization=kind == "zip")
    else:
        file.write_bytes(pickle.dumps(Payload(mark), protocol=2 if kind == "plain" else 5))
    with pytest.raises(ModelFileError, match="refused"):
        load_classifier(file, architecture=SmallNet())


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["net.pth", "legacy.pth", "net.safetensors", "net.pt2", "net.ts"])
def test_files_that_are_cut_off(tmp_path, net, images, kind, share):
    file = tmp_path / kind
    write(net, file, images)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelFileError) as caught:
        load_classifier(file, architecture=SmallNet())
    assert str(caught.value).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"<html>404", "begins with b'<html>404'"), (b"short", "no known format")],
)
def test_files_in_no_known_format(tmp_path, content, words):
    file = tmp_path / "net.pt"
    file.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"net\.pt: ") as caught:
        load_classifier(file)
    assert words in str(caught.value)


def test_folders_and_other_archives(tmp_path):
    with pytest.raises(ModelFileError, match="found a folder; one of save_pretrained is 'hf:"):
        load_classifier(tmp_path)
    file = tmp_path / "net.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "")
    with pytest.raises(ModelFileError, match="no model of torch"):
        load_classifier(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("version", "8.2")
    with pytest.raises(ModelFileError, match="old, pickled format; export it again"):
        load_classifier(file)


# --------------------------------------------------------------------------------------------------
# TorchScript and exported programs


def export(net, images, file, **options):
    axes = torch.export.Dim
    shapes = ({0: axes("n", min=1, max=64), 2: axes.AUTO, 3: axes.AUTO},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        program = torch.export.export(net, (images,), dynamic_shapes=shapes)
        torch.export.save(program, file, **options)


def script(net, images, file, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated
        torch.jit.trace(net, images).save(file, **options)


def write(net, file, images):
    if file.suffix == ".pt2":
        export(net, images, file)
    elif file.suffix == ".ts":
        script(net, images, file)
    elif file.suffix == ".safetensors":
        save_file(net.state_dict(), file)
    else:
        new = file.name != "legacy.pth"
        torch.save(net.state_dict(), file, _use_new_zipfile_serialization=new)


@pytest.mark.parametrize("name", ["net.pt", "net.ts"])
def test_torchscript(tmp_path, net, images, name):
    file = str(tmp_path / name)
    script(net, images, file, _extra_files={"class_names.json": json.dumps(NAMES)})
    classifier = load_classifier(file)
    assert classifier.class_names == tuple(NAMES)
    assert not classifier.model.training
    same(classifier, net, images)
    with pytest.raises(ValueError, match="architecture: expected None"):
        load_classifier(file, architecture="demo")


def test_frozen_torchscript(tmp_path, net, images):
    file = str(tmp_path / "net.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.freeze(torch.jit.trace(net, images)).save(file)
    same(load_classifier(file), net, images)


def test_exported_program_has_its_layers_again(tmp_path, net, images):
    file = tmp_path / "net.pt2"
    export(net, images, file, extra_files={"class_names.json": json.dumps(NAMES)})
    classifier = load_classifier(file)
    assert classifier.class_names == tuple(NAMES)
    assert not classifier.model.training
    same(classifier, net, images)
    same(classifier, net, torch.randn(5, 3, 48, 32))
    layer = Classifier(net).last_spatial_layer(images)
    expected = Classifier(net).activations(images, layer)[layer]
    found = classifier.activations(images, layer)[layer]
    assert torch.allclose(found, expected, atol=1e-5)
    assert classifier.last_spatial_layer(images) == layer


def test_exported_program_with_gradients(tmp_path, net, images):
    file = tmp_path / "net.pt2"
    export(net, images, file)
    inputs = images.clone().requires_grad_()
    load_classifier(file).model(inputs)[:, 0].sum().backward()
    expected = images.clone().requires_grad_()
    net(expected)[:, 0].sum().backward()
    assert torch.allclose(inputs.grad, expected.grad, atol=1e-5)


def test_exported_program_of_another_device(tmp_path, net, images):
    file = tmp_path / "net.pt2"
    export(net, images, file)

    def edit(text):
        return text.replace('{"type": "cpu", "index": null}', '{"type": "cuda", "index": 0}')

    tamper(file, {PROGRAM: edit, "data/weights/model_weights_config.json": edit})
    same(load_classifier(file), net, images)


def tamper(file, edits=None, more=None):
    """Rewrites a program with records changed and added."""
    reader = PT2ArchiveReader(str(file))
    records = {
        each: reader.read_bytes(each)
        for each in reader.get_file_names()
        if not each.startswith(".data/") and each not in ("version", "byteorder")
    }
    for name, edit in (edits or {}).items():
        before = records[name].decode()
        records[name] = edit(before).encode()
        assert records[name] != before.encode()
    with PT2ArchiveWriter(str(file)) as writer:
        for name, content in {**records, **(more or {})}.items():
            writer.write_bytes(name, content)


def in_json(change):
    def edit(text):
        program = json.loads(text)
        change(program, program["graph_module"], program["graph_module"]["graph"])
        return json.dumps(program)

    return edit


def spec(content):
    def change(program, module, graph):
        signature = module["module_call_graph"][0]["signature"]
        before = json.loads(signature["out_spec"])
        signature["out_spec"] = json.dumps([before[0], {**before[1], **content}])

    return in_json(change)


RUN = "__import__('os').abort()"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda text: text.replace("Symbol('s", f"{RUN} or Symbol('s", 1), "computes a size"),
        (lambda text: text.replace("Integer(", "eval(", 1), "computes a size"),
        (
            in_json(lambda p, m, graph: graph["nodes"][0].update(target="torch.os.abort")),
            "calls 'torch.os.abort'",
        ),
        (
            in_json(lambda p, m, graph: graph["nodes"][0].update(target="torch.load")),
            "calls 'torch.load'",
        ),
        (
            in_json(
                lambda p, m, graph: graph["nodes"][0].update(
                    target="torch.ops.aten.__class__.__init__"
                )
            ),
            "calls",
        ),
        (
            in_json(
                lambda p, m, graph: graph["nodes"][0].update(
                    target="torch.ops.aten.from_file.default"
                )
            ),
            "calls",
        ),
        (lambda text: text.replace('"conv2d"', json.dumps(f"x={RUN};y")), "holds the name"),
        (lambda text: text.replace('"conv2d"', '"x.y"'), "holds the name"),
        (
            in_json(lambda p, m, g: m["module_call_graph"].append({"fqn": "a.__class__.b"})),
            "holds the name 'a.__class__.b'",
        ),
        (spec({"type": "collections.defaultdict", "context": "{}"}), "takes or returns"),
        (
            spec(
                {
                    "type": "builtins.dict",
                    "context": json.dumps(
                        [{"__enum__": True, "fqn": "antigravity:x", "name": "x"}]
                    ),
                }
            ),
            "odd keys",
        ),
    ],
)
def test_hostile_programs_are_refused(tmp_path, net, images, edit, words):
    file = tmp_path / "net.pt2"
    export(net, images, file)
    tamper(file, {PROGRAM: edit})
    with pytest.raises(ModelFileError, match="refused: ") as caught:
        load_classifier(file)
    assert words in str(caught.value)


def test_pickles_and_libraries_in_programs_are_refused(tmp_path, net, images, mark):
    file = tmp_path / "net.pt2"
    weights, constants = (
        f"data/{each}/model_{each}_config.json" for each in ("weights", "constants")
    )

    def pickled(text):
        return text.replace('"use_pickle": false', '"use_pickle": true', 1)

    def opaque(text):
        return json.dumps(
            {"config": {"x": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}}}
        )

    torch.save(Payload(mark), tmp_path / "payload.pt")
    zipped, plain = (tmp_path / "payload.pt").read_bytes(), pickle.dumps(Payload(mark))
    for edits, more, words in (
        ({weights: pickled}, {"data/weights/weight_0": zipped}, "is a pickled object"),
        ({constants: opaque}, {}, "is a pickled object"),
        ({}, {"data/constants/opaque_obj_0": plain}, "opaque_obj_0"),
        ({}, {"data/constants/custom_obj_0": zipped}, "custom_obj_0"),
        ({}, {"data/weights/model.pt": zipped}, "data/weights/model.pt"),
        ({}, {"data/aotinductor/model/run.so": b"\x7fELF"}, "run.so"),
    ):
        export(net, images, file)
        tamper(file, edits, more)
        with pytest.raises(ModelFileError, match="refused: ") as caught:
            load_classifier(file)
        assert words in str(caught.value)


def test_sample_inputs_and_guards_of_programs_are_left_unread(tmp_path, net, images, mark):
    file = tmp_path / "net.pt2"
    export(net, images, file)
    torch.save(Payload(mark), tmp_path / "payload.pt")
    guard = f"open({str(mark)!r}, 'w')"
    tamper(
        file,
        {PROGRAM: in_json(lambda program, m, g: program.update(guards_code=[guard]))},
        {"data/sample_inputs/model.pt": (tmp_path / "payload.pt").read_bytes()},
    )
    same(load_classifier(file), net, images)


def test_a_program_with_a_second_face(tmp_path, net, images, mark):
    """Two readers may see two contents in one zip file; the copy that is loaded has but one."""
    file = tmp_path / "net.pt2"
    export(net, images, file)
    torch.save(Payload(mark), tmp_path / "payload.pt")
    with zipfile.ZipFile(file, "a") as archive:
        for each in ("state_dict", "constants", "example_inputs"):
            archive.write(tmp_path / "payload.pt", f"serialized_{each}.pt")
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("version", "8.2")
    with pytest.raises(ModelFileError):
        load_classifier(file)


def test_what_no_classifier_has_is_no_traceback(tmp_path, net, images):
    file = tmp_path / "net.pt2"
    export(net, images, file)
    tamper(file, {PROGRAM: lambda text: "{}"})
    with pytest.raises(ModelFileError, match="damaged or cut off"):
        load_classifier(file)
    export(net, images, file)
    tamper(file, {PROGRAM: in_json(lambda p, m, graph: p["schema_version"].update(major=99))})
    with pytest.raises(ModelFileError, match="export it again"):
        load_classifier(file)


# --------------------------------------------------------------------------------------------------
# Hubs without their packages: what is done with what they say


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"crop_pct": 0.875}, (256, 224)),
        ({"crop_pct": 0.95}, (235, 224)),
        ({"crop_pct": 0.9, "crop_mode": "squash"}, ((248, 248), 224)),
        ({"crop_pct": 1.0, "input_size": (3, 64, 96), "crop_mode": "squash"}, ((64, 96), (64, 96))),
    ],
)
def test_timm_geometry(config, expected):
    defaults = {"input_size": (3, 224, 224), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    found = timm_preprocessing("x", {**defaults, "interpolation": "bicubic", **config})
    assert (found.resize, found.crop) == expected
    assert found.interpolation == "bicubic"


@pytest.mark.parametrize(
    "config",
    [
        {"crop_mode": "border"},
        {"input_size": (3, 64, 96)},
        {"interpolation": "hamming"},
        {"input_size": (1, 28, 28), "mean": (0.5,), "std": (0.5,)},
    ],
)
def test_timm_preprocessing_that_cannot_be_expressed(config):
    defaults = {"input_size": (3, 224, 224), "mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 0.9}
    with pytest.raises(ValueError, match=r"preprocessing: that of timm:x .* pass one"):
        timm_preprocessing("timm:x", {**defaults, "interpolation": "bicubic", **config})


def test_weights_errors_are_one_line():
    error = hubs.unavailable("timm:x", "weights", OSError("no route\nto host"))
    assert isinstance(error, OSError)
    assert str(error).startswith("timm:x: weights not available (no route); weights=None")
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "switch",
    [
        {"do_flip_channel_order": True},
        {"do_pad": True},
        {"rescale_offset": True},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"size": {"longest_edge": 20}},
        {"resample": 5},
    ],
)
def test_hf_preprocessing_that_cannot_be_expressed(switch):
    config = {"image_mean": (0.5,) * 3, "image_std": (0.5,) * 3, "size": {"shortest_edge": 20}}
    with pytest.raises(ValueError, match=r"preprocessing: that of hf:x .* pass one"):
        hf_preprocessing("hf:x", {**config, **switch})


# --------------------------------------------------------------------------------------------------
# torchvision


@pytest.fixture
def torchvision(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    return pytest.importorskip("torchvision", reason="needs torchvision", exc_type=ImportError)


def in_cache(content, entry, tmp_path):
    """Puts a file where torch.hub keeps what it has downloaded."""
    folder = tmp_path / "home" / "hub" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / entry.url.rpartition("/")[2])


def test_torchvision_random_weights(torchvision):
    classifier = load_classifier("torchvision:resnet18", weights=None)
    assert classifier.name == "torchvision:resnet18"
    assert not classifier.model.training
    assert classifier.class_names[0] == "tench"
    assert len(classifier.class_names) == 1000
    assert (classifier.preprocessing.resize, classifier.preprocessing.crop) == (256, 224)
    torch.manual_seed(5)
    first = load_classifier("torchvision:squeezenet1_0", weights=None).model.state_dict()
    second = load_classifier("torchvision:squeezenet1_0", weights=None).model.state_dict()
    assert not torch.equal(*(each["features.0.weight"] for each in (first, second)))


@pytest.mark.parametrize("name", ["resnet50", "swin_t", "vit_b_16", "efficientnet_b1"])
def test_torchvision_preprocessing_is_that_of_the_weights(torchvision, name):
    for entry in torchvision.models.get_model_weights(name):
        found = transforms_preprocessing(name, entry.transforms())
        expected = entry.transforms()(photo(400, 310))
        assert torch.allclose(found(photo(400, 310)), expected, atol=1e-5)


def test_torchvision_weights(torchvision, tmp_path):
    entry = torchvision.models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
    net = torchvision.models.shufflenet_v2_x0_5().eval()
    in_cache(net.state_dict(), entry, tmp_path)
    images = torch.randn(1, 3, 64, 64)
    before = torch.get_rng_state()
    for weights in ("default", "IMAGENET1K_V1"):
        classifier = load_classifier("torchvision:shufflenet_v2_x0_5", weights=weights)
        same(classifier, net, images)
    assert torch.equal(before, torch.get_rng_state())
    assert "get_state_dict" not in vars(entry)


def test_torchvision_builders_set_what_depends_on_the_weights(torchvision, tmp_path):
    entry = torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1
    net = torchvision.models.googlenet(init_weights=False, aux_logits=True).eval()
    in_cache(net.state_dict(), entry, tmp_path)
    classifier = load_classifier("torchvision:googlenet")
    assert classifier.model.transform_input
    assert classifier.model.aux1 is None


def test_torchvision_hostile_weights(torchvision, tmp_path, mark):
    entry = torchvision.models.ResNet18_Weights.DEFAULT
    in_cache({"conv1.weight": Payload(mark)}, entry, tmp_path)
    with pytest.raises(WeightsError, match="torchvision:resnet18: IMAGENET1K_V1 from"):
        load_classifier("torchvision:resnet18")


def test_torchvision_weights_that_cannot_be_had(torchvision, monkeypatch):
    from urllib.error import URLError

    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(OSError, match=r"no network.*weights=None") as caught:
        load_classifier("torchvision:resnet18")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "weights", "words"),
    [
        ("torchvision:resnet19", "default", "closest: 'resnet1"),
        ("torchvision:fcn_resnet50", "default", "expected a classification network"),
        ("torchvision:resnet50", "V3", "'IMAGENET1K_V1', 'IMAGENET1K_V2'"),
    ],
)
def test_torchvision_unknown_names(torchvision, source, weights, words):
    with pytest.raises(ValueError, match="expected") as caught:
        load_classifier(source, weights=weights)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_0", "densenet121", "googlenet"])
def test_torchvision_architecture_with_other_classes(torchvision, tmp_path, name):
    options = {"init_weights": False} if name == "googlenet" else {}
    net = torchvision.models.get_model(name, num_classes=6, **options).eval()
    file = tmp_path / "tuned.pth"
    torch.save({"state_dict": net.state_dict()}, file)
    classifier = load_classifier(file, architecture=f"torchvision:{name}")
    assert classifier.class_names is None
    assert classifier.preprocessing.mean == (0.485, 0.456, 0.406)
    same(classifier, net, torch.randn(2, 3, 96, 96))
    with pytest.raises(ModelFileError, match=r"\d+ missing.*\d+ unexpected"):
        load_classifier(file, architecture="torchvision:vgg11_bn")


# --------------------------------------------------------------------------------------------------
# timm


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="needs timm", exc_type=ImportError)


def test_timm_random_weights(timm):
    classifier = load_classifier("timm:resnet18.a1_in1k", weights=None)
    assert classifier.name == "timm:resnet18.a1_in1k"
    assert len(classifier.class_names) == 1000
    assert classifier.class_names[0].startswith("tench")
    assert not classifier.model.training


@pytest.mark.parametrize(
    "name", ["resnet50.a1_in1k", "convnext_tiny.fb_in1k", "resnet18", "vit_tiny_patch16_224"]
)
def test_timm_preprocessing_is_that_of_its_transform(timm, name):
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    expected = timm.data.create_transform(**config)(photo(400, 310))
    found = timm_preprocessing(name, config)(photo(400, 310))
    assert torch.allclose(found, expected, atol=1e-5)


def test_timm_weights(timm, monkeypatch):
    net = timm.create_model("test_resnet").eval()
    state = net.state_dict()
    for name in ("from_hf", "from_url"):
        monkeypatch.setattr(
            f"timm.models._builder.load_state_dict_{name}", lambda *args, **kwargs: dict(state)
        )
    images = torch.randn(1, 3, 64, 64)
    before = torch.get_rng_state()
    same(load_classifier("timm:test_resnet"), net, images)
    assert torch.equal(before, torch.get_rng_state())


def test_timm_weights_that_cannot_be_had(timm, monkeypatch):
    def offline(*args, **kwargs):
        raise RuntimeError("connection refused\nby the server")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    with pytest.raises(OSError, match=r"timm:resnet18: .*connection refused\); weights=None"):
        load_classifier("timm:resnet18")


def test_timm_that_would_unpickle_is_refused(timm, monkeypatch):
    def older(model_id, filename=""): ...

    monkeypatch.setattr("timm.models._hub.load_state_dict_from_hf", older)
    with pytest.raises(ImportError, match="would unpickle"):
        load_classifier("timm:resnet18")


@pytest.mark.parametrize(
    ("source", "weights", "words"),
    [
        ("timm:resnet18x", "default", "closest: 'resnet18"),
        ("timm:resnet18.nothing", "default", "'a1_in1k'"),
        ("timm:resnet18", "nothing", "'a1_in1k'"),
        ("timm:resnet18.a1_in1k", "a2_in1k", "'a1_in1k'"),
        ("timm:hf-hub:owner/name", "default", "'hf:timm/NAME'"),
    ],
)
def test_timm_unknown_names(timm, source, weights, words):
    with pytest.raises(ValueError, match="expected") as caught:
        load_classifier(source, weights=weights)
    assert words in str(caught.value)


def test_timm_architecture_with_other_classes(timm, tmp_path):
    net = timm.create_model("test_vit", num_classes=5).eval()
    file = tmp_path / "tuned.safetensors"
    save_file(net.state_dict(), file, metadata={"class_names": json.dumps(NAMES[:5])})
    classifier = load_classifier(file, architecture="timm:test_vit")
    assert classifier.class_names == tuple(NAMES[:5])
    same(classifier, net, torch.randn(1, *net.pretrained_cfg["input_size"]))


# --------------------------------------------------------------------------------------------------
# Hugging Face


@pytest.fixture
def transformers(monkeypatch):
    found = pytest.importorskip("transformers", reason="needs transformers", exc_type=ImportError)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return found


def tiny(transformers, labels=("ant", "bee", "cat")):
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 8, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    return transformers.ResNetForImageClassification(config).eval()


def test_hf_folder_offline(transformers, tmp_path):
    net = tiny(transformers)
    net.save_pretrained(tmp_path)
    size = {"shortest_edge": 64}
    transformers.ConvNextImageProcessor(size=size, crop_pct=0.5).save_pretrained(tmp_path)
    before = torch.get_rng_state()
    classifier = load_classifier(f"hf:{tmp_path}")
    assert torch.equal(before, torch.get_rng_state())
    assert classifier.name == f"hf:{tmp_path}"
    assert classifier.class_names == ("ant", "bee", "cat")
    assert (classifier.preprocessing.resize, classifier.preprocessing.crop) == (128, 64)
    assert not classifier.model.training
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(classifier(images), net(images).logits, atol=1e-5)
    assert classifier(photo(100, 120)).shape == (1, 3)


def test_hf_folder_with_a_network_of_timm(transformers, timm, tmp_path):
    net = timm.create_model("test_resnet")
    settings = {"architecture": "test_resnet", "pretrained_cfg": net.pretrained_cfg}
    config = transformers.TimmWrapperConfig.from_dict({**settings, "num_classes": 1000})
    transformers.TimmWrapperForImageClassification(config).save_pretrained(tmp_path)
    classifier = load_classifier(f"hf:{tmp_path}")
    data = timm.data.resolve_data_config(pretrained_cfg=net.pretrained_cfg)
    assert classifier.preprocessing == timm_preprocessing("timm:test_resnet", data)


def test_hf_from_a_config_only(transformers, tmp_path):
    tiny(transformers, ("LABEL_0", "LABEL_1")).config.save_pretrained(tmp_path)
    classifier = load_classifier(f"hf:{tmp_path}", weights=None)
    assert classifier.class_names is None
    assert classifier.preprocessing == Preprocessing()
    assert classifier(torch.randn(1, 3, 64, 64)).shape == (1, 2)
    with pytest.raises(WeightsError, match="save_pretrained"):
        load_classifier(f"hf:{tmp_path}")


def test_hf_reads_safetensors_only(transformers, tmp_path, mark):
    tiny(transformers).config.save_pretrained(tmp_path)
    torch.save({"x": Payload(mark)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError):
        load_classifier(f"hf:{tmp_path}")


def test_hf_runs_no_code_of_the_model(transformers, tmp_path, mark):
    net = tiny(transformers)
    net.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_type"] = "never_heard_of"
    config["auto_map"] = {
        "AutoConfig": "code.Config",
        "AutoModelForImageClassification": "code.Model",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(f"open({str(mark)!r}, 'w')")
    with pytest.raises(ValueError, match="custom code"):
        load_classifier(f"hf:{tmp_path}")


def test_hf_weights_without_a_head_are_no_classifier(transformers, tmp_path):
    net = tiny(transformers)
    net.resnet.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not a trained classifier"):
        load_classifier(f"hf:{tmp_path}")


def test_hf_without_a_network(transformers, tmp_path):
    with pytest.raises(WeightsError, match=r"hf:owner/name: .*'hf:\./FOLDER'") as caught:
        load_classifier("hf:owner/name")
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load_classifier(f"hf:{tmp_path}")
    with pytest.raises(ValueError, match="weights: expected 'default' or None"):
        load_classifier("hf:owner/name", weights="V1")


@pytest.mark.parametrize(
    ("processor", "options"),
    [
        ("ViTImageProcessor", {}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
        ("BitImageProcessor", {}),
        ("DeiTImageProcessor", {}),
        ("LevitImageProcessor", {}),
        ("PoolFormerImageProcessor", {}),
        ("EfficientNetImageProcessor", {"include_top": True}),
        ("MobileNetV2ImageProcessor", {}),
        ("BeitImageProcessor", {"do_normalize": False}),
        ("CLIPImageProcessor", {"do_resize": False}),
    ],
)
def test_hf_preprocessing_is_that_of_the_processor(transformers, tmp_path, processor, options):
    getattr(transformers, processor)(**options).save_pretrained(tmp_path)
    slow = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    expected = slow(photo(400, 310), return_tensors="pt")["pixel_values"][0]
    found = hf_preprocessing("hf:x", slow.to_dict())(photo(400, 310))
    assert found.shape == expected.shape
    assert (found - expected).abs().mean() < 0.01


def test_the_order_of_prefixes_in_the_docs_is_that_of_the_code():
    assert [*hubs.LOADERS] == ["torchvision", "timm", "hf"]
    assert all(f"'{each}:NAME'" in load_module._FORMS for each in hubs.LOADERS)
