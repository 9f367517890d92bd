"""`python -m benchmarks.gpu` without a GPU: the plan, steps that fail, tables, goals."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from networks import SmallNet

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("no benchmarks folder beside the tests", allow_module_level=True)


def load(name):
    """A module of the benchmarks, which are no part of the package."""
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module(f"benchmarks.{name}")
    finally:
        sys.path.remove(str(ROOT))


gpu, steps, report = load("gpu"), load("gpu_steps"), load("gpu_report")
ROOFS = {"copy_bytes_per_s": 4e12, "fill_bytes_per_s": 3e12, "call_s": 5e-6, "launch_s": 2e-6}


def python(code, name="step", share=1.0, **options):
    return steps.Step(name, [sys.executable, "-c", code], share, **options)


# ---- plan ----


def test_the_plan_builds_for_the_card(tmp_path):
    found = gpu.plan((12, 0), "/bin/nvcc", "/bin/compute-sanitizer", 480, tmp_path)
    names = [step.name for step in found]
    assert names[:4] == ["build", "tests", "kernels", "calls"]
    assert set(gpu.SANITIZERS) < set(names)
    assert found[0].environment == {"PYXAI_CUDA": "ON", "CUDAARCHS": "120-real"}
    assert all(step.command for step in found)


def test_without_tools_their_steps_are_skipped_with_a_reason(tmp_path):
    found = {step.name: step for step in gpu.plan((9, 0), None, None, 480, tmp_path)}
    skipped = {name for name, step in found.items() if step.command is None}
    assert skipped == {"build", "resources", *gpu.SANITIZERS}
    outcome = steps.run(found["memcheck"], 10, tmp_path)
    assert outcome.state == "skipped"
    assert "compute-sanitizer" in outcome.detail


def test_unknown_steps_are_refused():
    with pytest.raises(ValueError, match="expected some of a, b, got 'c'"):
        steps.chosen([python("", "a"), python("", "b")], ["c"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_command_line_without_a_gpu(capsys):
    assert gpu.main(["--dry-run", "--only", "tests", "calls"]) == 0
    printed = capsys.readouterr().out
    assert "-m cuda" in printed
    assert "build" not in printed
    with pytest.raises(SystemExit) as stopped:
        gpu.main([])
    assert stopped.value.code == 2
    assert "expected a CUDA device" in capsys.readouterr().err


def test_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--dry-run"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "racecheck" in done.stdout


# ---- steps ----


def test_a_step_that_fails_does_not_stop_the_others(tmp_path):
    told = []
    found = steps.run_all(
        [
            python("print('so far'); raise SystemExit(3)", "bad"),
            steps.Step("absent", [str(tmp_path / "no such program")], 1),
            python("print('done')", "good"),
        ],
        60,
        tmp_path,
        lambda outcomes: told.append(len(outcomes)),
    )
    assert [each.state for each in found] == ["failed", "failed", "passed"]
    assert found[0].detail == "exit code 3\nso far"
    assert found[2].detail == "done"
    assert told == [1, 2, 3]


def runs(process):
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rsplit(")", 1)[1].split()[0] != "Z"  # ended, not yet collected


def test_a_step_that_takes_too_long_is_ended_with_what_it_started(tmp_path):
    command = ["/bin/sh", "-c", "sleep 60 & echo $!; wait"]
    found = steps.run(steps.Step("slow", command, 1), 3, tmp_path)
    assert found.state == "timed out"
    assert found.seconds < 30
    if Path("/proc/self/stat").exists():
        child, patience = int(found.detail), time.monotonic() + 20
        while runs(child):  # the signal is sent, and acts soon
            assert time.monotonic() < patience
            time.sleep(0.05)


def test_time_that_a_step_leaves_is_there_for_the_next(tmp_path, monkeypatch):
    limits, now = [], [0.0]

    def run(step, limit, folder):
        limits.append(limit)
        now[0] += 10
        return steps.Outcome(step.name, "passed", 10.0)

    monkeypatch.setattr(steps, "run", run)
    monkeypatch.setattr(steps.time, "monotonic", lambda: now[0])
    steps.run_all([python("", share=1.0), python("", share=3.0)], 100, tmp_path)
    assert limits == [25, 90]


def test_without_time_steps_are_skipped(tmp_path):
    assert steps.run(python("raise SystemExit(1)"), 0.5, tmp_path).state == "skipped"


# ---- report ----


def row(work, **seconds):
    return {"work": work, "bytes": 4_000_000, "seconds": seconds}


def test_goals_are_reached_missed_or_not_measured():
    record = {
        "roofs": ROOFS,
        "rows": [
            row(report.CLASS_MAPS, pyxai=1.2e-6, eager=1e-5),
            row(report.ONE_MAP, pyxai=9e-6, eager=30e-6),
            {"work": report.CAM, "error": "out of memory"},
        ],
    }
    found = {name: (measured, state) for name, _, measured, state in report.goal_rows(record)}
    assert found["60 class maps at 800 px: share of copy bandwidth"] == ("0.83", "reached")
    assert found[f"{report.ONE_MAP}: times as fast as eager"] == ("3.33", "missed")
    called = "one map at batch 32, called: times the cost of torch's smallest operator"
    assert found[called] == ("1.80", "reached")
    assert found[f"{report.CAM}: times the bare forward"] == ("", "not measured")
    assert len(found) == len(report.goals())


def test_tables_survive_what_is_in_their_cells():
    assert (
        report.table(("a", "b"), [("1|2", "3\n4")]) == "| a | b |\n| --- | --- |\n| 1\\|2 | 3 4 |"
    )


def test_the_record_is_written_as_json_and_markdown(tmp_path):
    work = tmp_path / "kernels.json"
    rows = [row("one", pyxai=1e-6, eager=3e-6), {"work": "two", "error": "Error: no\nmore"}]
    work.write_text(json.dumps({"roofs": ROOFS, "rows": rows}))
    outcomes = [steps.Outcome("kernels", "failed", 2.0, "exit code 1\nTraceback\nError: no")]
    plan = [python("", "kernels", output=work), python("", "calls", output=tmp_path / "none")]
    record = gpu.record_of({"card": "A card", "torch": "2"}, plan, outcomes)
    report.write(record, tmp_path / "results" / "a.card")
    assert json.loads((tmp_path / "results" / "a.json").read_text()) == record
    text = (tmp_path / "results" / "a.md").read_text()
    assert "| one | pyxai | 1.0 | 1.00 | 100% |" in text
    assert "| one | eager | 3.0 | 3.00 |  |" in text
    assert "| two | failed: Error: no |" in text
    assert "| kernels | failed | 2 | Error: no |" in text


# ---- what is timed, and what the sanitizers look at, on the CPU ----


@pytest.fixture
def kernels(monkeypatch):
    module = load("gpu_kernels")
    monkeypatch.setattr(module, "DEVICE", "cpu")
    monkeypatch.setattr(module, "graphed", lambda call, calls=1: call)
    monkeypatch.setattr(module, "compiled", lambda function: function)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    return module


def test_the_names_of_the_goals_are_those_of_rows(kernels):
    names = {name for group in ("kernels", "calls") for name, _ in kernels.cases(group, True)}
    goals = {report.ONE_MAP, report.CLASS_MAPS, report.CROPS, report.STEP, report.LEARNED}
    assert goals | {report.CAM} <= names


def test_all_sides_of_a_kernel_do_the_same_work(kernels):
    for name, make in kernels.cases("kernels", True):
        sides, moved = make()
        assert moved > 0
        found = {side: call() for side, call in sides.items()}
        if name == report.STEP:
            continue  # in place
        ours = found.pop("pyxai")
        ours = ours[0] if isinstance(ours, tuple) else ours
        for side, other in found.items():
            other = other[0] if isinstance(other, tuple) else other
            assert other.shape == ours.shape, (name, side)
            gap = (other.float() - ours.float()).nan_to_num().abs()  # NaN where no window is
            assert gap.max() < 3, (name, side)


def test_whole_calls_run(kernels, monkeypatch):
    for network in ("ResNet18", "ResNet50"):
        monkeypatch.setattr(kernels, network, SmallNet)
    for name, make in kernels.cases("calls", True):
        sides, _ = make()
        for call in sides.values():
            assert call() is not False, name


@pytest.mark.parametrize("part", ["maps", "masks", "windows"])
def test_what_the_sanitizers_look_at_is_right_and_free_of_races(watched_cuda_host, part):
    before = watched_cuda_host.launches
    getattr(load("gpu_sanitize"), part)("cpu")
    assert watched_cuda_host.launches > before + 3
