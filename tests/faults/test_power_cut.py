"""A power cut at any moment: what a step does to its files is recorded, and every state that a disk
may be left in is looked at.

The system calls of a real `mg` are recorded with strace. What was written to a file and not synced
may be lost; so may every change of a folder (a new name, a rename, a removal) since that folder was
synced, each on its own. At every moment, every file under its final name must be whole: all that
was ever written to it.
"""

import itertools
import re
import shutil
import subprocess

import pytest
from processes import command, evaluate, saliency, train

CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)")
CALLS = (
    "openat,creat,write,pwrite64,writev,ftruncate,fsync,fdatasync,close,rename,renameat,renameat2,"
    "unlink,unlinkat,sendfile,copy_file_range,dup,dup2,dup3"
)


def recorded(arguments, folder):
    """What happens to the files of a folder: ("write", file), ("sync", file), ("name", path, file),
    ("rename", old, new), ("remove", path), ("sync folder", path), in order."""
    log = folder / "strace.log"
    subprocess.run(
        ["strace", "-f", "-y", "-s", "0", "-o", log, "-e", f"trace={CALLS}", *command(*arguments)],
        check=True,
        capture_output=True,
    )
    opened = re.compile(r'(?:AT_FDCWD(?:<[^>]*>)?, )?"([^"]*)"')
    for line in log.read_text().splitlines():
        call = CALL.match(line)
        if not call or int(call[3]) < 0:
            assert "unfinished" not in line or str(folder) not in line, line
            continue
        name, text, _ = call.groups()
        if str(folder) not in text:
            continue
        paths = opened.findall(text)
        file = re.match(r"\d+<([^>]*)>", text)
        if name in ("openat", "creat") and ("O_CREAT" in text or "O_TRUNC" in text):
            yield ("create", paths[0])
        elif name in ("write", "pwrite64", "writev", "ftruncate", "sendfile", "copy_file_range"):
            yield ("write", file[1])
        elif name in ("fsync", "fdatasync"):
            yield ("sync", file[1])
        elif name.startswith("rename"):
            yield ("rename", paths[0], paths[1])
        elif name.startswith("unlink"):
            yield ("remove", paths[0])


class Disk:
    """What is surely on a disk, and what may be."""

    def __init__(self):
        self.names = {}  # path -> file, as programs see it
        self.durable = {}  # path -> file, as it was when its folder was last synced
        self.pending = []  # changes of folders since then: (path, file or None)
        self.written, self.synced = {}, {}  # file -> number of writes; of those synced
        self.files = itertools.count()

    def change(self, path, file):
        self.pending.append((path, file))
        self.names[path] = file
        if file is None:
            del self.names[path]

    def do(self, event):
        kind, path, *more = event
        if kind == "create" and path not in self.names:
            file = next(self.files)
            self.written[file] = self.synced[file] = 0
            self.change(path, file)
        elif kind == "create":  # truncated
            self.written[self.names[path]] += 1
        elif kind == "write" and path in self.names:
            self.written[self.names[path]] += 1
        elif kind == "sync" and path in self.names:
            self.synced[self.names[path]] = self.written[self.names[path]]
        elif kind == "sync":  # a folder
            kept = []
            for change in self.pending:
                if change[0].rpartition("/")[0] != path:
                    kept.append(change)
                elif change[1] is None:
                    self.durable.pop(change[0], None)
                else:
                    self.durable[change[0]] = change[1]
            self.pending = kept
        elif kind == "rename" and path in self.names:
            file = self.names[path]
            self.change(more[0], file)
            self.change(path, None)
        elif kind == "remove" and path in self.names:
            self.change(path, None)

    def after_a_cut(self):
        """Every file that a name may stand for after a cut now: what is durable, or any change."""
        yield from self.durable.items()
        yield from ((path, file) for path, file in self.pending if file is not None)


STEPS = {
    "train": lambda run, out: train(
        out, run / "train.h5", "--valid", run / "test.h5", "--checkpoint-seconds", "0"
    ),
    "evaluate": lambda run, out: evaluate(out),
    "saliency": lambda run, out: saliency(out),
    "table": lambda run, out: [
        *("table", "claims", "--metrics", run / "metrics.json", "--output", out / "claims"),
    ],
    "figure": lambda run, out: [
        *("figure", "curves", "--history", run / "history.csv", "--output", out / "curves"),
    ],
    "page": lambda run, out: [
        *("page", "overview", "--metrics", run / "metrics.json", "--output", out / "o.html"),
    ],
    "generate": lambda mnist, out: [
        *("generate", "--task", "translation", "--split", "test", "--count", "50"),
        *("--mnist", mnist, "--output", out / "made.h5"),
    ],
    "fetch": lambda run, out: [
        *("fetch", "--source", run, "--output", out / "mnist", "--record", out / "mnist/v.json"),
    ],
}
MADE = {
    "train": ["model.pt", "history.csv", "run.json", "checkpoint.pt", "checkpoint-previous.pt"],
    "evaluate": ["metrics.json", "predictions.h5"],
    "saliency": ["saliency.h5"],
    "table": ["claims.csv", "claims.md", "claims.tex", "claims.html"],
    "figure": ["curves.png", "curves.svg"],
    "page": ["o.html"],
    "generate": ["made.h5"],
    "fetch": ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte", "v.json"],
}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("step", STEPS)
def test_after_a_power_cut_every_file_is_whole_or_absent(step, whole, mnist_directory, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    source = mnist_directory if step in ("fetch", "generate") else whole
    events = list(recorded(STEPS[step](source, out), tmp_path))
    ends = Disk()
    for event in events:
        ends.do(event)
    disk, looked_at, seen = Disk(), 0, set()
    for event in events:
        disk.do(event)
        for path, file in disk.after_a_cut():
            name = path.rpartition("/")[2]
            if name in MADE[step]:
                seen.add(name)
                looked_at += 1
                whole_now = disk.synced[file] == ends.written[file]
                assert whole_now, f"{path} may be cut after {event}"
    assert seen == set(MADE[step]) and looked_at > len(seen)
