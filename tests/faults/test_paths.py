"""Where the repository lies and where results go: odd names, links, somebody else's checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from processes import checksums

ROOT = Path(__file__).parent.parent.parent
TARGETS = ("results/odd/tables/spatial_transformation.html", "results/odd/figures/spatial.svg")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The repository in a folder with spaces, quotes and letters that are not ASCII."""
    folder = tmp_path_factory.mktemp("paths") / "l'été à 北京 $HOME"
    for part in ("mg", "workflow", "config", "envs"):
        shutil.copytree(
            ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    return folder


def run(checkout: Path, here: Path, mnist: Path) -> None:
    """Make a table and a figure in `here`, with the workflow of `checkout`."""
    few = {split: 16 for split in ("train", "valid", "test")}
    config = {
        "run": "odd",
        "tasks": ["translation"],
        "networks": ["pmg"],
        "mnist": {"directory": str(mnist)},
        "data": {"tasks": {"translation": few}},
        "training": {"tasks": {"translation": {"epochs": 1, "iterations": 2, "batch": 8}}},
        "figures": {"examples": 1},
    }
    (here / "mine.yaml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--snakefile", checkout / "workflow/Snakefile"),
            *("--cores", "2", "--configfile", "mine.yaml", "--", *TARGETS),
        ],
        cwd=here,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for target in TARGETS:
        assert (here / target).stat().st_size


def test_a_checkout_with_an_odd_name_works_and_is_used(checkout, mnist_directory, tmp_path):
    """Reached and left by symbolic links: results lie where the link points."""
    elsewhere = tmp_path / "big disk"
    elsewhere.mkdir()
    link = tmp_path / "link to it"
    link.symlink_to(checkout)
    (link / "results").symlink_to(elsewhere)
    run(link, link, mnist_directory)
    assert (elsewhere / "odd/models/translation/pmg/seed0/model.pt").stat().st_size
    (checkout / "results").unlink()


def test_somebody_elses_read_only_checkout_is_only_read(
    checkout, mnist_directory, tmp_path, read_only
):
    here = tmp_path / "mine"
    here.mkdir()
    before = checksums(checkout)
    run(read_only(checkout), here, mnist_directory)
    assert checksums(checkout) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_somebody_elses_checkout_is_recorded(checkout, tmp_path, monkeypatch):
    """git refuses to read a checkout of another user; results would not say what made them."""
    for settings in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):  # of this machine may allow it
        monkeypatch.setenv(settings, os.devnull)
    theirs = tmp_path / "theirs"
    shutil.copytree(checkout / "mg", theirs / "mg")

    def git(*arguments):
        name = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = ["git", "-C", theirs, *name, *arguments]
        return subprocess.run(done, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "theirs")
    commit = git("rev-parse", "--short=12", "HEAD")
    for path in (theirs, *theirs.rglob("*")):
        os.chown(path, 65534, 65534)
    with pytest.raises(subprocess.CalledProcessError):
        git("rev-parse", "HEAD")
    done = subprocess.run(
        [sys.executable, "-c", "from mg import provenance; print(provenance.commit())"],
        env=os.environ | {"PYTHONPATH": str(theirs)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == commit, done.stderr
