"""Mistakes in a configuration: one line that names the key and what is allowed, before any job.

Each is written to a file and met by the real Snakefile, in a process forked from one that has
Snakemake loaded already. Nothing from a configuration is run by a shell.
"""

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_report_tables import record

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "workflow"))
import configuration  # noqa: E402

# What is written, the key that is named, what is said of it.
MISTAKES = {
    "misspelt key": ("netwroks: [pmg]", "netwroks", "did you mean networks?"),
    "misspelt key within": ("training: {learnig_rate: 0.1}", "training.learnig_rate",
                            "did you mean learning_rate?"),
    "misspelt key of a task": ("training: {tasks: {translation: {epoch: 3}}}",
                               "training.tasks.translation.epoch", "did you mean epochs?"),
    "misspelt task": ("tasks: [segmentatoin]", "tasks.0", "did you mean segmentation?"),
    "misspelt task of the data": ("data: {tasks: {rotatoin: {train: 5}}}", "data.tasks",
                                  "did you mean rotation?"),
    "misspelt choice": ("data: {mode: papr}", "data.mode", "one of paper, independent"),
    "1e-3 is text to YAML": ("training: {learning_rate: 1e-3}", "training.learning_rate",
                             "write 0.001"),
    "a rate in words": ("training: {learning_rate: high}", "training.learning_rate",
                        "a number above 0"),
    "a rate of nothing": ("training: {learning_rate: 0}", "training.learning_rate",
                          "a number above 0"),
    "an infinite rate": ("training: {learning_rate: .inf}", "training.learning_rate",
                         "allowed are finite numbers"),
    "a rate that is no number": ("training: {learning_rate: .nan}", "training.learning_rate",
                                 "allowed are finite numbers"),
    "a rate beyond all numbers": ("training: {learning_rate: 1.0e+30}", "training.learning_rate",
                                  "1e+30 is not allowed; allowed are numbers below 1e+30"),
    "a whole number beyond all floats": (f"seeds: [{10**400}]", "seeds.0",
                                         "allowed are numbers below 1e+30"),
    "a whole number in quotes": ('seeds: ["0"]', "seeds.0", "write 0;"),
    "a width that is no number": ("architectures: {pmg: {options: {width: [.nan]}}}",
                                  "architectures.pmg.options.width.0",
                                  "allowed are finite numbers"),
    "a negative decay": ("training: {weight_decay: -1}", "training.weight_decay", "at least 0"),
    "a negative canvas": ("data: {canvas: -32}", "data.canvas", "a whole number of at least 8"),
    "a canvas with a fraction": ("data: {canvas: 32.5}", "data.canvas", "a whole number"),
    "no examples": ("data: {tasks: {translation: {train: 0}}}", "data.tasks.translation.train",
                    "at least 1"),
    "more examples than anyone has": ("data: {tasks: {translation: {train: 99999999999}}}",
                                      "data.tasks.translation.train", "at most 2147483647"),
    "a threshold above one": ("data: {threshold: 1.5}", "data.threshold", "at most 1"),
    "no task": ("tasks: []", "tasks", "a list of 1 or more"),
    "tasks of MNIST and CIFAR": (
        "tasks: [translation, cifar10]\nnetworks: [pmg]\n"
        "training: {tasks: {cifar10: {epochs: 1, iterations: 1, batch: 8}}}",
        "tasks", "the networks for translation and cifar10 differ"),
    "no network": ("networks: []", "networks", "a list of 1 or more"),
    "no seed": ("seeds: []", "seeds", "a list of 1 or more"),
    "one value for a list": ("tasks: translation", "tasks", "a list of 1 or more"),
    "a seed twice": ("seeds: [0, 1, 0]", "seeds", "0 is given twice"),
    "a key twice": ("seeds: [0]\nseeds: [1]", "seeds", "given twice, again in line 2"),
    "a seed with a point": ("seeds: [1.0]", "seeds.0", "a whole number"),
    "a negative seed": ("seeds: [-1]", "seeds.0", "at least 0"),
    "a seed that is true": ("seeds: [true]", "seeds.0", "a whole number"),
    "a yes for a flag": ("training: {output_prior: 'yes'}", "training.output_prior",
                         "true or false"),
    "a missing value": ("training:", "training", "a mapping"),
    "a run name with a slash": ("run: a/b", "run", "letters, digits"),
    "a run name that climbs": ("run: ../other", "run", "letters, digits"),
    "a run name with a space": ("run: a b", "run", "letters, digits"),
    "a run name that is a command": ("run: $(touch hacked)", "run", "letters, digits"),
    "a run name with quotes": ("run: a'b\"c", "run", "letters, digits"),
    "a run name that ends a line": ('run: "a\\n"', "run", "letters, digits"),
    "a run name that is a date": ("run: 2026-01-02", "run", "put it in quotes"),
    "a run name that is a number": ("run: 12", "run", "put it in quotes"),
    "a network's name that is a command": ("architectures: {$(touch hacked): {network: pmg}}",
                                           "architectures", "letters, digits"),
    "a description with a NUL": ('description: "a\\0b"', "description", "control character"),
    "a directory that looks like an option": ("mnist: {directory: --help}", "mnist.directory",
                                              "neither a hyphen"),
    "a directory with a wildcard": ("mnist: {directory: 'data/{run}'}", "mnist.directory",
                                    "without braces"),
    "CIFAR's directory that looks like an option": ("cifar: {directory: -x}", "cifar.directory",
                                                    "neither a hyphen"),
    "a source of CIFAR with a wildcard": ("cifar: {sources: ['a/{run}']}", "cifar.sources.0",
                                          "without braces"),
    "photographs with a wildcard": ("imagenet: {directory: 'data/{run}'}", "imagenet.directory",
                                    "without braces"),
    "a source that is none": ("mnist: {sources: ['ftp://digits']}", "mnist.sources",
                              "neither an http(s) address nor"),
    "digits of one's own or others": ("mnist: {sources: [as-is, elsewhere/]}", "mnist.sources",
                                      "as-is must stand alone"),
    "saliency of a segmentation": ("saliency: {tasks: [segmentation]}", "saliency.tasks.0",
                                   "one of spatial_transform"),
    "images of one's own that are missing": ("data: {mode: own}", "data.mode",
                                             "results/demo/data/segmentation/train.h5 is missing"),
    "no source": ("mnist: {sources: []}", "mnist.sources", "a list of 1 or more"),
    "an undefined network": ("networks: [pmgg]", "networks", "did you mean pmg?"),
    "saliency of an undefined network": ("saliency: {networks: [r_pgm]}", "saliency.networks",
                                         "did you mean r_pmg?"),
    "accumulation of an undefined network": (
        "training: {tasks: {translation: {accumulate: {rpmg: 2}}}}",
        "training.tasks.translation.accumulate", "did you mean r_pmg?"),
    "a home folder": ("mnist: {directory: ~/mnist}", "mnist.directory", "write /"),
    "accumulation that does not divide": (
        "training: {tasks: {translation: {accumulate: {pmg: 3}}}}",
        "training.tasks.translation.accumulate.pmg", "does not divide"),
    "an unknown network": ("architectures: {pmg: {network: lenet}}", "architectures.pmg.network",
                           "there are pmg"),
    "the name of another network": (
        "architectures: {pmg: {network: unet, options: {width: [8, 16]}}}",
        "architectures.pmg.network", "pmg is the name of another network than unet"),
    "an unknown option": ("architectures: {pmg: {options: {widht: [8, 4]}}}",
                          "architectures.pmg.options", "there are n_layer, width"),
    "classes where a pixel has maps": ("architectures: {pmg: {options: {classes: 3}}}",
                                       "architectures.pmg.options", "no option 'classes'"),
    "widths that are no numbers": ("architectures: {pmg: {options: {width: wide}}}",
                                   "architectures.pmg.options", "a list of 2 or more"),
    "a gigantic network": ("architectures: {pmg: {options: {n_layer: 99999999}}}",
                           "architectures.pmg.options", "from 1 to 1000"),
    "widths and grids that disagree": ("architectures: {pmg: {options: {grids: 7}}}",
                                       "architectures.pmg.options", "grids disagree"),
    "an impossible canvas": ("data: {canvas: 30}", "data.canvas", "a multiple of 4"),
    "a canvas beyond all memory": ("data: {canvas: 1099511627776}", "data.canvas", "too large for"),
    "digits larger than the canvas": ("data: {digit_size: 40}", "data.canvas", "does not fit"),
    "a scale upside down": ("data: {tasks: {translation: {scale: [2, 1]}}}",
                            "data.tasks.translation.scale", "ascending"),
    "several digits where there is one": ("data: {tasks: {translation: {digits: [3, 1]}}}",
                                          "data.tasks.translation.digits", "one digit per image"),
    "a step larger than the window": ("saliency: {window: 4, stride: 5}", "saliency.stride",
                                      "leaves out pixels"),
    "a step that misses the edge": ("saliency: {window: 5, stride: 5}", "saliency.stride",
                                    "leaves out 2 of 32 pixels at"),
    "the folder of results that are kept": ("run: reference", "run", "the repository's own"),
    "an option whose name is a number": ("architectures: {pmg: {options: {1: 2}}}",
                                         "architectures.pmg.options", "the key 1 is not allowed"),
    "an option whose name YAML reads as true": ("architectures: {pmg: {options: {on: 2}}}",
                                                "architectures.pmg.options", "the key true"),
    "a window larger than the canvas": ("saliency: {window: 40}", "saliency.window",
                                        "does not fit"),
}  # fmt: skip

# Forks one process per configuration, two at a time, each in a folder of its own with out.txt.
DRY_RUNS = """
import os, sys
from pathlib import Path
import snakemake.cli, jsonschema, yaml
snakefile, folders = sys.argv[1], sys.argv[2:]
running = 0
for folder in folders:
    if running == 2:
        os.wait()
        running -= 1
    if not os.fork():
        os.chdir(folder)
        out = os.open("out.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 1), os.dup2(out, 2)
        code = 1
        try:
            snakemake.cli.main(["--snakefile", snakefile, "--cores", "1", "--dry-run", "--quiet",
                                "all", "--configfile", "changed.yaml"])
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            code = end.code if isinstance(end.code, int) else 1
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            Path("code.txt").write_text(str(code or 0))
            os._exit(0)
    running += 1
while running:
    os.wait()
    running -= 1
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Exit status, output and folder of a dry run with every mistake, and with none."""
    folders = {}
    for name, (text, *_) in {**MISTAKES, "none": ("run: right",)}.items():
        folders[name] = tmp_path_factory.mktemp("mistake")
        (folders[name] / "changed.yaml").write_text(text + "\n")
    snakefile = str(ROOT / "workflow/Snakefile")
    subprocess.run(
        [sys.executable, "-c", DRY_RUNS, snakefile, *map(str, folders.values())], check=True
    )
    return {
        name: (int((folder / "code.txt").read_text()), (folder / "out.txt").read_text(), folder)
        for name, folder in folders.items()
    }


def test_a_right_configuration_is_planned(answers):
    code, output, _ = answers["none"]
    assert code == 0, output


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_in_one_line_before_any_job(answers, mistake):
    _, key, said = MISTAKES[mistake]
    code, output, folder = answers[mistake]
    assert code == 1
    words = re.compile(r"Using workflow specific profile|Config file .* is extended|^$")
    (line,) = [line for line in output.splitlines() if not words.match(line)]
    assert line.startswith(f"configuration: {key}: ") and said in line
    assert not (folder / "results").exists() and not (folder / "hacked").exists()


# ------------------------------------------------------------------------ not even YAML

# What is written, the line that is named, what is said of it.
BROKEN = {
    "a list without its end": ("run: a\ntasks: [rotation\nseeds: [0]\n", 3, "expected ',' or ']'"),
    "a text without its end": ('run: "a\n', 2, "quoted scalar from line 1"),
    "a tab": ("training:\n\tbatch: 3\n", 2, "indent with spaces"),
    "two colons": ("run: a\ndescription: b: c\n", 2, "mapping values are not allowed"),
    "a key too far to the left": ("tasks:\n  - rotation\n seeds: [0]\n", 3, "expected <block end>"),
    "braces of a template": ("run: {{name}}\n", 1, "unhashable key"),
    "an alias of nothing": ("run: a\nseeds: *mine\n", 2, "undefined alias 'mine'"),
    "a command": ("run: !!python/object/apply:os.system [touch hacked]\n", 1, "object/apply"),
    "two documents": ("run: a\n---\nrun: b\n", 2, "single document"),
    "a control character": ("run: a\n# \7\n", 2, "U+0007"),
    "another encoding": ("run: a\ndescription: \udce9t\udce9\n", 2, "not UTF-8"),
    "no such day": ("run: 2026-02-30\n", None, "put it in quotes"),
    "a list": ("- run: a\n", None, "a mapping of keys to values"),
    "a sentence": ("no configuration\n", None, "a mapping of keys to values"),
    "nothing": ("", None, "a mapping of keys to values"),
    "endless brackets": (10_000 * "[", None, "at most 20 levels"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_file_that_is_no_yaml_is_named_with_its_line(mistake, tmp_path):
    text, line, said = BROKEN[mistake]
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    where = f"{path}, line {line}: " if line else f"{path}: "
    with pytest.raises(configuration.Mistake) as caught:
        configuration.check_files([path])
    assert str(caught.value).startswith(where) and said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(Path().glob("hacked*"))


def checked(*paths, script=ROOT / "workflow/configuration.py"):
    return subprocess.run([sys.executable, script, *paths], capture_output=True, text=True)


def test_a_configuration_can_be_checked_by_itself(tmp_path):
    """As `make results` does: Snakemake reads --configfile before us, and names no line."""
    (tmp_path / "my.yaml").write_text("run: mine\nseeds: [0, 1]\n")
    (tmp_path / "tabs.json").write_text('{"run":\t"mine"}')
    for right, run in (
        ([], "demo"),
        ([tmp_path / "my.yaml"], "mine"),
        ([tmp_path / "tabs.json"], "mine"),
    ):
        done = checked(*right)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{run}\n", "")
    for number, text in enumerate(("run: [a\n", "run: a/b\n", "netwroks: [pmg]\n", None)):
        path = tmp_path / f"wrong{number}.yaml"
        if text:
            path.write_text(text)
        done = checked(tmp_path / "my.yaml", path)
        assert done.returncode == 1
        assert re.fullmatch(r"configuration: \S[^\n]*: [^\n]+\n", done.stderr)


@pytest.mark.parametrize(
    "words, said",
    [
        ("mg check: error: data.canvas: too small", "data.canvas: too small"),
        ("mg check: error: not enough memory", "mg check: not enough memory"),
        ("", "mg check: ended without a word"),
    ],
)
def test_whatever_the_check_by_the_package_ends_with_is_one_line(words, said, tmp_path):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 2\n")
    python.chmod(0o755)
    with pytest.raises(configuration.Mistake) as caught:
        configuration.check_with_package(whole(), str(python), tmp_path / "memory")
    assert str(caught.value) == said


def whole() -> dict:
    """The default configuration, filled in."""
    config = configuration.load([ROOT / "config/config.yaml"])
    configuration.check(config)
    return config


def test_the_package_is_asked_again_only_of_what_it_reads(tmp_path, monkeypatch):
    python, memory, asked = tmp_path / "python", tmp_path / "memory", tmp_path / "asked"
    python.write_text(f"#!/bin/sh\necho >> {asked}\necho '{{}}'\n")
    python.chmod(0o755)
    config = whole()

    def is_asked() -> bool:
        asked.write_text("")
        assert configuration.check_with_package(config, str(python), memory) == {}
        return bool(asked.read_text())

    assert is_asked() and not is_asked()
    config["seeds"], config["run"] = [1, 2], "other"
    config["training"]["tasks"]["translation"]["epochs"] = 100
    assert not is_asked()
    (remembered,) = memory.iterdir()
    for damaged in (b"", b'{"rotation": {"pm', bytes(20), b"\xff"):
        remembered.write_bytes(damaged)
        assert is_asked() and not is_asked()
    config["data"]["canvas"] = 64
    assert is_asked() and not is_asked()
    monkeypatch.setattr(configuration, "ROOT", tmp_path / "checkout")
    (tmp_path / "checkout/mg").mkdir(parents=True)
    for code in ("a = 1", "a = 2"):
        (tmp_path / "checkout/mg/a.py").write_text(code)
        assert is_asked() and not is_asked()


def test_a_broken_default_is_named_by_snakemake_too(tmp_path):
    """config/config.yaml, which the Snakefile itself lays under everything."""
    for part in ("workflow", "config"):
        shutil.copytree(ROOT / part, tmp_path / part)
    with open(tmp_path / "config/config.yaml", "a") as file:
        file.write("seeds: [0\n")
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "--workflow-profile", "none"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 1 and line.startswith("configuration: ")
    assert "config/config.yaml, line " in line and "expected ',' or ']'" in line


# ------------------------------------------------------------------------ nothing reaches a shell


def test_every_value_in_a_shell_command_is_quoted():
    rules = {path: path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk"))}
    assert sum(text.count("shell:") for text in rules.values()) > 20
    for path, text in rules.items():
        commands = re.findall(r"^( +)shell:\n((?:\1 {4}\"[^\n]*\n)+)", text, re.M)
        assert len(commands) == text.count("shell:"), path.name
        for _, command in commands:
            for value in re.findall(r"\{([^{}]+)\}", command):
                assert value == "threads" or value.endswith(":q"), f"{path.name}: {{{value}}}"


HOSTILE = (
    "-x $(touch hacked) `touch hacked` 'a' \"b\" {task} {0} & | > hacked \\ %s #\n; touch hacked"
)


def test_hostile_texts_stay_texts(tmp_path, mnist_directory):
    """A description and a directory full of what shells and formats act on, through real jobs."""
    digits = tmp_path / 'it\'s "$(touch hacked)"; é &'
    digits.symlink_to(mnist_directory)
    config = {
        "run": "hostile",
        "description": HOSTILE,
        "tasks": ["translation"],
        "networks": ["pmg"],
        "mnist": {"directory": digits.name, "sources": ["as-is"]},
        "data": {"tasks": {"translation": {"test": 4}}},
        "saliency": {"tasks": []},
    }
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(config))
    model = tmp_path / "results/hostile/models/translation/pmg/seed0"
    model.mkdir(parents=True)
    (model / "metrics.json").write_text(json.dumps(record(dataset="translation")))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile")),
            *("--configfile", "changed.yaml", "--cores", "2"),
            *("results/hostile/configuration.yaml", "results/hostile/data/translation/test.h5"),
            *("results/hostile/tables/claims.html", "--allowed-rules"),
            *("configuration", "fetch_mnist", "generate", "claims_table"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("hacked*"))
    results = tmp_path / "results/hostile"
    assert yaml.safe_load((results / "configuration.yaml").read_text())["description"] == HOSTILE
    page = html.unescape((results / "tables/claims.html").read_text())
    assert " ".join(HOSTILE.split()) in " ".join(page.split())


# ------------------------------------------------------------------------ anything at all

DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def places(value, path=()):
    """The path of everything in a configuration."""
    yield path
    if isinstance(value, dict | list):
        for name in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[name], (*path, name))


def replaced(value, path, new):
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(places(DEFAULT), key=str)), anything), max_size=3))
def test_any_configuration_is_accepted_or_refused_in_one_line(changes):
    config = DEFAULT
    for path, new in changes:
        try:
            config = replaced(config, path, new)
        except (KeyError, IndexError, TypeError, AttributeError):
            pass  # an earlier change has taken that place away
    try:
        configuration.check(config)
    except configuration.Mistake as mistake:
        assert re.fullmatch(r"[^\n]+: [^\n]+", str(mistake))
    else:
        assert json.loads(json.dumps(config)) == config


SOUND = b"""run: mine  # its own folder
description: "Wider: \xc3\xa9"
seeds: [0, 1, 2]
architectures:
  pmg: &wide
    network: pmg
    options: {width: [24, 12, 12]}
  again: *wide
training:
  learning_rate: 0.02
"""
edits = st.lists(st.tuples(st.integers(0, len(SOUND)), st.binary(max_size=3)), max_size=4)


@settings(max_examples=300, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(st.one_of(st.binary(max_size=60), edits))
def test_any_bytes_are_a_configuration_or_refused_in_one_line(tmp_path, what):
    """Bytes of their own, or put into a sound file."""
    content = what
    if isinstance(what, list):
        content = SOUND
        for place, piece in what:
            content = content[:place] + piece + content[place + len(piece) // 2 :]
    path = tmp_path / "any.yaml"
    path.write_bytes(content)
    try:
        config = configuration.load([ROOT / "config/smoke.yaml", path])
    except configuration.Mistake as mistake:
        assert re.fullmatch(r"[^\n]+: [^\n]+", str(mistake))
    else:
        assert isinstance(config, dict) and config["tasks"] is not None


@pytest.mark.parametrize(
    "deep",
    [
        "run: " + "[" * 50 + "]" * 50,
        "\n".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]" for i in range(1, 12)),
    ],
    ids=["nested", "bomb"],
)
def test_a_configuration_without_end_is_refused(deep, tmp_path):
    text = "a0: &a0 [x]\n" + deep if "*a0" in deep else deep
    path = tmp_path / "deep.yaml"
    path.write_text(text)
    configuration.check_files([path])
    with pytest.raises(configuration.Mistake, match="allowed are fewer"):
        configuration.check(yaml.safe_load(text))
