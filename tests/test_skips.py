"""A run with `--skips` fails where a test was skipped for a reason that it does not name."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = """
    import pytest

    @pytest.mark.skipif(True, reason="CUDA: no NVIDIA driver")
    @pytest.mark.parametrize("number", [1, 2])
    def test_of_a_device(number): ...

    def test_of_a_package():
        pytest.importorskip("no_such_package")

    def test_that_passes(): ...
"""


@pytest.fixture
def outcome(pytester, monkeypatch):
    """Runs those tests in a process of their own, with these arguments."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    pytester.makepyfile(TESTS)
    pytester.makeini("[pytest]")
    return lambda *arguments: pytester.runpytest_subprocess("-p", "skips", *arguments)


@pytest.mark.parametrize(
    "arguments", [[], ["--skips=no NVIDIA driver|no_such"], ["--skips=driver", "-k", "not package"]]
)
def test_skips_that_are_named_pass(outcome, arguments):
    done = outcome(*arguments)
    assert done.ret == 0
    done.stdout.no_fnmatch_line("*should not be*")


def test_an_unexpected_skip_fails_and_is_named_once(outcome):
    done = outcome("--skips=no_such")
    assert done.ret == 1
    done.stdout.fnmatch_lines(["*skipped, and should not be*", "*.py:*: *no NVIDIA driver"])
    assert done.stdout.str().count("NVIDIA") == 1
    assert "no_such_package" not in done.stdout.str()


def test_none_is_allowed_by_an_empty_expression(outcome):
    done = outcome("--skips=")
    assert done.ret == 1
    assert "no_such_package" in done.stdout.str()


def test_a_whole_file_counts(outcome, pytester):
    pytester.makepyfile(test_all="import pytest; pytest.importorskip('no_such_file')")
    done = outcome("--skips=NVIDIA|no_such_package")
    assert done.ret == 1
    done.stdout.fnmatch_lines(["*skipped, and should not be*", "*test_all.py:1: *no_such_file*"])


def test_workers_report_to_one_place(outcome):
    pytest.importorskip("xdist")
    done = outcome("-n", "2", "--skips=driver")
    assert done.ret == 1
    done.stdout.fnmatch_lines(["*skipped, and should not be*", "*no_such_package*"])


def test_failures_keep_their_exit_code(outcome, pytester):
    pytester.makepyfile(test_bad="def broken(:")
    assert outcome("--skips=").ret == pytest.ExitCode.INTERRUPTED
