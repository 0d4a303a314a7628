"""pip and conda install the same versions, and those that pyproject.toml asks for."""

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
        (extras["dev"], DEV),
        (extras["slurm"], SLURM),
    ):
        for requirement in map(Requirement, wanted):
            assert have[canonicalize_name(requirement.name)] in requirement.specifier, requirement
