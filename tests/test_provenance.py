"""The commit that results are recorded with."""

import re

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
    assert re.fullmatch(r"abc\+changes-[0-9a-f]{8}", git("echo ' M mg/cli/report.py'"))
    assert git("exit 1") == "abc+unknown"


def test_changes_of_the_same_commit_are_told_apart(git, tmp_path):
    (tmp_path / "mg").mkdir()
    found = []
    for text in "a = 1", "a = 2", "a = 1":
        (tmp_path / "mg/a.py").write_text(text)
        found.append(git("echo ' M mg/a.py'"))
    assert found[0] == found[2] != found[1]


def test_an_image_records_the_commit_that_it_was_built_with(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    for given, recorded in ("abc", "abc"), ("", None):
        monkeypatch.setenv("MG_COMMIT", given)
        assert provenance.commit.__wrapped__() == recorded
