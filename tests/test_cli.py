"""The command line: what it prints, how it fails, and that it starts at once."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mg import cli
from mg.cli import arguments

REFERENCE = Path(__file__).parent.parent / "results/reference/demo"
METRICS = sorted(REFERENCE.glob("models/*/pmg/seed*/metrics.json"))


def mg(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "mg", *arguments], capture_output=True, text=True)


def test_the_parser_loads_nothing_heavy():
    script = (
        "import sys, mg.cli; mg.cli.build_parser(); "
        "print({'torch', 'matplotlib', 'pandas', 'numba', 'h5py'} & set(sys.modules) or 'light')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "light"


@pytest.mark.parametrize(
    "module", ["mg.configuration", "mg.data.mnist", "mg.data.cifar", "mg.data.imagenet"]
)
def test_checking_and_bringing_images_need_no_pytorch(module):
    script = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "arguments",
    [
        ["table", "results", "--metrics", *METRICS],
        ["table", "claims", "--metrics", *METRICS]
        + ["--saliency", *REFERENCE.glob("models/*/pmg/seed*/saliency.h5")],
        ["table", "classification", "--metrics"]
        + [*REFERENCE.parent.glob("cifar-digits/models/*/mg/seed*/metrics.json")],
        ["figure", "curves", "--history", *REFERENCE.glob("models/*/pmg/seed*/history.csv")],
        ["page", "overview", "--metrics", *METRICS],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_what_needs_no_network_needs_no_pytorch(arguments, tmp_path):
    script = (
        "import sys; from mg.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, *map(str, arguments), "--output", str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
    assert any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "loads",
    [
        "import mg.training.loop, mg.evaluation.evaluate, mg.evaluation.saliency",
        "import mg.cli\ntry: mg.cli.main(['train', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_training_loads_nothing_that_draws(loads):
    script = (
        f"{loads}\nimport sys\nheavy = {{'matplotlib', 'pandas', 'jinja2', 'mg.report'}}\n"
        "print('heavy:', *(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.strip() == "heavy:"


def test_networks_are_listed_as_json():
    done = mg("networks", "--format", "json")
    rows = json.loads(done.stdout)
    (pmg,) = [
        row
        for row in rows
        if (row["network"], row["dataset"], row["options"])
        == ("pmg", "segmentation", {"n_layer": 1})
    ]
    assert pmg["parameters"] == 605_718


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["tarin"], "invalid choice: 'tarin'"),
        (["generate", "--task", "translation"], "required: --split"),
        (["generate", "--task", "segmentation", "--split", "test", "--mnist", ".", "--output", "x",
          "--digits", "1e20", "0"], "at most 1000"),
        (["train", "--network", "pmg", "--task", "translation", "--train", "no.h5", "--output",
          "x", "--label", "a\nb"], "no table can show"),
        (["describe", "vgg19", "cifar10"], "no network 'vgg19'"),
        (["describe", "pmg", "segmentation", "--options", "{n_layer: 2}"], "not a JSON object"),
        (["show", "nothing.h5"], "nothing.h5"),
        (["generate", "--task", "translation", "--split", "dev"], "invalid choice: 'dev'"),
        (["evaluate", "--model", "none.pt", "--data", "a", "--metrics", "b", "--predictions", "c"],
         "none.pt"),
        (["figure", "cost", "--output", "x"], "--metrics"),
        (["page", "run", "--output", "x"], "--configuration"),
        (["page", "explorer", "--output", "x"], "--data"),
        (["table", "resources", "--output", "x"], "--benchmarks"),
        (["table", "results", "--output", "x"], "--metrics"),
        (["table", "claims", "--metrics", "a", "--benchmarks", "b", "--output", "x"],
         "--benchmarks"),
        (["table", "--output", "x"], "KIND"),
        (["figure", "spatial", "--data", "a", "--output", "x"], "--predictions"),
        (["table", "results", "--metrics", "a", "--expected", "pmg", "--output", "x"],
         "LABEL:SEED"),
        (["train", "--network", "pmg", "--task", "translation", "--train", "no.h5", "--output",
          "x", "--batch", "0"], "batch"),
    ],
)  # fmt: skip
def test_mistakes_end_in_one_line(arguments, message):
    done = mg(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("mg") and "error:" in line and message in line


def test_a_reader_that_went_away_is_not_taken_for_success():
    """`mg compare … | head` says neither that runs differ nor that they do not."""
    command = [sys.executable, "-m", "mg", "compare", str(REFERENCE), str(REFERENCE)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 128 + signal.SIGPIPE


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_change_nothing_else(closed, tmp_path):
    command = f"{sys.executable} -m mg describe pmg segmentation --output {tmp_path}/pmg {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "pmg.svg").stat().st_size


def test_a_name_that_is_no_text_is_shown_escaped(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"\xff.csv")
    with open(path, "w") as file:
        file.write("a,b\n1,2\n")
    command = [sys.executable, "-m", "mg", "show", path]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"LC_ALL": "C.UTF-8"})
    assert done.returncode == 0 and rb"\udcff.csv" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "command, option, value, least",
    [
        ("generate", "--workers", "0", 1),
        ("prepare", "--count", "0", 1),
        ("prepare", "--count", "-5", 1),
        ("train", "--threads", "-1", 1),
        ("train", "--seed", "-1", 0),
        ("train", "--workers", "-1", 0),
        ("evaluate", "--threads", "-1", 1),
        ("evaluate", "--batch", "0", 1),
        ("saliency", "--threads", "-2", 1),
        ("saliency", "--seed", "-1", 0),
        ("saliency", "--seed", "9" * 5000, 0),
        ("predict", "--top", "-1", 1),
        ("figure spatial", "--examples", "0", 1),
        ("page explorer", "--examples", "1.5", 1),
    ],
)
def test_a_number_that_cannot_be_is_refused(command, option, value, least, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), option, value])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    said = f"argument {option}: {value!r} is not a whole number from {least} to 2147483647"
    assert line.startswith(f"mg {command}: error: {said}")


@pytest.mark.parametrize(
    "change, key",
    [
        (lambda config: config.clear(), "tasks"),
        (lambda config: config["data"].pop("canvas"), "data.canvas"),
        (lambda config: config["architectures"].pop("pmg"), "architectures.pmg.network"),
        (lambda config: config.update(architectures=[]), "architectures"),
    ],
)
def test_a_configuration_that_lacks_something_is_refused(change, key, tmp_path, capsys):
    path = tmp_path / "x.json"
    config = {
        **{"tasks": ["translation"], "networks": ["pmg"], "training": {}, "imagenet": {"crop": 32}},
        "data": {
            **{"mode": "independent", "seed": 1, "canvas": 32, "digit_size": 14},
            **{"threshold": 0.3, "tasks": {}},
        },
        "architectures": {"pmg": {"network": "pmg", "options": {}}},
        "mnist": {"sources": ["digits/"]},
    }
    path.write_text(json.dumps(config))
    cli.main(["check", str(path)])
    change(config)
    path.write_text(json.dumps(config))
    with pytest.raises(SystemExit) as stop:
        cli.main(["check", str(path)])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mg check: error: {key}: missing")


def test_evaluation_computes_as_many_examples_at_once_as_are_asked_for(monkeypatch):
    from mg.evaluation import evaluate

    asked = []
    monkeypatch.setattr(evaluate, "evaluate", lambda *files, **settings: asked.append(settings))
    command = "evaluate --model m --data d --metrics m --predictions p --device cpu".split()
    cli.main(command)
    cli.main([*command, "--batch", "7"])
    assert [settings["batch"] for settings in asked] == [64, 7]


def test_saliency_computes_as_many_images_at_once_as_are_asked_for(monkeypatch):
    from mg.evaluation import saliency

    asked = []
    monkeypatch.setattr(saliency, "saliency", lambda *files, **settings: asked.append(settings))
    command = "saliency --model m --data d --output s --device cpu".split()
    cli.main(command)
    cli.main([*command, "--batch", "7"])
    assert [settings["batch"] for settings in asked] == [128, 7]


def test_a_test_set_can_be_measured_without_its_predictions(monkeypatch):
    from mg.evaluation import evaluate

    asked = []
    monkeypatch.setattr(evaluate, "evaluate", lambda *files, **settings: asked.append(settings))
    cli.main("evaluate --model m --data d --metrics m --device cpu".split())
    assert asked[0]["predictions_path"] is None


def test_an_option_that_is_null_is_not_given():
    command = "train --network mg --task cifar10 --train x --output y --options".split()
    given = cli.build_parser().parse_args([*command, '{"classes": null, "n_layer": 2}'])
    assert given.options == {"n_layer": 2}


def test_tasks_are_those_that_there_are_networks_and_data_for():
    from mg.data import cifar
    from mg.data.tasks import TASKS
    from mg.networks.registry import DATASETS

    assert arguments.CLASSIFICATION == (*cifar.ARCHIVES, "imagenet")
    assert (*TASKS, *arguments.CLASSIFICATION) == (*DATASETS,)


def test_every_command_has_help(capsys):
    (commands,) = (a.choices for a in cli.build_parser()._actions if a.dest == "command")
    assert len(commands) > 14
    kinds = {
        command: next((a.choices for a in parser._actions if a.dest == "kind"), ())
        for command, parser in commands.items()
    }
    assert len(kinds["table"]) >= 5 and len(kinds["figure"]) >= 8 and len(kinds["page"]) >= 3
    every = [[command, *kind] for command in commands for kind in ((), *zip(kinds[command]))]
    for words in every:
        with pytest.raises(SystemExit) as stop:
            cli.main([*words, "--help"])
        assert stop.value.code == 0
        assert f"mg {' '.join(words)}" in capsys.readouterr().out
