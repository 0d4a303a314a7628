"""The commit that results are recorded with."""

import pytest

from mg import provenance


@pytest.fixture
def git(tmp_path, monkeypatch):
    """A program `git` that answers what the test says."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    (tmp_path / ".git").mkdir()

    def answer(status):
        path = tmp_path / "git"
        path.write_text(f"""#!/bin/sh
case "$*" in *--no-optional-locks*rev-parse*) echo abc ;; *--no-optional-locks*) {status} ;; esac
""")
        path.chmod(0o755)
        provenance.commit.cache_clear()
        return provenance.commit()

    yield answer
    provenance.commit.cache_clear()


def test_changes_are_recorded_or_that_they_are_unknown(git):
    assert git("true") == "abc"
    assert git("echo ' M mg/cli/report.py'") == "abc+changes"
    assert git("exit 1") == "abc+unknown"


def test_an_image_records_the_commit_that_it_was_built_with(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    for given, recorded in ("abc", "abc"), ("", None):
        monkeypatch.setenv("MG_COMMIT", given)
        assert provenance.commit.__wrapped__() == recorded
