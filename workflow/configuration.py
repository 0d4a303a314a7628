"""Refuse a configuration that cannot work: one line that names the key and what is allowed.

First whether it is YAML, then what a schema can say, then what it cannot, last what only the
package knows (`mg check`), which is asked once for all that it reads.

Snakemake reads files given with --configfile before any of the workflow, and names neither file nor
line of a syntax error: `python workflow/configuration.py FILE...` does, checks as far as the schema
goes, and prints the run's name.
"""

import copy
import difflib
import hashlib
import json
import math
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError, validators

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8"))
TASKS = SCHEMA["$defs"]["task"]["enum"]

_GENERATED = (b"paper", b"independent")
_MOST_VALUES, _DEEPEST, _LARGEST = 100_000, 20, 1e30


class Mistake(Exception):
    """What is wrong with a configuration, in one line that begins with the key."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(" ".join(f"{key.strip() or '(an empty key)'}: {problem}".split()))


def check_files(paths: Iterable[str | os.PathLike]) -> None:
    """Refuse a file that is no mapping in YAML or JSON, and a key that stands twice in it.

    The parser would silently take the last of them.

    Raises:
        Mistake: it is; for want of a key the message begins with the file.
    """
    for path in paths:
        for key, line in _keys_given_twice(_read(path)[0], "", set()):
            raise Mistake(key, f"given twice, again in line {line} of {path}; allowed is once")


def load(paths: Iterable[str | os.PathLike]) -> dict[str, Any]:
    """The files laid over one another as Snakemake does: mappings key by key, all else replaced.

    Raises:
        Mistake: as `check_files`.
    """
    config = {}
    check_files(paths)
    for path in paths:
        config = _laid(_read(path)[1], config)
    return config


def _laid(over: dict[str, Any], under: dict[str, Any]) -> dict[str, Any]:
    """Neither is changed: aliases of YAML are one mapping in several places."""
    both = {
        key: _laid(over[key], under[key])
        for key in over.keys() & under.keys()
        if isinstance(over[key], dict) and isinstance(under[key], dict)
    }
    return under | over | both


def _read(path: str | os.PathLike) -> tuple[yaml.Node, dict[str, Any]]:
    """A file of YAML, as nodes that know their lines and as values.

    Raises:
        Mistake: it cannot be read, or is something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        if _is_json(text):
            text = text.replace("\t", " ")  # between its values, where YAML has none
        node, value = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except OSError as error:
        raise Mistake(str(path), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise Mistake(f"{path}, line {line}", "not UTF-8; allowed is text in UTF-8") from error
    except RecursionError as error:
        raise Mistake(str(path), f"allowed are at most {_DEEPEST} levels") from error
    except (yaml.YAMLError, ValueError) as error:
        raise _syntax_error(path, text, error) from error
    if not isinstance(value, dict):
        raise Mistake(str(path), "allowed is a mapping of keys to values, such as `run: my_run`")
    return node, value


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _syntax_error(path: str | os.PathLike, text: str, error: Exception) -> Mistake:
    mark, problem = getattr(error, "problem_mark", None), str(error)
    if mark is not None:
        line = mark.line + 1
        problem = f"column {mark.column + 1}: {error.problem}"
        if error.context:
            problem += f" ({error.context}"
            start = error.context_mark
            problem += f" from line {start.line + 1} on)" if start else ")"
    elif isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        problem = f"U+{error.character:04X}: {error.reason}"
    else:  # a value that no Python can hold, such as the date 2026-99-99
        return Mistake(str(path), f"{problem}; put it in quotes")
    if "'\\t'" in problem:
        problem += "; indent with spaces, not with tabs"
    return Mistake(f"{path}, line {line}", problem)


def type_values(config: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Read numbers and the like in what `given` (by --config) laid over a configuration.

    Inside lists and mappings Snakemake leaves everything text.
    """
    for key, value in given.items():
        if key in config and isinstance(value, list | Mapping):
            config[key] = _typed(config[key], value)
        elif isinstance(value, Mapping):  # where this is a module, what stands under its name
            type_values(config, value)


def _typed(value: Any, given: Any) -> Any:
    if isinstance(value, dict) and isinstance(given, Mapping):
        return {k: _typed(inner, given[k]) if k in given else inner for k, inner in value.items()}
    if value != given:
        return value
    if isinstance(value, list):
        return [_typed(item, item) for item in value]
    try:
        read = yaml.safe_load(value) if isinstance(value, str) else value
    except (yaml.YAMLError, ValueError, RecursionError):
        return value
    return read if read is None or isinstance(read, int | float | str) else value


def check(config: dict[str, Any]) -> None:
    """Refuse what the schema does not accept, fill in its defaults, then refuse selections of what
    is not defined or does not go together.

    Raises:
        Mistake: the first one.
    """
    for number, (key, value) in enumerate(_values(config)):
        if number > _MOST_VALUES:
            raise Mistake(key, f"more than {_MOST_VALUES:,} values; allowed are fewer")
        if isinstance(value, str) and not all(map(_writable, value)):
            raise Mistake(key, f"{_show(value)} holds a control character; allowed is text")
        if isinstance(value, float) and not math.isfinite(value):
            raise Mistake(key, f"{value} is not allowed; allowed are finite numbers")
        if isinstance(value, int | float) and abs(value) >= _LARGEST:
            problem = f"{_show(value)} is not allowed; allowed are numbers below {_LARGEST:g}"
            raise Mistake(key, problem)
    errors = sorted(_VALIDATOR.iter_errors(config), key=_misspelt_keys_first)
    if errors:
        raise _mistake(errors[0])
    _fill_in(config, SCHEMA)
    _check_families(config)
    _check_names(config)
    _check_directories(config)
    _check_amounts(config)
    _check_window(config)


def _fill_in(config: dict[str, Any], schema: dict[str, Any]) -> None:
    """The schema's defaults, where a key is absent; in mappings of mappings too."""
    known = schema.get("properties", {})
    for key, inner in known.items():
        if "default" in (inner := _resolved(inner)):
            config.setdefault(key, copy.deepcopy(inner["default"]))
    for key, value in config.items():
        if isinstance(value, dict):
            inner = known.get(key, schema.get("additionalProperties"))
            _fill_in(value, _resolved(inner or {}))


def _check_families(config: dict[str, Any]) -> None:
    first = config["tasks"][0]
    for task in config["tasks"]:
        if family(task) != family(first):
            problem = f"the networks for {first} and {task} differ; allowed are tasks of one of "
            raise Mistake("tasks", f"{problem}MNIST, CIFAR and ImageNet")


def _check_names(config: dict[str, Any]) -> None:
    if config["run"] == "reference":
        raise Mistake("run", "results/reference/ is the repository's own; allowed are other names")
    for network in config["networks"]:
        _refuse_unknown("networks", network, config)
    for network in config["saliency"]["networks"]:
        _refuse_unknown("saliency.networks", network, config)


def _check_directories(config: dict[str, Any]) -> None:
    for images in ("mnist", "cifar", "imagenet"):
        directory = config[images]["directory"]
        if directory.startswith("~"):
            problem = f"{directory} is not read as a home folder; write {Path.home()}/…"
            raise Mistake(f"{images}.directory", problem)


def _check_amounts(config: dict[str, Any]) -> None:
    amounts = config["training"]["tasks"]
    for task in config["tasks"]:
        if task not in amounts:
            raise Mistake("training.tasks", f"the amount of training for {task} is missing")
        for network, parts in amounts[task]["accumulate"].items():
            _refuse_unknown(f"training.tasks.{task}.accumulate", network, config)
            if amounts[task]["batch"] % parts:
                raise Mistake(
                    f"training.tasks.{task}.accumulate.{network}",
                    f"{parts} does not divide the batch of {amounts[task]['batch']}; allowed is a "
                    "divisor",
                )


def _check_window(config: dict[str, Any]) -> None:
    if not {*config["saliency"]["tasks"]} & {*config["tasks"]}:
        return
    canvas, window = config["data"]["canvas"], config["saliency"]["window"]
    if window > canvas:
        problem = f"{window} does not fit a canvas of {canvas} pixels; allowed is at most {canvas}"
        raise Mistake("saliency.window", problem)
    if (stride := config["saliency"]["stride"]) > window:
        problem = f"{stride} leaves out pixels between windows of {window}; allowed is at most "
        raise Mistake("saliency.stride", problem + str(window))
    if rest := (canvas - window) % stride:
        problem = f"{stride} leaves out {rest} of {canvas} pixels at the edge, after windows of "
        problem += f"{window}; allowed are divisors of {canvas - window}"
        raise Mistake("saliency.stride", problem)


def _refuse_unknown(key: str, network: str, config: dict[str, Any]) -> None:
    known = sorted(config["architectures"])
    if network not in known:
        hint = _did_you_mean(network, known)
        problem = f"architectures does not define {network}; {hint}defined are "
        raise Mistake(key, problem + ", ".join(known))


def check_own_images(config: dict[str, Any], results: str | os.PathLike) -> None:
    """Refuse to generate digits over images of users' own, and to go without those they announce.

    Args:
        config: with every default filled in.
        results: the folder of all runs.

    Raises:
        Mistake: a file is there, or is not, against `data.mode`.
    """
    announced, canvas = config["data"]["mode"] == "own", config["data"]["canvas"]
    for task in config["tasks"]:
        for split in ("train", "valid", "test") if family(task) == "mnist" else ():
            path = Path(results, config["run"], "data", task, f"{split}.h5")
            own, shape = _mode_and_shape(path)
            if not path.exists():
                if announced:
                    problem = f"own, but {path} is missing; allowed are files as in"
                    raise Mistake("data.mode", f"{problem} config/README.md, “Images of your own”")
            elif own is (not announced):
                if announced:
                    problem = f"own, but {path} holds generated digits; put your images there"
                else:
                    problem = f"digits would be generated over your own images in {path}; "
                    problem += "write `data: {mode: own}`, or move them away"
                raise Mistake("data.mode", problem)
            elif announced and any(side != canvas for side in shape[2:]):
                shown = " x ".join(map(str, shape[2:]))
                problem = f"{canvas}, but {path} holds images of {shown}; allowed is their side"
                raise Mistake("data.canvas", problem)


def number_of_images(path: Path) -> int | None:
    """How many a data set holds; None if it cannot be read."""
    _, shape = _mode_and_shape(path)
    return shape[0] if shape else None


def _mode_and_shape(path: Path) -> tuple[bool | None, tuple[int, ...]]:
    """Whether a data set is one of users' own, not one of generated digits; (N, C, H, W) of it.

    None and nothing if it cannot be read: it is missing or damaged, or Snakemake came without h5py,
    as it may under --sdm conda.
    """
    try:
        import h5py

        with h5py.File(path, "r") as file:
            mode, inputs = file.attrs.get("mode"), file.get("x")
            shape = inputs.shape if isinstance(inputs, h5py.Dataset) else ()
    except (ImportError, OSError):
        return None, ()
    return not (isinstance(mode, bytes) and mode in _GENERATED), shape


def checksums(path: str | os.PathLike) -> list[int] | None:
    """Those that a data set holds of its inputs and targets; None where it cannot be read."""
    try:
        import h5py

        with h5py.File(path, "r") as file:
            return [int(file[name].attrs["crc32"]) for name in ("x", "y")]
    except (ImportError, OSError, KeyError):
        return None


def check_with_package(
    config: dict[str, Any], python: str, memory: Path
) -> dict[str, dict[str, dict[str, int]]]:
    """Refuse what the networks and the generator refuse: options, canvas, digits, windows.

    Args:
        config: with every default filled in.
        python: the interpreter that has the package's dependencies.
        memory: a folder that remembers what was found right, and what it costs.

    Returns:
        Task → network → what it costs for one image: parameters, multiply_adds, outputs.

    Raises:
        Mistake: the first one.
    """
    # No more than it reads: other seeds or another amount of training are nothing new to it.
    read = ("tasks", "networks", "architectures", "data", "mnist", "imagenet")
    asked = {key: config[key] for key in read}
    asked["training"] = {"output_prior": config["training"]["output_prior"]}
    text = json.dumps(asked, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode())
    for path in sorted((ROOT / "mg").rglob("*.py")):
        digest.update(path.read_bytes())
    found_right = memory / digest.hexdigest()
    try:
        return json.loads(found_right.read_text())
    except (OSError, ValueError):
        pass  # not asked yet, or not wholly written
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [python, "-m", "mg", "check", "/dev/stdin"],
        input=text,
        capture_output=True,
        text=True,
        # Of this checkout, also where another stands in the current folder.
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"},
    )
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["ended without a word"])[-1]
        key, _, problem = line.removeprefix("mg check: error: ").partition(": ")
        raise Mistake(*((key, problem) if problem else ("mg check", key)))
    try:
        memory.mkdir(parents=True, exist_ok=True)
        found_right.write_text(done.stdout)
    except OSError:
        pass  # then it is asked again
    return json.loads(done.stdout)


def warn_of_idle_cards(python: str) -> None:
    """Say it once where jobs would be given cards that PyTorch cannot use.

    Each job says it in its log too; but that they wait for one another is seen from here alone.
    """
    asked = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 3)"
    if subprocess.run([python, "-c", asked], capture_output=True).returncode == 3:
        print(
            "warning: there is an NVIDIA card, but PyTorch cannot use it: it was built without "
            "CUDA, or needs a newer driver. Jobs wait for the card and compute on one core each; "
            "with CUDA_VISIBLE_DEVICES= before the command they share all cores.",
            file=sys.stderr,
        )


def family(task: str) -> str:
    """The kind of a task's images, which decides its networks."""
    return {"cifar10": "cifar", "cifar100": "cifar", "imagenet": "imagenet"}.get(task, "mnist")


# ------------------------------------------------------------------------ words


def _show(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return ascii(text) if not text.isprintable() else text if len(text) < 60 else f"{text[:57]}…"


def _did_you_mean(word: Any, known: Iterable[Any]) -> str:
    near = difflib.get_close_matches(str(word), list(map(str, known)), 1)
    return f"did you mean {near[0]}? " if near else ""


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    return SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] | schema


def _allowed(schema: dict[str, Any]) -> str:
    """In words, what a schema accepts."""
    schema = _resolved(schema)
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if "pattern" in schema:
        return schema["$comment"]
    if schema.get("type") == "array":
        few = schema.get("minItems", 0)
        number = f"{few}" if few == schema.get("maxItems") else f"{few} or more"
        different = "different values" if schema.get("uniqueItems") else "values"
        return f"a list of {number} {different}, each {_allowed(schema['items'])}"
    words = {
        "integer": "a whole number",
        "number": "a number",
        "string": "text",
        "boolean": "true or false",
        "object": "a mapping of keys to values",
    }
    bounds = {
        "minimum": "of at least",
        "exclusiveMinimum": "above",
        "maximum": "and at most",
        "exclusiveMaximum": "and below",
    }
    limits = [f"{word} {schema[name]}" for name, word in bounds.items() if name in schema]
    return " ".join([words[schema["type"]], *limits])


def _mistake(error: ValidationError) -> Mistake:
    key = ".".join(map(str, error.absolute_path)) or "the configuration"
    value, rule, schema = error.instance, error.validator, error.schema
    of_a_key = "propertyNames" in error.absolute_schema_path
    if rule == "additionalProperties":
        known = list(schema.get("properties", {}))
        unknown = next(name for name in value if name not in known)
        path = ".".join(map(str, [*error.absolute_path, unknown]))
        hint = _did_you_mean(unknown, known)
        return Mistake(path, f"no such key; {hint}allowed are {', '.join(known)}")
    if rule == "required":
        lacking = next(name for name in error.validator_value if name not in value)
        needed = ", ".join(error.validator_value)
        return Mistake(key, f"the key {lacking} is missing; needed are {needed}")
    if rule == "uniqueItems":
        twice = next(item for i, item in enumerate(value) if item in value[:i])
        return Mistake(key, f"{_show(twice)} is given twice; allowed is {_allowed(schema)}")
    hint = ""
    if rule == "enum":
        hint = _did_you_mean(value, error.validator_value)
    elif rule == "type" and error.validator_value == "string":
        hint = "put it in quotes, in a file; "  # on the command line Snakemake takes them off
    elif rule == "type" and isinstance(value, str):
        hint = _read_as_text(value, error.validator_value)
    what = f"the key {_show(value)}" if of_a_key else _show(value)
    return Mistake(key, f"{what} is not allowed; {hint}allowed is {_allowed(schema)}")


def _read_as_text(value: str, kind: str | list[str]) -> str:
    kinds = [kind] if isinstance(kind, str) else kind
    try:
        if "number" in kinds:
            return f"YAML reads this as text, write {float(value)!r}; "
        if "integer" in kinds:
            return f"YAML reads this as text, write {int(value)}; "
    except ValueError:
        pass
    return ""


# ------------------------------------------------------------------------ rules


def _whole(_, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# JSON Schema lets 8.0 pass as a whole number.
_VALIDATOR = validators.extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _whole),
)(SCHEMA)


def _misspelt_keys_first(error: ValidationError) -> tuple:
    """A misspelt key is also a missing one; what is written there says more."""
    return error.validator != "additionalProperties", list(map(str, error.absolute_path))


def _writable(character: str) -> bool:
    """Whether a command line and a file can carry it."""
    return character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")


def _values(value: Any, path: tuple = ()) -> Iterator[tuple[str, Any]]:
    """(key, value) of everything in a configuration, the keys themselves included."""
    key = ".".join(map(str, path)) or "the configuration"
    if len(path) > _DEEPEST:
        raise Mistake(key[:60], f"more than {_DEEPEST} levels; allowed are fewer")
    yield key, value
    if isinstance(value, dict):
        for name, entry in value.items():
            yield key, name
            yield from _values(entry, (*path, name))
    elif isinstance(value, list):
        for i, entry in enumerate(value):
            yield from _values(entry, (*path, i))


def _keys_given_twice(
    node: yaml.Node | None, prefix: str, visited: set[int]
) -> Iterator[tuple[str, int]]:
    """(key, line) of every key that its mapping in the YAML document has already."""
    if id(node) in visited:  # an alias
        return
    visited.add(id(node))
    if isinstance(node, yaml.MappingNode):
        names = set()
        for name, value in node.value:
            if isinstance(name, yaml.ScalarNode) and name.value != "<<":
                if name.value in names:
                    yield f"{prefix}{name.value}", name.start_mark.line + 1
                names.add(name.value)
                yield from _keys_given_twice(value, f"{prefix}{name.value}.", visited)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _keys_given_twice(value, prefix, visited)


if __name__ == "__main__":
    try:
        configuration = load([ROOT / "config/config.yaml", *sys.argv[1:]])
        check(configuration)
    except Mistake as mistake:
        sys.exit(f"configuration: {mistake}")
    print(configuration["run"])
