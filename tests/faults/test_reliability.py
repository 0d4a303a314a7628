"""The page of promises names tests that exist."""

import importlib
import re
from pathlib import Path

from hypothesis import is_hypothesis_test

ROOT = Path(__file__).parent.parent.parent


def test_every_promise_is_kept_by_a_test_that_exists():
    page = (ROOT / "docs/reliability.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", page)
    assert len(named) > 20
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"


def test_every_test_of_faults_is_on_the_page():
    page = (ROOT / "docs/reliability.md").read_text()
    for path in sorted((ROOT / "tests/faults").glob("test_*.py")):
        if path.name == Path(__file__).name:
            continue
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.M):
            assert name in page, f"{path.name}::{name} keeps no promise of docs/reliability.md"


def test_the_page_says_how_many_inputs_are_made():
    page = (ROOT / "docs/reliability.md").read_text()
    (said,) = re.findall(r"more than ([\d,]+) generated inputs", page)
    made = 0
    for path in sorted((ROOT / "tests/faults").glob("test_*.py")):
        for test in vars(importlib.import_module(path.stem)).values():
            if is_hypothesis_test(test):
                made += test._hypothesis_internal_use_settings.max_examples
    assert made > int(said.replace(",", "")) >= 4000
