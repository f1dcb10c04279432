"""A pytest plugin for continuous integration: a test that was skipped is a failure there."""

import pytest


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when a test was skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line("skipped tests are failures here: install what they ask for", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
