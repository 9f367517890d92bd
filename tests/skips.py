"""The option `--skips REASONS`: a test that is skipped for any other reason fails the run.

Without it a package that is no longer installed, or no longer imported, takes its tests away and
nobody notices.
"""

from __future__ import annotations

import re

import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--skips",
        metavar="REASONS",
        help="a regular expression: a test skipped for a reason in which it is not found fails the "
        "run; an empty one allows none",
    )


def pytest_sessionfinish(session, exitstatus):
    if exitstatus == pytest.ExitCode.OK and _unexpected(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    unexpected = _unexpected(config)
    if unexpected:
        terminalreporter.section("skipped, and should not be", red=True)
        for line in unexpected:
            terminalreporter.line(line)


def _unexpected(config):
    """`file:line: reason` of each test that should not have been skipped."""
    allowed = config.getoption("--skips")
    reporter = config.pluginmanager.get_plugin("terminalreporter")  # workers of xdist have none
    if allowed is None or reporter is None:
        return []
    pattern = re.compile(allowed or r"(?!)")
    places = [report.longrepr for report in reporter.stats.get("skipped", [])]
    return sorted(
        {f"{path}:{line}: {reason}" for path, line, reason in places if not pattern.search(reason)}
    )
