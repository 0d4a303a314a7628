"""Hashes of the modules of `mg` that decide a result; a rule that has one as a parameter runs again
when that code changes, and only then."""

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SOURCES = Path(__file__).resolve().parent.parent / "mg"


def code(modules: Iterable[str]) -> str:
    """Hash of what modules (paths below mg/) compute; comments and layout don't count.

    Files other than Python's count byte by byte.
    """
    hashes = "".join(_read(module).hash for module in modules)
    return hashlib.sha256(hashes.encode()).hexdigest()[:16]


def trained_by(family: str) -> list[str]:
    """What decides the weights of a network for a family of tasks."""
    images = [] if family == "mnist" else [f"data/{family}.py"]
    images += ["data/vision.py"] if family == "imagenet" else []
    return [
        "metrics.py",
        "networks/execution.py",
        "networks/pyramid.py",
        f"networks/{family}.py",
        "networks/registry.py",
        "networks/settings.py",
        "networks/initialisation.py",
        "training/device.py",
        "training/feed.py",
        "training/loop.py",
        "training/objective.py",
        "training/recipe.py",
        "training/step.py",
        "training/team.py",
        *images,
    ]


def evaluated_by(family: str) -> list[str]:
    """What decides the measures of a trained network."""
    classes = [] if family == "mnist" else ["evaluation/classify.py"]
    return ["metrics.py", "evaluation/predict.py", "networks/counting.py", *classes]


def shown_by(*modules: str) -> list[str]:
    """Modules of reports with those of networks, evaluation and report that they import, and so on.

    Files that are not Python's stay as they are.
    """
    return imported(modules, ("networks/", "evaluation/", "report/"))


def imported(modules: Iterable[str], within: tuple[str, ...] = ("",)) -> list[str]:
    """Modules, and all with paths that begin so which they import, and so on; sorted."""
    found, left = set(), list(modules)
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            left += [name for name in _read(module).imports if name.startswith(within)]
    return sorted(found)


def _paths(name: str) -> Iterator[str]:
    """The file of a module, or of that which an imported name is of."""
    package, *parts = name.split(".")
    while package == "mg" and parts:
        for path in ("/".join(parts) + ".py", "/".join(parts) + "/__init__.py"):
            if (SOURCES / path).is_file():
                yield path
                return
        parts.pop()


class _Module(NamedTuple):
    """What is kept of a module: its syntax tree would slow the collection of garbage."""

    imports: list[str]
    hash: str


@functools.cache
def _read(module: str) -> _Module:
    content = (SOURCES / module).read_bytes()
    if not module.endswith(".py"):
        return _Module([], hashlib.sha256(content).hexdigest())
    tree = ast.parse(content)
    described = hashlib.sha256(_described(tree).encode()).hexdigest()
    return _Module([path for name in _imported_names(tree) for path in _paths(name)], described)


def _imported_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _described(tree: Any) -> str:
    """A syntax tree in words that every Python has for it: newer ones add empty fields."""
    if isinstance(tree, list):
        return f"[{', '.join(_described(part) for part in tree if not _is_text(part))}]"
    if not isinstance(tree, ast.AST):
        return repr(tree)
    fields = [(name, value) for name, value in ast.iter_fields(tree) if value not in (None, [])]
    return f"{type(tree).__name__}({', '.join(f'{n}={_described(value)}' for n, value in fields)})"


def _is_text(part: Any) -> bool:
    """Whether a statement is a docstring, or stands for one."""
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
