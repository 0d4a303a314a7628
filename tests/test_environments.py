"""pip, conda and the images install the same versions, those that pyproject.toml asks for."""

import getpass
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def pins(lines) -> dict[str, str]:
    """Name → version of `name==version` lines; anything looser is a mistake."""
    found = {}
    for line in lines:
        if line.strip() and not line.startswith(("#", "-r")):
            name, version = line.strip().split("==")
            found[canonicalize_name(name)] = version
    return found


RUN = pins((ROOT / "envs/requirements.txt").read_text().splitlines())
DEV = RUN | pins((ROOT / "envs/requirements-dev.txt").read_text().splitlines())
SLURM = RUN | pins((ROOT / "envs/requirements-slurm.txt").read_text().splitlines())


def test_conda_has_the_same_pins():
    environment = yaml.safe_load((ROOT / "envs/mg.yaml").read_text())
    *conda, pip = environment["dependencies"]
    assert pins(pip["pip"]) == RUN
    assert any(str(entry).startswith("python=3") for entry in conda)


def test_the_pins_satisfy_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for wanted, have in (
        (project["dependencies"] + extras["workflow"], RUN),
        (extras["dev"] + extras["tensorboard"], DEV),
        (extras["slurm"], SLURM),
    ):
        for requirement in map(Requirement, wanted):
            assert have[canonicalize_name(requirement.name)] in requirement.specifier, requirement


DOCKERFILE = (ROOT / "envs/Dockerfile").read_text()
DEFINITION = (ROOT / "envs/mg.def").read_text()


def section(name: str) -> list[str]:
    """The lines of a section of the Apptainer definition."""
    text = re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", DEFINITION, re.M | re.S).group(1)
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_the_dockerfile_follows_good_practice():
    hadolint = Path(sys.executable).with_name("hadolint")
    subprocess.run([hadolint, ROOT / "envs/Dockerfile"], check=True)


def test_the_images_hold_the_same_files():
    copied = set()
    for sources in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.M):
        copied |= set(sources.split())
    here = {line.split()[0] for line in section("files")}
    assert all((ROOT / name).exists() for name in copied | here)
    top = {name.split("/")[0] for name in copied}
    assert top == {name.split("/")[0] for name in here}
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"}
    assert let_in == top


def test_the_images_install_the_lock_and_nothing_loose():
    both = DOCKERFILE + DEFINITION
    installs = re.findall(r"(?:pip install|sh envs/install\.sh) (.*)", both)
    assert set(installs) <= {
        '"$TORCH_INDEX"',
        '"{{ TORCH_INDEX }}"',
        "--no-cache-dir --no-deps --editable .",
        "--no-cache-dir --no-deps --editable . \\",
    }
    assert {python for python in re.findall(r"python:(3\.\d+)", both)} == {
        str(entry).removeprefix("python=")
        for entry in yaml.safe_load((ROOT / "envs/mg.yaml").read_text())["dependencies"]
        if str(entry).startswith("python=")
    }


def test_readme_and_recipes_give_the_same_commands():
    given = re.findall(r"^#   ((?:docker|apptainer) .*)$", DOCKERFILE + DEFINITION, re.M)
    assert len(given) == 4
    readme = (ROOT / "README.md").read_text()
    assert all(f"\n    {command}\n" in readme for command in given)


def test_a_number_may_run_the_docker_image(monkeypatch):
    """A user without an entry in the image's list, as after --user: Snakemake asks for a name."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    text = re.search(r"^ENV ((?:.*\\\n)*.*)", DOCKERFILE, re.M).group(1).replace("\\\n", " ")
    for name, value in (setting.split("=") for setting in text.split()):
        monkeypatch.setenv(name, value)
    assert getpass.getuser()


def test_the_definition_needs_no_names_of_one_engine():
    """Apptainer and SingularityCE tell the build things under names of their own."""
    assert not re.search("APPTAINER_|SINGULARITY_", DEFINITION)
    assert 'export MG_COMMIT="{{ COMMIT }}"' in section("environment")


def test_an_image_of_a_private_checkout_is_for_everyone():
    assert re.search(r"&& chmod -R a\+rX \.$", DOCKERFILE, re.M)
    assert section("post")[-1] == "chmod -R a+rX ."


def test_the_users_packages_stay_out_of_the_image():
    """Apptainer mounts the home folder and passes variables on."""
    assert {"export PYTHONNOUSERSITE=1", "export PYTHONPATH="} <= set(section("environment"))


def test_another_build_of_pytorch_has_the_locks_version(tmp_path):
    """install.sh, with a pip that says what it is asked for."""
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\necho "$@"\n')
    pip.chmod(0o755)
    command = ["sh", ROOT / "envs/install.sh", "https://example.org/cpu"]
    done = subprocess.run(command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True)
    first, second = done.stdout.decode().splitlines()
    for name in ("torch", "torchvision"):
        assert f"{name}=={RUN[name]}" in first.split()
    assert "https://example.org/cpu" in first and "requirements.txt" in second
