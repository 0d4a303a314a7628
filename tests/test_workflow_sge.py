"""The scripts of the profile for SGE, beside commands that answer as SGE 8.1.9 does."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

PROFILE = Path(__file__).parent.parent / "workflow/profiles/sge"
KNOWN = "job_number:                 7\nowner:                      ann\n"
NOT_STARTED = (
    KNOWN + "error reason          1:      11/27/2026 15:27:39 [1000:9941]: error: can't open"
    ' output file "/nonexistent/": No such file or directory\n'
)
UNKNOWN = "Following jobs do not exist: \n7\n"
UNREACHABLE = "error: commlib error: got select error (Connection refused)\n"
NO_RECORD = "error: job id 7 not found\n"
LIMIT = "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit"


def record(failed: str, status: str) -> str:
    """What qacct says of a job, shortened."""
    return (
        "==============================================================\n"
        "qname        all.q               \njobnumber    7                   \n"
        f"failed       {failed}\nexit_status  {status}                   \nru_wallclock 64s\n"
    )


@pytest.fixture
def status(tmp_path):
    """Asks status.sh about job 7, beside SGE's commands with given exit status and words."""
    (tmp_path / ".snakemake/sge_logs").mkdir(parents=True)

    def ask(qstat: tuple[int, str], qacct: tuple[int, str] = (1, NO_RECORD)) -> str:
        commands = {"qstat": qstat, "qacct": qacct, "qdel": (0, "")}
        (tmp_path / "bin").mkdir(exist_ok=True)
        for name, (code, words) in commands.items():
            (tmp_path / f"{name}.txt").write_text(words)
            script = (
                f'#!/bin/sh\necho {name} "$@" >> called\ncat {name}.txt >&$((1 + ({code} > 0)))\n'
            )
            (tmp_path / "bin" / name).write_text(f"{script}exit {code}\n")
            (tmp_path / "bin" / name).chmod(0o755)
        done = subprocess.run(
            [PROFILE / "status.sh", "7"],
            cwd=tmp_path,
            env=os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    return ask


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(0, KNOWN)], "running"),
        ([(1, UNREACHABLE)], "running"),
        ([(1, UNKNOWN), (0, record("0", "0"))], "success"),
        ([(1, UNKNOWN), (0, record("0", "1"))], "failed"),
        ([(1, UNKNOWN), (0, record(LIMIT, "137"))], "failed"),
        ([(1, UNKNOWN), (0, record("26  : opening input/output file", "0"))], "failed"),
        ([(1, UNKNOWN), (0, record("25  : rescheduling", "137") + record("0", "0"))], "success"),
    ],
)
def test_a_job_is_what_sge_says(status, answers, expected):
    assert status(*answers) == expected


def test_a_job_that_could_not_be_started_is_given_up(status, tmp_path):
    assert status((0, NOT_STARTED)) == "failed"
    assert "qdel 7\n" in (tmp_path / "called").read_text()


def test_a_job_of_which_no_record_comes_was_deleted_before_it_began(status, tmp_path):
    assert status((1, UNKNOWN)) == status((1, UNKNOWN)) == "running"
    [mark] = (tmp_path / ".snakemake/sge_logs").iterdir()
    long_ago = time.time() - 150
    os.utime(mark, (long_ago, long_ago))
    assert status((1, UNKNOWN)) == "failed"
    assert not mark.exists()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_warning_ends_the_step_alone_and_those_around_wait_for_it(tmp_path, number):
    step = (
        f"import signal, time; signal.signal({int(number)}, lambda *_: exit(5));"
        " print('ready', flush=True); time.sleep(60)"
    )
    script = (PROFILE / "jobscript.sh").read_text()
    content = script.format(
        properties="{}", exec_job=f"{sys.executable} -c {step!r}; echo the step said $?"
    )
    (tmp_path / "job").write_text(content)
    job = subprocess.Popen(
        ["bash", tmp_path / "job"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert job.stdout.readline() == "ready\n"
    os.killpg(job.pid, number)
    assert job.communicate(timeout=60)[0] == "the step said 5\n"


def test_time_and_memory_become_options_of_qsub():
    profile = yaml.safe_load((PROFILE / "profile.yaml").read_text())
    resources = SimpleNamespace(runtime=90, mem_mb=4003, sge_extra="-l gpu=1")
    command = profile["cluster-generic-submit-cmd"].format(rule="train", resources=resources)
    assert re.findall(r"-l \S+", command) == ["-l h_rt=0:90:0", "-l mem_free=4003M", "-l gpu=1"]
    for name in ("cluster-generic-status-cmd", "jobscript"):
        assert (PROFILE / profile[name]).exists()  # Snakemake looks for them there
