"""Records with any entry lacking or of another kind: read, or refused in one line that names it."""

import copy
import json
import shutil

import pytest
import yaml

from mg.errors import UserError
from mg.evaluation.evaluate import evaluate
from mg.report import compare, pages
from mg.report.figures.reading import read_history
from mg.report.tables import claims, classification, networks, resources, results

LACKING = object()
WRONG = [LACKING, None, "x", 3, 10**400, [], ["x"], {}]


def places(value, at=()):
    """Of all entries and items, at any depth; the value itself first."""
    yield at
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*at, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from places(value[index], (*at, index))


def changed(value, at, wrong):
    value = copy.deepcopy(value)
    holder = value
    for key in at[:-1]:
        holder = holder[key]
    if wrong is LACKING:
        del holder[at[-1]]
    else:
        holder[at[-1]] = wrong
    return value


READERS = {
    "run.json": {
        "evaluate": lambda run, out: evaluate(
            run / "model.pt", run / "test.h5", metrics_path=out / "m.json"
        ),
        "history": lambda run, out: read_history(run / "history.csv"),
        "resources": lambda run, out: resources.write_resources_table(
            out / "benchmarks", [run / "run.json"], prefix=out / "t"
        ),
        "page": lambda run, out: pages.write_run_page(
            run.parents[3] / "configuration.yaml", [run / "run.json"], out / "r.html"
        ),
    },
    "metrics.json": {
        "results": lambda run, out: results.write_results_table(
            "translation", [run / "metrics.json"], prefix=out / "t"
        ),
        "networks": lambda run, out: networks.write_network_table(
            networks.run_rows([run / "metrics.json"]), prefix=out / "t"
        ),
        "claims": lambda run, out: claims.write_claims_table(
            [run / "metrics.json"], prefix=out / "t"
        ),
        "classes": lambda run, out: classification.write_classification_table(
            [run / "metrics.json"], prefix=out / "t", tasks=["cifar10"]
        ),
        "overview": lambda run, out: pages.write_overview([run / "metrics.json"], out / "o.html"),
        "compare": lambda run, out: compare.report(run.parents[3], out / "sound"),
    },
}
OF_CLASSES = [
    ("run.json", "page"),
    *(("metrics.json", r) for r in ("classes", "overview", "compare")),
]
CASES = [
    *(("whole", name, r) for name, readers in READERS.items() for r in readers if r != "classes"),
    *(("classified", *case) for case in OF_CLASSES),
]


@pytest.fixture(autouse=True)
def no_packages(monkeypatch):
    """To list them takes long."""
    monkeypatch.setattr("importlib.metadata.distributions", lambda: [])


@pytest.mark.parametrize("kind,name,reader", CASES)
def test_any_entry_may_lack_or_be_wrong(request, tmp_path, kind, name, reader):
    whole = request.getfixturevalue(kind)
    run = tmp_path / "copy" / whole.relative_to(whole.parents[3])
    shutil.copytree(whole.parents[3], tmp_path / "copy")
    (tmp_path / "sound").symlink_to(whole.parents[3])
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/train.tsv").write_text("s\tcpu_time\tmax_rss\n1\t1\t9\n")
    sound = json.loads((run / name).read_text())
    del sound["crc32"]  # as in a file edited by hand
    refused = 0
    for at in places(sound):
        for wrong in WRONG if at else ():
            (run / name).write_text(json.dumps(changed(sound, at, wrong)))
            try:
                READERS[name][reader](run, tmp_path)
            except UserError as error:
                (line,) = str(error).splitlines()
                assert name in line or "no network" in line  # 'x', or of one task in common
                refused += 1
    assert refused
    (run / name).write_text(json.dumps(sound))
    READERS[name][reader](run, tmp_path)


@pytest.mark.parametrize("reader", ["page", "compare"])
def test_a_configuration_may_lack_anything(whole, tmp_path, reader):
    """It has a checksum: without it, as after a change by hand, what is read is looked at."""
    run = tmp_path / "copy" / whole.relative_to(whole.parents[3])
    shutil.copytree(whole.parents[3], tmp_path / "copy")
    (tmp_path / "sound").symlink_to(whole.parents[3])
    path = tmp_path / "copy/configuration.yaml"
    read = (READERS["run.json"] | READERS["metrics.json"])[reader]
    sound = yaml.safe_load(path.read_text())
    refused = set()
    for at in places(sound):
        for wrong in WRONG if at else ():
            path.write_text(yaml.safe_dump(changed(sound, at, wrong), sort_keys=False))
            try:
                read(run, tmp_path)
            except UserError as error:
                assert str(path) in str(error) and "\n" not in str(error)
                refused.add(at[0])
    assert refused == set(sound)
    path.write_text(yaml.safe_dump(sound))
    read(run, tmp_path)
