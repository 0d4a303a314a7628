"""The shipped configurations, their schema and their documentation say the same."""

import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from jsonschema import Draft202012Validator
from snakemake.cli import parse_config
from snakemake.utils import update_config, validate

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "workflow"))
import configuration  # noqa: E402

SCHEMA = configuration.SCHEMA
CONFIGURATIONS = sorted((ROOT / "config").glob("*.yaml"))


def resolve(node):
    """The node with what its $ref points to."""
    if "$ref" in node:
        return {**SCHEMA["$defs"][node["$ref"].rsplit("/", 1)[1]], **node}
    return node


def keys(node=SCHEMA, path=""):
    """(dotted key, description, default) of every key of the schema."""
    node = resolve(node)
    for name, child in node.get("properties", {}).items():
        child = resolve(child)
        key = f"{path}{name}"
        yield key, child["description"], child.get("default")
        yield from keys(child, f"{key}.")
    more = node.get("additionalProperties")
    if isinstance(more, dict):
        yield from keys(more, f"{path}<name>.")


def documentation() -> str:
    """The table of keys in config/README.md."""
    lines = ["| key | meaning | default |", "|---|---|---|"]
    for key, description, default in keys():
        shown = "" if default in (None, {}) else f"`{yaml_text(default)}`"
        lines.append(f"| `{key}` | {description} | {shown} |")
    return "\n".join(lines)


def yaml_text(value) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def merged(*paths):
    """What Snakemake makes of several --configfile: mappings merged, everything else replaced."""

    def lay(over, under):
        if isinstance(over, dict) and isinstance(under, dict):
            return {key: lay(over.get(key, under.get(key)), under.get(key)) for key in under | over}
        return over

    result = {}
    for path in paths:
        result = lay(yaml.safe_load(path.read_text()), result)
    return result


def test_files_are_laid_over_one_another_as_snakemake_does(tmp_path):
    """Also where an alias of YAML gives several tasks the same amount: one changes alone."""
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "training: {tasks: {translation: {batch: 7}}}\ndata: {tasks: {scaling: {test: 3}}}"
    )
    default = ROOT / "config/config.yaml"
    assert configuration.load([default, mine]) == merged(default, mine)


def test_every_key_is_documented_as_in_the_schema():
    assert documentation() in (ROOT / "config/README.md").read_text()


def test_every_option_of_a_network_is_documented():
    from mg.networks import registry

    text = (ROOT / "config/README.md").read_text().split("## Options of the networks")[1]
    dataset = {"mnist": "segmentation", "cifar": "cifar100", "imagenet": "imagenet"}
    options = {
        option
        for family, networks in registry.NETWORKS.items()
        for network in networks
        for option in registry.defaults(network, dataset[family])
    }
    assert options == set(re.findall(r"^\| `(\w+)` \|", text, re.M))


def test_the_schema_lists_the_tasks_that_there_are():
    from mg.networks.registry import DATASETS

    assert SCHEMA["$defs"]["task"]["enum"] == [*DATASETS]
    assert all(configuration.family(name) == spec.family for name, spec in DATASETS.items())


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_shipped_configurations_follow_the_schema(path):
    config = merged(ROOT / "config/config.yaml", path)
    assert not list(Draft202012Validator(SCHEMA).iter_errors(config))
    assert set(config["networks"]) <= set(config["architectures"])


def test_what_is_given_by_config_has_the_types_that_yaml_gives_it():
    given = ["seeds=[3, 4]", "training={output_prior: false, learning_rate: 0.5}", "run=1e3x"]
    given += ["architectures={pmg: {options: {width: [8, 4]}}}", "description=[no yaml"]
    given += ["mnist={directory: 'a: b', sources: [as-is, 2026-99-99, 0x_]}"]
    given += ["saliency={window: three}", "imagenet={directory: \"'2026'\"}"]
    laid = parse_config(given)
    config = merged(ROOT / "config/config.yaml")
    update_config(config, laid)
    configuration.type_values(config, laid)
    assert config["seeds"] == [3, 4] and config["run"] == "1e3x"
    assert config["training"]["output_prior"] is False
    assert config["training"]["learning_rate"] == 0.5 and config["training"]["tasks"]
    assert config["architectures"]["pmg"]["options"]["width"] == [8, 4]
    assert config["mnist"]["directory"] == "a: b" and config["imagenet"]["directory"] == "2026"
    assert config["mnist"]["sources"] == ["as-is", "2026-99-99", "0x_"]
    assert config["description"] == "[no yaml" and config["saliency"]["window"] == "three"


def test_of_a_module_what_stands_under_its_name_has_types_too():
    config = {"seeds": ["0", "1"], "run": "mine"}
    configuration.type_values(config, {"multigrid": {"seeds": ["0", "1"]}, "other": "3"})
    assert config == {"seeds": [0, 1], "run": "mine"}
    configuration.type_values(config, {"seeds": [0, 1]})  # by Snakemake's own interface
    assert config["seeds"] == [0, 1]


def test_a_card_that_pytorch_cannot_use_is_told(capsys, monkeypatch):
    """Kept from its sight, as by a driver too old."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    configuration.warn_of_idle_cards(sys.executable)
    assert "CUDA_VISIBLE_DEVICES= before the command" in capsys.readouterr().err
    configuration.warn_of_idle_cards("false")  # a Python without PyTorch ends with 1, too
    assert capsys.readouterr().err == ""


def test_images_of_ones_own_have_the_side_that_the_configuration_says(tmp_path):
    config = merged(ROOT / "config/config.yaml") | {"tasks": ["translation"]}
    configuration.check(config)
    config["data"] |= {"mode": "own", "canvas": 48}
    for split in "train", "valid", "test":
        path = tmp_path / "demo/data/translation" / f"{split}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file["x"] = np.zeros((2, 1, 32, 32), np.float32)
            file.attrs["mode"] = np.bytes_(b"own")
    with pytest.raises(configuration.Mistake, match=r"^data.canvas: 48, but .* images of 32 x 32;"):
        configuration.check_own_images(config, tmp_path)
    config["data"]["canvas"] = 32
    configuration.check_own_images(config, tmp_path)


def test_only_the_schemas_keys_are_accepted():
    config = merged(ROOT / "config/config.yaml") | {"netwroks": ["pmg"]}
    (error,) = Draft202012Validator(SCHEMA).iter_errors(config)
    assert "netwroks" in error.message


def test_what_is_left_out_is_checked_as_it_will_be_filled_in(monkeypatch):
    config = merged(ROOT / "config/config.yaml")
    del config["data"]["canvas"]
    config["saliency"] = {"window": 65}
    with pytest.raises(
        configuration.Mistake, match="saliency.window: 65 does not fit a canvas of 64"
    ):
        configuration.check(config)
    assert config["saliency"]["stride"] == 2 and config["mnist"]["sources"]
    del config["data"]["canvas"]  # another default of the schema, and it is allowed
    monkeypatch.setitem(SCHEMA["properties"]["data"]["properties"]["canvas"], "default", 81)
    configuration.check(config)
    assert config["data"]["canvas"] == 81


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_defaults_are_those_that_snakemake_would_fill_in(path):
    ours, snakemakes = (merged(ROOT / "config/config.yaml", path) for _ in range(2))
    configuration.check(ours)
    validate(snakemakes, ROOT / "workflow/schemas/config.schema.yaml")
    assert ours == snakemakes and list(ours) == list(snakemakes)


def test_the_paper_configuration_is_the_papers():
    """Sizes, splits and schedules of the authors' experiments, nothing of the demo."""
    from mg import networks
    from mg.networks.counting import count
    from mg.training.recipe import Recipe

    config = merged(ROOT / "config/config.yaml", ROOT / "config/paper.yaml")
    assert len(config["seeds"]) == 3
    data = config["data"]
    assert (data["mode"], data["seed"], data["canvas"], data["digit_size"]) == ("paper", 1, 64, 28)
    tasks = data["tasks"]
    assert tasks.pop("segmentation") == {"train": 10000, "valid": 1000, "test": 1000}
    assert all(t == {"train": 50000, "valid": 10000, "test": 10000} for t in tasks.values())
    training = config["training"]
    amounts = training.pop("tasks")
    assert amounts.pop("segmentation") == {"epochs": 200, "iterations": 150, "batch": 64}
    for amount in amounts.values():
        assert (amount["epochs"], amount["iterations"], amount["batch"]) == (200, 800, 64)
        assert amount["include_valid"] and amount["accumulate"]["r_pmg"] == 2
    assert Recipe(**training) == Recipe()  # whose defaults are the paper's
    expected = {"unet": 3_791_518, "umg": 5_903_290, "pmg": 605_718, "r_pmg": 1_199_886}
    for name, parameters in expected.items():
        entry = config["architectures"][name]
        model = networks.build(entry["network"], "segmentation", **entry["options"])
        assert count(model, (1, 64, 64)).parameters == parameters
