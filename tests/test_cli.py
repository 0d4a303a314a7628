"""The command line: what it prints, how it fails, and that it starts at once."""

import json
import subprocess
import sys

import pytest

from mg import cli


def mg(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "mg", *arguments], capture_output=True, text=True)


def test_the_parser_loads_nothing_heavy():
    script = (
        "import sys, mg.cli; mg.cli.build_parser(); "
        "print({'torch', 'matplotlib', 'pandas', 'numba', 'h5py'} & set(sys.modules) or 'light')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "light"


def test_a_configuration_is_checked_without_pytorch():
    script = "import sys, mg.configuration; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "loads",
    [
        "import mg.training.loop, mg.evaluation.predict, mg.evaluation.saliency",
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
        (["describe", "vgg19", "cifar10"], "no network 'vgg19'"),
        (["describe", "pmg", "segmentation", "--options", "{n_layer: 2}"], "not a JSON object"),
        (["show", "nothing.h5"], "nothing.h5"),
        (["evaluate", "--model", "none.pt", "--data", "a", "--metrics", "b", "--predictions", "c"],
         "none.pt"),
        (["figure", "cost", "--output", "x"], "--metrics"),
        (["page", "run", "--output", "x"], "--configuration"),
        (["page", "explorer", "--output", "x"], "--data"),
        (["table", "resources", "--output", "x"], "--benchmarks"),
        (["table", "results", "--expected", "pmg", "--output", "x"], "LABEL:SEED"),
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


def test_every_command_has_help(capsys):
    for command in ("fetch", "generate", "prepare", "networks", "describe", "train", "evaluate",
                    "predict", "saliency", "table", "figure", "page", "show", "check"):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            cli.main([command, "--help"])
        assert stop.value.code == 0
        assert f"mg {command}" in capsys.readouterr().out
