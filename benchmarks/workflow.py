"""What the workflow adds to Snakemake's own time: a dry run, and a check that all is up to date.

    python benchmarks/workflow.py [--configuration config/paper.yaml] [--seeds 10]

The floor is a generated workflow of the same jobs and files that does and decides nothing. Both are
run in turn, three times each, and the least time of each counts. The first start of a configuration
also checks it and loads PyTorch to count its networks; for that one, what is remembered is removed
each time. Ends with status 1 where the workflow takes more than 1.5 times the floor and half a
second, four seconds more at the first start.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RATIO, SECONDS, COUNTING = 1.5, 0.5, 4
JOB = re.compile(r"(?:local)?rule (\w+):\n")
FILES = re.compile(r"^    (input|output|log|benchmark): (.*)$", re.M)


def snakemake(arguments: list[str | Path]) -> tuple[float, str]:
    """Run Snakemake; give the seconds it took and what it said."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return seconds, done.stdout + done.stderr


def read_jobs(report: str) -> list[tuple[str, dict[str, list[str]]]]:
    """Rule and files, by kind, of each job that a dry run prints."""
    jobs = []
    for part in re.split(r"\n(?=(?:local)?rule \w+:\n)", report):
        if name := JOB.match(part):
            files = {kind: names.split(", ") for kind, names in FILES.findall(part)}
            jobs.append((name.group(1), files))
    return jobs


def floor(jobs: list[tuple[str, dict[str, list[str]]]]) -> str:
    """A Snakefile of the same jobs: file number k of job i of a rule is called rule/i/k."""
    by_rule: dict[str, list[dict[str, list[str]]]] = {}
    for rule, files in jobs:
        by_rule.setdefault(rule, []).append(files)
    new = {
        name: f"{rule}/{i}/{k}"
        for rule, many in by_rule.items()
        for i, files in enumerate(many)
        for k, name in enumerate(files.get("output", []))
    }
    (everything,) = by_rule.pop("all")
    lines = [f"rule all:\n    input: {[new[name] for name in everything['input']]!r}"]
    for rule, many in by_rule.items():
        inputs = [[new[name] for name in files.get("input", [])] for files in many]
        outputs = [f"{rule}/{{i}}/{k}" for k in range(len(many[0]["output"]))]
        lines += [
            f"INPUTS_{rule} = {inputs!r}",
            f"rule {rule}:",
            f"    input: lambda wildcards: INPUTS_{rule}[int(wildcards.i)]",
            f"    output: {outputs!r}",
            f'    log: "{rule}/{{i}}/log"',
            f'    benchmark: "{rule}/{{i}}/benchmark"',
            '    shell: "touch {output}"',
        ]
    return "\n".join(lines) + "\n"


def measure(workflows: dict[str, list[str | Path]], what: str, forget: Path | None = None) -> bool:
    """Time a dry run of both, print it, and say whether the workflow is within the limit.

    `forget` is a folder that is removed before each, if it is there: then each is a first start.
    """
    times = {name: [] for name in workflows}
    for _ in range(3):
        for name, arguments in workflows.items():
            if forget:
                shutil.rmtree(forget, ignore_errors=True)
            times[name].append(snakemake([*arguments, "--dry-run", "--quiet"])[0])
    ours, least = min(times["ours"]), min(times["floor"])
    allowed = RATIO * least + SECONDS + (COUNTING if forget else 0)
    print(f"{what:12}  {ours:8.2f} s  {least:6.2f} s  {ours / least:5.2f}  {allowed:8.2f} s")
    return ours <= allowed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configuration", type=Path, default=ROOT / "config/paper.yaml")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here, there = Path(folder, "ours"), Path(folder, "floor")
        here.mkdir()
        there.mkdir()
        (here / "seeds.yaml").write_text(f"seeds: {list(range(settings.seeds))}\n")
        ours = ["--snakefile", ROOT / "workflow/Snakefile", "--directory", here, "--configfile"]
        ours += [settings.configuration.resolve(), here / "seeds.yaml"]
        jobs = read_jobs(snakemake([*ours, "--dry-run"])[1])
        (there / "Snakefile").write_text(floor(jobs))
        workflows = {"ours": ours, "floor": ["-s", there / "Snakefile", "--directory", there]}
        print(f"{len(jobs)} jobs       workflow    floor  ratio     allowed")
        good = measure(workflows, "first start", here / ".snakemake")
        good &= measure(workflows, "dry run")
        for directory, arguments in ((here, workflows["ours"]), (there, workflows["floor"])):
            for _, files in read_jobs(snakemake([*arguments, "--dry-run"])[1]):
                for name in files.get("output", []):
                    (directory / name).parent.mkdir(parents=True, exist_ok=True)
                    (directory / name).touch()
            snakemake([*arguments, "--touch"])
            said = snakemake([*arguments, "--dry-run"])[1]
            assert "Nothing to be done" in said, said
        good &= measure(workflows, "up to date")
    sys.exit(not good)


if __name__ == "__main__":
    main()
