# What the rules share: the checked configuration, names of files, and what decides a re-run.
import functools
import glob
import hashlib
import json
import os
import re
import shlex
import sys
import zlib
from pathlib import Path

import yaml
import configuration  # beside the Snakefile, which makes it known
from configuration import family
from hashes import code, code_of_data, code_of_digit_archive, code_of_images, code_of_training
from hashes import evaluated_by, mapped_by, shown_by
from snakemake.settings.types import DeploymentMethod

# The checkout that this file is of, also where it is a module of another workflow.
ROOT = Path(workflow.current_basedir).parents[1]


def placed(path, modify=workflow.modifier.path_modifier.replace_prefix):
    """Where Snakemake puts a path, for what reads it by itself: below the prefix of a module."""
    return modify(path)


# Jobs have the dependencies of the package, but this process only where it runs them itself.
DEPLOYED = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
COSTS = None  # of networks, where nobody was asked
try:
    configuration.check_files(workflow.configfiles)
    configuration.type_values(config, workflow.config_settings.config)
    configuration.check(config)
    if workflow.is_main_process:
        configuration.check_own_images(config, placed("results"))
    if not DEPLOYED:
        COSTS = configuration.check_with_package(
            config, sys.executable, Path(".snakemake", "checked-configurations")
        )
except configuration.Mistake as mistake:
    sys.exit(f"configuration: {mistake}")  # one line; Snakemake's own errors have several

RESULTS = f"results/{config['run']}"
LOGS = f"{RESULTS}/logs"
BENCHMARKS = f"{RESULTS}/benchmarks"
TASKS, NETWORKS, SEEDS = config["tasks"], config["networks"], config["seeds"]
PIXELS = [task for task in configuration.TASKS if family(task) == "mnist"]
CLASSIFICATION = [task for task in configuration.TASKS if task not in PIXELS]
PIXEL_TASKS = [task for task in TASKS if task in PIXELS]
CLASS_TASKS = [task for task in TASKS if task in CLASSIFICATION]
SPATIAL_TASKS = [task for task in PIXEL_TASKS if task != "segmentation"]
MODEL = f"{RESULTS}/models/{{task}}/{{network}}/seed{{seed}}"


wildcard_constraints:
    task="|".join(TASKS),
    split="train|valid|test",
    network="|".join(map(re.escape, config["architectures"])),
    seed=r"\d+",


# Jobs call the `mg` of this checkout: with the Python that runs Snakemake, activated or not, or with
# that of their own environment under --sdm conda.
OWN_PYTHON = shlex.quote(str(Path(sys.executable).parent))
shell.prefix(
    "set -euo pipefail; "
    + ("" if DEPLOYED else f"export PATH={OWN_PYTHON}:$PATH; ")
    # Of this checkout also where another stands in the current folder.
    + "export PYTHONSAFEPATH=1; "
    + f"export PYTHONPATH={shlex.quote(str(ROOT))}${{{{PYTHONPATH:+:$PYTHONPATH}}}}; "
    + 'mg() {{ exec python -m mg "$@"; }}; '
)


CARDS = glob.glob(os.path.join(os.sep, "dev", "nvidia[0-9]*"))


def gpus():
    """Number of NVIDIA cards that jobs on this machine may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([card for card in visible.split(",") if card.strip() not in ("", "-1")])
    return len(CARDS)


def architecture(network):
    """The package's network and its options for a name of the configuration."""
    entry = config["architectures"][network]
    return entry["network"], json.dumps(entry["options"], sort_keys=True)


def task_option(task, option, key=None):
    """A task's data setting as arguments of `mg generate`; none where it is the paper's."""
    value = config["data"]["tasks"].get(task, {}).get(key or option)
    if value is None:
        return []
    return [f"--{option}", *(value if isinstance(value, list) else [value])]


def training(task, key):
    """A setting of the task's training."""
    return config["training"]["tasks"][task][key]


def batch_parts(task, network):
    """In how many parts a network's batches are computed; variants as what they are variants of."""
    parts = training(task, "accumulate")
    return parts.get(network, parts.get(architecture(network)[0], 1))


def train_files(wildcards):
    """The data sets that a task is trained on."""
    splits = ["train", "valid"] if training(wildcards.task, "include_valid") else ["train"]
    return [f"{RESULTS}/data/{wildcards.task}/{split}.h5" for split in splits]


def cifar_sources(wildcards, input):
    """Where `mg fetch` looks for CIFAR's archive."""
    return [f"mnist:{Path(input[0]).parent}"] if input else config["cifar"]["sources"]


# CIFAR's archives are not fetched but written from MNIST's digits.
DIGITS = config["cifar"]["sources"] == ["mnist"]
SAY_DIGITS = ["--mnist-digits"] if DIGITS else []  # in titles


@functools.cache
def own_files(family):
    """Hash of the digits or archives that users supply as they are: others make other data sets.

    Those of a known source are the same for ever.
    """
    settings = config[family]
    if settings.get("sources") != ["as-is"]:
        return None
    files = {"mnist": "*-ubyte", "cifar": "*-python.tar.gz"}[family]
    contents = hashlib.sha256()
    for path in sorted(Path(placed(settings["directory"])).glob(files)):
        with open(path, "rb") as file:
            contents.update(hashlib.file_digest(file, "sha256").digest())
    return contents.hexdigest()[:16]


@functools.cache
def own_images(task, *splits):
    """Checksums of images that users supply: others are noticed however old their file is."""
    if config["data"]["mode"] != "own" or family(task) != "mnist":
        return None
    data = Path(placed(RESULTS), "data", task)
    return [configuration.checksums(data / f"{split}.h5") for split in splits]


def of_photographs(task, key):
    """A setting of ImageNet as an argument; none of other tasks, whose data do not depend on it."""
    return [f"--{key}", config["imagenet"][key]] if family(task) == "imagenet" else []


def image_source(wildcards):
    """What must be there before a split of images is made; of ImageNet, what the user put there."""
    if family(wildcards.task) == "imagenet":
        return []
    return f"{config['cifar']['directory']}/{wildcards.task}.verified.json"


def valid_file(wildcards):
    """The data set that progress is measured on; none where it is trained on."""
    if training(wildcards.task, "include_valid"):
        return []
    return f"{RESULTS}/data/{wildcards.task}/valid.h5"


def of_models(name, tasks=TASKS, networks=NETWORKS, seeds=SEEDS):
    """The file `name` of every trained model."""
    return expand(f"{MODEL}/{name}", task=tasks, network=networks, seed=seeds)


# ------------------------------------------------------------------------ tables and figures

# One table of results per group of tasks, as in the paper.
GROUPS = {
    group: tasks
    for group, tasks in (
        ("segmentation", [task for task in TASKS if task == "segmentation"]),
        ("spatial_transformation", SPATIAL_TASKS),
    )
    if tasks
}
SALIENCY_TASKS = [task for task in config["saliency"]["tasks"] if task in SPATIAL_TASKS]
PAGE = ["report/templates/page.html", "report/templates/table.html"]
TABLE_ENDINGS = ("html", "md", "tex", "csv")
TABLE = [*PAGE, "report/templates/tables.html", "report/published.csv"]
# What the tables of networks count; the registry imports them by name.
BUILDERS = [f"networks/{name}" for name in ("mnist.py", "cifar.py", "imagenet.py")]


wildcard_constraints:
    group="segmentation|spatial_transformation",


def saliency_of(tasks, seeds=SEEDS):
    """The saliency maps of the networks that are asked for."""
    networks = [network for network in config["saliency"]["networks"] if network in NETWORKS]
    return of_models("saliency.h5", tasks=tasks, networks=networks, seeds=seeds)


SALIENCY = saliency_of(SALIENCY_TASKS)


def table_files(name, caption, category, *more):
    """The files of a table; the HTML page goes into the report."""
    prefix = f"{RESULTS}/tables/{name}"
    endings = [end if end.startswith("_") else f".{end}" for end in ("md", "tex", *more)]
    page = page_file(f"tables/{name}", caption, category, f"table: {name.replace('_', ' ')}")
    return [page, *(prefix + end for end in endings)]


def figure_files(name, category, label):
    """The files of a figure; the SVG goes into the report."""
    prefix = f"{RESULTS}/figures/{name}"
    drawing = report(
        f"{prefix}.svg",
        caption=f"../report/{name.split('_{')[0]}.rst",
        category=category,
        labels={"what": label},
    )
    return [drawing, f"{prefix}.png"]


def page_file(name, caption, category, label):
    """A page of the report."""
    return report(
        f"{RESULTS}/{name}.html",
        caption=f"../report/{caption}.rst",
        category=category,
        labels={"what": label},
    )


def stem(wildcards, output):
    """The first output without its suffix: what `mg table` and `mg figure` add suffixes to."""
    return os.path.splitext(output[0])[0]


def resolved_configuration():
    """The configuration of this run with every default, as YAML; its checksum in a comment."""
    text = yaml.safe_dump(json.loads(json.dumps(config)), sort_keys=False)
    return f"{text}# crc32: {zlib.crc32(text.encode()):08x}\n"


def results():
    """Tables and figures that this configuration asks for, in every form."""
    tables, figures = list(GROUPS), ["learning_curves"]
    if CLASS_TASKS:
        tables += ["classification"]
    if PIXEL_TASKS:
        tables += ["networks", "claims"]
        figures += ["examples", "cost", "receptive_fields"]
    if "segmentation" in TASKS:
        figures += ["segmentation", "classes"]
    if SPATIAL_TASKS:
        figures += ["spatial"]
    if SALIENCY:
        figures += [f"saliency_{task}" for task in SALIENCY_TASKS]
    aggregated = [name for name in tables if name not in ("networks", "claims")]
    return [
        *expand(f"{RESULTS}/tables/{{name}}.{{end}}", name=tables, end=TABLE_ENDINGS),
        *expand(f"{RESULTS}/tables/{{name}}_aggregated.csv", name=aggregated),
        *expand(f"{RESULTS}/figures/{{name}}.{{end}}", name=figures, end=("svg", "png")),
    ]


def explorer():
    """The page to explore answers; there is none of classifiers."""
    return [f"{RESULTS}/explorer.html"] if PIXEL_TASKS else []


def main_figure():
    """What the overview shows: outputs, which need no explanation; of classifiers, their curves."""
    others = "segmentation" if PIXEL_TASKS else "learning_curves"
    return f"{RESULTS}/figures/{'spatial' if SPATIAL_TASKS else others}.svg"


def explain_signals(logs):
    """Say what a job that was killed has most likely died of; Snakemake only names the signal."""
    text = "".join(Path(log).read_text(errors="replace") for log in logs)
    died = re.findall(
        r"Command '.*? mg (\w+) .*died with <Signals\.(SIG(?:KILL|SEGV|ABRT|BUS)):", text
    )
    for command, name in sorted(set(died)):
        print(
            f"mg {command} was killed by {name}: most likely memory ran out. Run fewer jobs at a time"
            " (--cores 1), or where there is more; the same command goes on.",
            file=sys.stderr,
        )


def targets():
    """Everything that this configuration asks for, but data: it need not be kept.

    Models too, though tables follow from them: Snakemake makes nothing again that is missing on the
    way to what is there.
    """
    pages = [f"{RESULTS}/{name}.html" for name in ("overview", "run")]
    resources = expand(f"{RESULTS}/tables/resources.{{end}}", end=TABLE_ENDINGS)
    kept = ("model.pt", "history.csv", "run.json", "metrics.json", "predictions.h5")
    models = [path for name in kept for path in of_models(name)]
    return [*pages, *explorer(), *resources, *results(), *models, *SALIENCY]
