"""Cards are shared out among real processes; only the list of cards is made up."""

import os
import platform
import subprocess
import sys
import uuid

import pytest
import torch

from mg.errors import UserError
from mg.training import cards, device

# A job: claims one of the cards on its command line, prints its place, works until it is stopped.
JOB = """
import sys
from mg.training import cards
print(cards.claim([(card, int(used)) for card, used in
                   (argument.split("=") for argument in sys.argv[1:])]), flush=True)
sys.stdin.read()
"""
JOB_AS_USER = JOB.replace(
    "print(", "import os; os.umask(0o077); os.setgroups([]); os.setuid({user})\nprint("
)
MIG_JOB = """
import os, sys
from mg.training import cards
cards.narrow_to_one_mig_instance()
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start():
    """Starts jobs at the same time; ends them after the test."""
    jobs = []

    def start(script: str, *arguments: str, number: int = 1, **options) -> list[subprocess.Popen]:
        started = [
            subprocess.Popen(
                [sys.executable, "-c", script, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                **options,
            )
            for _ in range(number)
        ]
        jobs.extend(started)
        return started

    yield start
    for job in jobs:
        job.kill()
        job.communicate()


def said(jobs: list[subprocess.Popen]) -> list[str]:
    return sorted(job.stdout.readline().strip() for job in jobs)


@pytest.fixture
def three() -> list[str]:
    """Three cards that no other test has, nothing of their memory in use."""
    return [f"{uuid.uuid4()}=0" for _ in range(3)]


def test_as_many_jobs_as_cards_take_one_each(start, three):
    assert said(start(JOB, *three, number=3)) == ["0", "1", "2"]


def test_more_jobs_than_cards_share_them_evenly(start, three):
    assert said(start(JOB, *three, number=3)) == ["0", "1", "2"]
    assert said(start(JOB, *three, number=3)) == ["0", "1", "2"]


def test_a_killed_job_leaves_its_card_free(start, three):
    first, *_ = start(JOB, *three, number=1)
    assert said([first]) == ["0"]
    first.kill()
    first.wait()
    assert said(start(JOB, *three)) == ["0"]


def test_a_job_that_sees_some_of_the_cards_takes_one_of_those(start, three):
    """As CUDA_VISIBLE_DEVICES=1,2 would have it: a card is known by its UUID, not by its number."""
    assert said(start(JOB, *three[1:])) == ["0"]  # the second card
    assert said(start(JOB, *three, number=2)) == ["0", "2"]


def test_the_card_with_most_memory_left_is_taken_first(start, three):
    used = [card.replace("=0", f"={mib}") for card, mib in zip(three, (9000, 20, 10), strict=True)]
    for expected in "2", "1", "0":
        assert said(start(JOB, *used)) == [expected]


def test_processes_of_one_team_never_share_a_card_with_one_another(start, three):
    """Although their own cards are the emptiest, once every card has another job."""
    busy, free = three[0].replace("=0", "=9000"), three[1]
    assert said(start(JOB, busy)) == ["0"]
    for port in "29500", "29501":  # of torchrun, which names no team by itself
        team = os.environ | {"TORCHELASTIC_RUN_ID": "none", "MASTER_PORT": port}
        assert said(start(JOB, busy, free, number=2, env=team)) == ["0", "1"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a job as another user")
@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("no kernel image is available for execution on the device\nmore", "install a build"),
        ("CUDA-capable device(s) is/are busy or unavailable", "see what holds it"),
    ],
)
def test_a_card_that_cannot_compute_is_an_error_in_one_line(monkeypatch, said, advice):
    def fail(*_, **__):
        raise RuntimeError(f"CUDA error: {said}")

    monkeypatch.setattr(torch.cuda, "set_device", fail)
    with pytest.raises(UserError, match=advice) as error:
        device._use(torch.device("cuda:0"))
    assert "\n" not in str(error.value) and "cuda:0 cannot be used (CUDA error: " in str(
        error.value
    )


def test_users_respect_each_other(start, three, tmp_path):
    """Each with a folder for temporary files and a umask of their own."""
    folders = [tmp_path / "one", tmp_path / "other"]
    took = []
    for user, folder in zip((0, 65534), folders, strict=True):
        folder.mkdir()
        environment = os.environ | {"TMPDIR": str(folder)}
        took += said(start(JOB_AS_USER.format(user=user), *three, env=environment))
    assert took == ["0", "1"]


def test_mig_instances_are_claimed_by_their_names(start):
    """CUDA shows a process only the first instance of its list, so the list is cut to one."""
    names = [f"MIG-{uuid.uuid4()}" for _ in range(2)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(names)}
    assert said(start(MIG_JOB, env=environment, number=2)) == sorted(names)


def test_memory_in_use_is_read_from_the_drivers_tool(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf 'GPU-5e1f, 1024\\nGPU-77aa, 3\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert cards.memory_in_use() == {"5e1f": 1024, "77aa": 3}
    tool.write_text("#!/bin/sh\necho 'GPU-5e1f, [N/A]'\n")
    assert cards.memory_in_use() == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_card_auto_is_the_processor_and_the_rest_is_refused():
    assert device.choose_device("auto") == torch.device("cpu")
    for request in ("cuda", "cuda:0", "gpu", "cuda:x"):
        with pytest.raises(UserError, match="cpu"):
            device.choose_device(request)


STEPS = """
import resource, sys
import torch
from mg.training.device import configure_torch

if sys.argv[1:]:
    configure_torch(int(sys.argv[1]))
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**24)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, torch.get_num_threads())
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="PyTorch can use the card here")
def test_a_card_that_pytorch_cannot_use_is_told_of(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(device, "CARD_FILES", str(tmp_path / "nvidia[0-9]*"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    device.choose_device("auto")
    assert capsys.readouterr().err == ""
    (tmp_path / "nvidia0").touch()
    assert device.choose_device("auto") == torch.device("cpu")
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is an NVIDIA card, but PyTorch" in line and "--device cuda" in line
    device.choose_device("cpu")
    for hidden in "", "-1", "NoDevFiles":
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        device.choose_device("auto")
    assert capsys.readouterr().err == ""


PRODUCTS = """
import torch
from mg.training.device import denormals_as_zero

def products():
    small = torch.full((1024, 1024), 1e-30)  # every thread has a part of it
    return (small * 1e-10).count_nonzero().item(), (small @ (1e-10 * torch.eye(1024))).max().item()

torch.set_num_threads(4)
with denormals_as_zero():
    print(*products())
torch.set_num_threads(1)
print(*products())
"""


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot flush them")
def test_denormal_numbers_are_zero_in_every_thread():
    command = [sys.executable, "-c", PRODUCTS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    within, after = done.stdout.splitlines()
    assert [float(word) for word in within.split()] == [0, 0]
    number, largest = after.split()
    assert int(number) == 2**20 and 0.9e-40 < float(largest) < 1.1e-40


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told")
def test_the_processor_reuses_the_memory_of_tensors_that_are_gone():
    def faults_and_threads(*arguments):
        command = [sys.executable, "-c", STEPS, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [int(word) for word in done.stdout.split()]

    kept, threads = faults_and_threads("1")
    assert threads == 1
    # Ten times 64 MiB in pages of 4 KiB are 163,840 faults; in huge pages of 2 MiB, 320.
    assert kept < 100
    assert faults_and_threads()[0] > 300
