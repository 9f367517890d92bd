"""What an installation must hold, and what its import must not do."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import floors
import pytest
import torch
from floors import FLOORS
from PIL import Image

import pyxai
from pyxai import cli
from pyxai.ops import CudaUnavailableError, _native, cuda_status

PACKAGE = Path(pyxai.__file__).parent
CHECKOUT = Path(__file__).parents[1]


def python(*arguments, cwd, **environment):
    """Runs this Python with these arguments, in a folder that shadows no installed package."""
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    clean = {key: value for key, value in os.environ.items() if key != "PYXAI_SIMD"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**clean, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def output_of(code, cwd, **environment):
    result = python("-c", code, cwd=cwd, **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


# ---- version, changelog, files ----


def test_version_is_a_literal():
    """The build reads it without importing anything."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    assert [ast.literal_eval(value) for value in values] == [pyxai.__version__]


def test_the_extra_all_names_every_optional_package():
    """And test-all with it, so that CI installs a new one and skips nothing for want of it."""
    text = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.split("[project.optional-dependencies]\n")[1].split("\n\n")[0]
    extras = dict(re.findall(r"^([\w-]+) = \[(.*?)\]$", section, re.MULTILINE | re.DOTALL))

    def named(extra):
        return set(re.search(r"pyxai-vision\[(.*)", extras[extra])[1].rstrip(']"').split(","))

    tools = {"test", "test-all", "bench", "browser", "peers", "dev"}
    assert named("all") == set(extras) - tools - {"all"}
    assert named("test-all") == (tools | {"all"}) - {"test-all", "dev"}


def test_version_is_that_of_the_installation():
    try:
        installed = importlib.metadata.version("pyxai-vision")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("pyxai-vision is not installed: run from a checkout")
    assert installed == pyxai.__version__


def test_changelog_knows_the_version():
    text = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[([^\]]+)\]", text, re.MULTILINE)
    assert {"Unreleased", pyxai.__version__} & set(sections)


@pytest.mark.parametrize(
    "name",
    [
        *("py.typed", "ops/_cpu.pyi", "ops/_cuda.pyi", "zoo/demo.safetensors"),
        *("playground/site/index.html", "playground/site/scripts/app.js"),
    ],
)
def test_package_data(name):
    assert (PACKAGE / name).is_file()


def test_public_names_exist_once():
    assert sorted(set(pyxai.__all__)) == sorted(pyxai.__all__)
    assert all(hasattr(pyxai, name) for name in pyxai.__all__)


def test_compiled_modules_need_neither_torch_nor_a_shared_cuda_runtime():
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("no readelf here")
    modules = sorted((PACKAGE / "ops").glob("_c*.so"))
    assert modules
    for module in modules:
        found = subprocess.run([readelf, "-d", module], capture_output=True, text=True, check=True)
        assert "(NEEDED)" in found.stdout
        assert not re.search(r"lib(torch|c10|cuda|cudart)\b.*\.so", found.stdout)


# ---- imports ----


def modules():
    return sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def room_of(parts):
    """The part of the package, as FLOORS names it, that a module path inside it belongs to."""
    return parts[0] if parts else "__init__"


def imported_rooms(path):
    """The parts of pyxai that a file imports, at its head or inside functions."""
    package = ["pyxai", *path.relative_to(PACKAGE).parent.parts]
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            # `from pyxai import ops` imports a room, `from pyxai.ops import x` needs only ops.
            known = {room for floor in FLOORS for room in floor}
            names = [
                [*base, alias.name] if base == ["pyxai"] and alias.name in known else base
                for alias in node.names
            ]
        else:
            continue
        rooms |= {room_of(name[1:]) for name in names if name[0] == "pyxai"}
    return rooms


@pytest.mark.parametrize("name", modules())
def test_imports_go_down_only(name):
    floor_of = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    here = room_of(Path(name).with_suffix("").parts)
    assert here in floor_of, f"{here} is new: give it a floor here and in CONTRIBUTING.md"
    for room in imported_rooms(PACKAGE / name) - {here}:
        assert floor_of.get(room, -1) < floor_of[here], f"{name} imports pyxai.{room}"


def test_the_floors_are_those_of_the_package():
    rooms = [room for floor in FLOORS for room in floor]
    there = {room_of(Path(name).with_suffix("").parts) for name in modules()}
    assert sorted(rooms) == sorted(there)
    text = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert floors.written(text, PACKAGE) == text, "run `python tests/floors.py`"


# What users of other libraries, or we ourselves once, have called what the public face calls
# model, photos, directory, n_neighbors, steps, samples, seed, target, layer.
SYNONYMS = {
    *("clf", "network", "net", "folder", "out_dir", "output_dir", "neighbours", "num_neighbors"),
    *("num_steps", "n_steps", "iterations", "num_samples", "n_samples", "random_state", "rng"),
    *("class_idx", "target_class", "target_layer", "layer_name", "img", "image"),
}


def public_functions():
    """All that users call: functions, classes and their methods, by their full names."""
    rooms = [importlib.import_module(f"pyxai.{path.parent.name}") for path in ROOMS]
    named = {f"pyxai.{name}": getattr(pyxai, name) for name in pyxai.__all__}
    for room in [*rooms, importlib.import_module("pyxai.playground.voting")]:
        for name in getattr(room, "__all__", ()):
            named[f"{room.__name__}.{name}"] = getattr(room, name)
    for name, found in named.items():
        if inspect.isclass(found):
            for inner, method in vars(found).items():
                function = getattr(method, "__func__", method)
                if inspect.isfunction(function) and (inner == "__init__" or inner[0] != "_"):
                    yield f"{name}.{inner}", function
        elif inspect.isfunction(found):
            yield name, found


ROOMS = sorted(PACKAGE.glob("*/__init__.py"))


def test_no_function_is_long():
    """Over 60 lines without its docstring it is usually two ideas."""
    long = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            if lines > 60:
                long[f"{path.relative_to(PACKAGE)}: {node.name}"] = lines
    assert not long


def test_one_word_for_one_thing():
    known = dict(public_functions())
    assert len(known) > 150
    wrong = {
        name: sorted(SYNONYMS & inspect.signature(function).parameters.keys())
        for name, function in known.items()
    }
    assert {name: each for name, each in wrong.items() if each} == {}


def test_nothing_is_handed_in_to_be_filled():
    """What a call finds out beside its answer is a field of its result."""
    filled = {"report", "failures", "errors"}
    wrong = {
        name: sorted(filled & inspect.signature(function).parameters.keys())
        for name, function in public_functions()
        if not name.endswith(".__init__")
    }
    assert {name: each for name, each in wrong.items() if each} == {}


def test_the_index_of_decisions():
    folder = CHECKOUT / "docs" / "decisions"
    files = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    assert [path.name[:3] for path in files] == [f"{1 + place:03}" for place in range(len(files))]
    rows = [
        f"| {path.name[:3]} | [{path.read_text('utf-8').splitlines()[0].removeprefix('# ')}]"
        f"({path.name}) |"
        for path in files
    ]
    listed = (folder / "README.md").read_text("utf-8").splitlines()
    assert [line for line in listed if line.startswith("| 0")] == rows


def test_import_is_quiet_and_brings_no_optional_package(tmp_path):
    code = (
        "import pyxai, sys; print([name for name in sys.argv[1:] if name in sys.modules], "
        "'pyxai.ops._cuda' in sys.modules)"
    )
    optional = ["torchvision", "timm", "transformers", "matplotlib", "sklearn", "typer"]
    result = python("-W", "error", "-c", code, *optional, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "[] False\n", "")


def test_every_public_name_twice_in_a_fresh_process(tmp_path):
    """A room of the name of a function would take its place once it is imported."""
    code = (
        "import pyxai\n"
        "for _ in range(2):\n"
        "    for name in pyxai.__all__:\n"
        "        print(name, type(getattr(pyxai, name)).__name__)\n"
    )
    lines = output_of(code, tmp_path).splitlines()
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]
    assert [line.split()[0] for line in lines if line.endswith(" module")] == ["playground"] * 2


def test_public_names_have_one_home():
    tree = ast.parse(Path(pyxai.__file__).read_text(encoding="utf-8"))
    named = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pyxai"):
            home = node.module.removeprefix("pyxai").removeprefix(".") or node.names[0].name
            named |= {alias.asname: home for alias in node.names}
    assert named == pyxai._HOMES
    assert sorted([*named, "__version__"]) == pyxai.__all__
    assert set(pyxai.__all__) <= set(dir(pyxai))
    with pytest.raises(AttributeError, match="module 'pyxai' has no attribute 'grad_cam'"):
        pyxai.grad_cam  # noqa: B018


def test_help_imports_no_more_than_it_shows(tmp_path):
    code = (
        "import sys\n"
        "from pyxai.cli import main\n"
        "sys.argv = ['pyxai', '--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    print({'torch', 'numpy', 'PIL'} & {*sys.modules})\n"
    )
    assert output_of(code, tmp_path).endswith("set()")


def test_the_first_line_of_the_help_of_each_command():
    files = {path.stem for path in (PACKAGE / "cli").glob("[!_]*.py")}
    assert files == cli.COMMANDS.keys()
    for name, line in cli.COMMANDS.items():
        assert " ".join((cli.load(name).help or "").split("\n\n")[0].split()) == line


def test_a_classifier_is_loaded_without_the_compiler(tmp_path):
    code = (
        "import sys, pyxai; pyxai.load_classifier('demo'); "
        "print([name for name in ('torch._dynamo', 'sklearn', 'sympy') if name in sys.modules])"
    )
    assert output_of(code, tmp_path) == "[]"


def test_module_run_prints_the_facts(tmp_path):
    result = python("-m", "pyxai", cwd=tmp_path)
    assert result.returncode == 0
    assert pyxai.__version__ in result.stdout
    assert torch.__version__ in result.stdout


def test_module_run_with_arguments_is_the_command(tmp_path):
    Image.new("RGB", (60, 40), (30, 120, 60)).save(tmp_path / "x.png")
    result = python("-m", "pyxai", "explain", "x.png", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "1 overlays and JSON files in pyxai-explain/" in result.stdout
    assert (tmp_path / "pyxai-explain" / "x.overlay.png").exists()
    result = python("-m", "pyxai", "explain", "y.png", cwd=tmp_path)
    assert result.returncode == 2
    assert "y.png" in result.stderr
    assert "Traceback" not in result.stderr
    result = python("-m", "pyxai", "explain", "--help", cwd=tmp_path)
    assert (result.returncode, "python -m pyxai explain" in result.stdout) == (0, True)


# ---- calls ----


def trees():
    """Each module of the package, and what it says."""
    for name in modules():
        yield name, ast.parse((PACKAGE / name).read_text(encoding="utf-8"))


def called(node):
    """The last name of what is called, and all of it: ("cam", "pyxai.cam")."""
    function = node.func
    return getattr(function, "attr", getattr(function, "id", "")), ast.unparse(function)


MOST_IN_A_ROW = 6
# Kernels, their checks and their plain twins take tensors in the order of the operator's schema.
BY_SCHEMA = "ops/"


def test_calls_name_what_they_pass():
    """Of many values in a row nobody sees which is which, and two are exchanged without a word."""
    own = {
        node.name
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    wrong = []
    for name, tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or name.startswith(BY_SCHEMA):
                continue
            short, full = called(node)
            given = sum(not isinstance(each, ast.Starred) for each in node.args)
            if short in own and not full.startswith("torch.") and given > MOST_IN_A_ROW:
                wrong.append(f"{name}:{node.lineno}: {full} is given {given} values in a row")
    assert wrong == []


def test_no_public_function_has_too_many_parameters():
    """Where more can be said, it is a settings object: `MaskSettings`, `SiteSettings`."""
    counts = {
        name: len(inspect.signature(function).parameters.keys() - {"self", "cls"})
        for name, function in public_functions()
        if function.__code__.co_filename != "<string>"  # that of a dataclass
    }
    assert {name: count for name, count in counts.items() if count > 16} == {
        "pyxai.fine_tune": 18,  # a first training says what it is about in one call
    }


def is_own(attribute):
    return getattr(attribute.value, "id", "") in ("self", "cls")


def private_members(tree):
    """The private attributes of the classes of a module."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                targets = getattr(part, "targets", [getattr(part, "target", None)])
                found |= {each.id for each in targets if isinstance(each, ast.Name)}
                found.add(getattr(part, "name", ""))
        elif isinstance(node, ast.Attribute) and is_own(node) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return {name for name in found if re.match("_[^_]", name)}


def private_uses(tree):
    """(line, name) of the private attributes of other objects that a module reads or writes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not is_own(node):
            yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and called(node)[1] in ("getattr", "setattr", "hasattr"):
            yield node.lineno, getattr(node.args[1], "value", "")


def test_private_attributes_are_used_in_their_module_alone():
    members = {name: private_members(tree) for name, tree in trees()}
    others = {*dir(torch.nn.Module()), *dir(torch.Tensor), *dir(NamedTuple("Some", []))}
    ours = set().union(*members.values()) - others
    wrong = [
        f"{name}:{line}: {attribute}"
        for name, tree in trees()
        for line, attribute in private_uses(tree)
        if attribute in ours - members[name]
    ]
    assert wrong == []


def test_private_modules_are_used_in_their_room_alone():
    wrong = []
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pyxai."):
                home = node.module.removeprefix("pyxai.")
                private = [part for part in (home, *home.split(".")[1:]) if part[0] == "_"]
                names = [alias.name for alias in node.names if re.match("_[^_]", alias.name)]
                inside = name.startswith(f"{home.split('.')[0]}/")
                if not inside and (names or (private and "." in home)):
                    wrong.append(f"{name}: {ast.unparse(node)}")
    # What `pyxai info` prints is in no public function.
    assert wrong == ["cli/info.py: from pyxai.ops import _native, cuda_status"]


# ---- instruction sets ----


def test_unknown_instruction_set_is_refused_at_import(tmp_path):
    result = python("-c", "import pyxai; pyxai.cam", cwd=tmp_path, PYXAI_SIMD="nonsense")
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: environment variable PYXAI_SIMD: SIMD level: expected one")
    assert "baseline" in last
    assert "'nonsense'" in last


@pytest.mark.parametrize("level", _native.cpu.simd_levels())
def test_each_instruction_set_can_be_chosen(tmp_path, level):
    code = (
        "import torch, pyxai; from pyxai.ops import _native, cam_project; "
        "print(_native.cpu.simd_level(), "
        "cam_project(torch.ones(1, 9, 1, 2), torch.ones(1, 1, 9)).tolist())"
    )
    assert output_of(code, tmp_path, PYXAI_SIMD=level) == f"{level} [[[[9.0, 9.0]]]]"


# ---- threads and processes ----

_BIG = "features, weights = torch.rand(4, 256, 32, 32), torch.rand(1, 1, 256)"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
@pytest.mark.parametrize("first", ["pyxai", "sklearn.cluster"])
def test_one_openmp_runtime_is_shared_with_torch(tmp_path, first):
    """Beyond that of scikit-learn, which comes with a copy of its own."""
    code = f"""
import importlib
importlib.import_module({first!r})
import sklearn.cluster, torch, pyxai, pyxai.ops
from pathlib import Path
torch.set_num_threads(2)
{_BIG}
pyxai.ops.cam_project(features, weights)
(features @ features.mT).sum()
lines = Path("/proc/self/maps").read_text().splitlines()
print(*{{line.split()[-1] for line in lines if "/libgomp" in line}}, sep="\\n")
"""
    runtimes = [
        path for path in output_of(code, tmp_path).splitlines() if "scikit_learn.libs" not in path
    ]
    assert len(runtimes) == 1, runtimes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_worker_can_run_a_kernel(tmp_path):
    """As in a DataLoader: the parent used two threads, the worker is told to use one."""
    code = f"""
import os, torch, pyxai.ops
torch.set_num_threads(2)
{_BIG}
expected = pyxai.ops.cam_project(features, weights)
worker = os.fork()
if worker == 0:
    torch.set_num_threads(1)
    pictures, maps = pyxai.ops.cam_project_render(features, weights, (300, 300))
    os._exit(0 if torch.equal(maps, expected) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))
"""
    assert output_of(code, tmp_path) == "0"  # hangs, and runs into the timeout, if it is broken


# ---- CUDA: missing, or without a device ----


def stand_in(error, devices=0):
    """A CUDA half that was built, on a machine in the given state."""
    return SimpleNamespace(
        build_info=lambda: {"toolkit": "13.0", "architectures": "90-real"},
        device_status=lambda: {
            "driver_version": 0,
            "runtime_version": 13000,
            "device_count": devices,
            "error": error,
        },
    )


@pytest.mark.parametrize(
    ("module", "torch_cuda", "problem"),
    [
        (ImportError("no module"), None, r"not built: .*nvcc.*PYXAI_CUDA=ON"),
        (stand_in("no NVIDIA driver"), None, r"^no NVIDIA driver$"),
        (stand_in("driver present, no device"), "13.0", r"^driver present, no device$"),
        (stand_in(None, devices=1), None, r"this torch was built without CUDA: install"),
    ],
    ids=["not built", "no driver", "no device", "CPU build of torch"],
)
def test_why_cuda_cannot_be_used(monkeypatch, module, torch_cuda, problem):
    monkeypatch.setattr(_native, "_load_cuda", lambda: module)
    monkeypatch.setattr(torch.version, "cuda", torch_cuda)
    status = cuda_status()
    assert re.search(problem, status["problem"])
    assert status["built"] == (not isinstance(module, ImportError))
    assert status["toolkit"] == ("13.0" if status["built"] else None)
    assert status["devices"] == []
    with pytest.raises(CudaUnavailableError, match=re.escape(status["problem"])):
        _native.cuda.__wrapped__()  # past the cache


@pytest.mark.parametrize(
    ("architectures", "capability", "expected"),
    [
        ("80-real", (8, 0), True),
        ("80-real", (8, 6), True),  # of the same major version
        ("86-real", (8, 0), False),
        ("80-real", (9, 0), False),
        ("80", (9, 0), True),  # with PTX
        ("80-virtual", (12, 0), True),
        ("90a-real", (9, 0), True),
        ("90a-real", (10, 0), False),
        ("75-real 80-real 86-real 89-real 90-real 100-real 120", (7, 0), False),
        ("75-real 80-real 86-real 89-real 90-real 100-real 120", (10, 3), True),
        ("all-major", (7, 0), True),
    ],
)
def test_which_devices_run_what_was_built(architectures, capability, expected):
    assert _native.runs_on(architectures, capability) == expected


def test_a_device_for_which_nothing_was_built(monkeypatch):
    monkeypatch.setattr(_native, "_load_cuda", lambda: stand_in(None, devices=1))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "An old card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (6, 1))
    problem = cuda_status()["problem"]
    assert re.search(r"An old card has compute capability 6\.1: .*CUDAARCHS=61-real", problem)


def test_the_cuda_half_loads_without_a_driver(tmp_path):
    if not cuda_status()["built"]:
        pytest.skip(f"CUDA: {cuda_status()['problem']}")
    # An empty list of visible devices makes a machine with a GPU look like one without.
    code = "from pyxai.ops import cuda_status; print(cuda_status()['problem'])"
    problem = output_of(code, tmp_path, CUDA_VISIBLE_DEVICES="")
    assert problem in ("no NVIDIA driver", "driver present, no device")


def test_a_missing_cuda_half_does_not_break_the_import(tmp_path):
    code = (
        "import sys; sys.modules['pyxai.ops._cuda'] = None; import pyxai; "
        "from pyxai.ops import cuda_status; print(cuda_status()['problem'])"
    )
    assert "the CUDA kernels were not built" in output_of(code, tmp_path)
