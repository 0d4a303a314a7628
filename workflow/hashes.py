"""Hashes of the code of `mg` that decides a result; a rule that has one as a parameter runs again
when that code changes, and only then.

Modules count whole, but of networks, of tasks and of archives of images what one of them uses:
another one that is added leaves the results of the rest as they are. An optimiser counts for those
who train by it.
"""

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
    return _digest(_read(module).hash for module in modules)


def code_of_data(task: str) -> str:
    """Hash of what decides a data set."""
    # Of the digits their reading, not their fetching.
    followed = ("data/clutter.py", "data/tasks.py", "data/mnist.py")
    parts = used_by("data/clutter.py", "generate_file", {task}, followed)
    return _digest([code(["data/compiled.py"]), *parts.values()])


def code_of_images(family: str) -> str:
    """Hash of what decides a data set that is made of an archive or a folder of images."""
    return _digest(_of_images(family, "prepare"))


def code_of_digit_archive() -> str:
    """Hash of what decides the archive that MNIST's digits are written as."""
    return _digest(_of_images("cifar", "write_digits"))


def _of_images(family: str, name: str) -> Iterable[str]:
    """What a function of the family uses: code that brings an archive is not among it."""
    return used_by(f"data/{family}.py", name, (), f"data/{family}").values()


def code_of_training(
    family: str, task: str, network: str, optimizer: str, output_prior: bool
) -> str:
    """Hash of what decides the weights of a network (the package's name of it) for a task."""
    trained = code(trained_by(family, optimizer, output_prior))
    return _digest([trained, *built_by(family, task, network).values()])


def trained_by(family: str, optimizer: str, output_prior: bool) -> list[str]:
    """The modules that train, for a family of tasks, by a recipe.

    Those of the measures are not among them: weights do not follow from them. (The progress in
    `history.csv` is measured by the code of its time.)
    """
    images = {
        "mnist": [],
        "cifar": ["data/cifar_preparation.py"],
        "imagenet": ["data/imagenet_preparation.py", "data/vision.py"],
    }
    return [
        "networks/execution.py",
        "training/device.py",
        "training/feed.py",
        "training/loop.py",
        "training/objective.py",
        "training/recipe.py",
        "training/run.py",
        "training/step.py",
        "training/team.py",
        "training/training.py",
        *images[family],
        *(["training/muon.py"] if optimizer == "muon" else []),
        *(["training/prior.py"] if output_prior else []),
    ]


def built_by(family: str, task: str, network: str) -> dict[tuple[str, str], str]:
    """What `used_by` finds for a network: its builder, units, options and initialisation."""
    chosen = {family, task, network}
    return used_by(f"networks/{family}.py", network, chosen) | used_by(
        "networks/registry.py", "build", chosen
    )


def evaluated_by(family: str) -> list[str]:
    """What decides the measures of a trained network."""
    measured = "pixels" if family == "mnist" else "classify"
    own = ["evaluation/evaluate.py", f"evaluation/{measured}.py"]
    return ["metrics.py", "networks/counting.py", *own]


def mapped_by() -> list[str]:
    """What decides the maps of saliency of a trained network."""
    return imported(["evaluation/saliency.py"], ("evaluation/",))


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


# ------------------------------------------------------------------------ definitions

# Their entries concern one network or task each.
TABLES = ("NETWORKS", "DATASETS", "TASKS")


def used_by(
    module: str, name: str, chosen: Iterable[str], within: str | tuple[str, ...] = "networks/"
) -> dict[tuple[str, str], str]:
    """Hashes of a definition and all that it uses, by module and name, sorted.

    A name that stands for something else too counts all the same: too much, but never too little.

    Args:
        module: where `name` is defined at the top.
        chosen: entries of `TABLES` that stand under other names do not count.
        within: modules with other paths are not followed.

    Raises:
        KeyError: there is no such definition.
    """
    chosen, found, left = frozenset(chosen), {}, [(module, name)]
    if name not in _read(module).definitions:
        raise KeyError(f"{module} defines no {name}")
    while left:
        module, name = here = left.pop()
        read = _read(module)
        if not module.startswith(within) or here in found:
            continue
        if name == "*":  # the module as such
            left += [(module, each) for each in read.definitions]
        elif name in read.bound:
            left.append(read.bound[name])
        elif name in read.definitions:
            parts = [part for part in read.definitions[name] if part.under <= chosen]
            found[here] = _digest(part.hash for part in parts)
            left.append((module, ""))  # statements that define nothing
            for used, attribute in set().union(*(part.uses for part in parts)):
                path, what = read.bound.get(used, (module, used))
                left.append((path, attribute if what == "*" and attribute else what))
    return dict(sorted(found.items()))


class _Part(NamedTuple):
    """A definition, or an entry of a table."""

    under: frozenset[str]  # the names of an entry
    hash: str
    uses: frozenset[tuple[str, str]]  # names, and which attribute of them or ""


def _parts(statement: ast.stmt) -> Iterator[tuple[str, _Part]]:
    """What a statement at the top of a module defines, under each of its names; "" if nothing."""
    match statement:
        case ast.Import() | ast.ImportFrom():
            return
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            names = [name]
        case ast.Assign(targets=targets):
            nodes = [node for target in targets for node in ast.walk(target)]
            names = [node.id for node in nodes if isinstance(node, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            names = [name]
        case _:
            names = [""]
    entries = _entries(statement.value) if names[0] in TABLES else [(frozenset(), statement)]
    for under, node in entries:
        described = hashlib.sha256(_described(node).encode()).hexdigest()
        part = _Part(under, described, frozenset(_uses(node)))
        yield from ((name, part) for name in names)


def _entries(table: ast.expr, under: frozenset[str] = frozenset()) -> Iterator[tuple]:
    """The entries of a table with the names that they stand under, or begin with."""
    match table:
        case ast.Dict(keys=keys, values=values):
            for key, value in zip(keys, values, strict=True):
                name = {ast.literal_eval(key)} if key else set()  # none: entries of another table
                yield from _entries(value, under | name)
        case ast.DictComp(generators=[ast.comprehension(iter=ast.Tuple(elts=calls))]):
            yield from ((frozenset({ast.literal_eval(call.args[0])}), call) for call in calls)
        case _:
            yield under, table


def _uses(node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        yield node.value.id, node.attr
        return
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node.id, ""
    for child in ast.iter_child_nodes(node):
        yield from _uses(child)


# ------------------------------------------------------------------------ modules


def _find(name: str) -> tuple[str, str] | None:
    """The module that a name after `import` is, or that it is of; with the name there or "*"."""
    package, *parts = name.split(".")
    within = "*"
    while package == "mg" and parts:
        for path in ("/".join(parts) + ".py", "/".join(parts) + "/__init__.py"):
            if (SOURCES / path).is_file():
                return path, within
        within = parts.pop()
    return None


class _Module(NamedTuple):
    """What is kept of a module: its syntax tree would slow the collection of garbage."""

    bound: dict[str, tuple[str, str]]  # names that imports bind: module, and name there or "*"
    definitions: dict[str, list[_Part]]
    hash: str

    @property
    def imports(self) -> set[str]:
        return {path for path, _ in self.bound.values()}


@functools.cache
def _read(module: str) -> _Module:
    content = (SOURCES / module).read_bytes()
    if not module.endswith(".py"):
        return _Module({}, {}, hashlib.sha256(content).hexdigest())
    tree = ast.parse(content)
    described = hashlib.sha256(_described(tree).encode()).hexdigest()
    definitions: dict[str, list[_Part]] = {}
    for statement in tree.body:
        for name, part in _parts(statement):
            definitions.setdefault(name, []).append(part)
    return _Module(dict(_imports(tree)), definitions, described)


def _imports(tree: ast.AST) -> Iterator[tuple[str, tuple[str, str]]]:
    """Names that imports anywhere in a module bind, as `_Module` has them."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                full = [(alias, alias.name) for alias in names]
            case ast.ImportFrom(module=package, names=names):
                full = [(alias, f"{package}.{alias.name}") for alias in names]
            case _:
                continue
        for alias, name in full:
            if found := _find(name):
                yield alias.asname or alias.name, found


def _digest(hashes: Iterable[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


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
