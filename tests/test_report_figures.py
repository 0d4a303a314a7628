"""Figures drawn from real outputs of tiny networks: complete, within margins, reproducible."""

import colorsys
import csv
import re
import shutil
import xml.etree.ElementTree as ET
from functools import partial
from html import unescape
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from matplotlib.text import Text
from test_evaluation_pixels import save_data, save_model
from test_report_pages import training

from mg.data import hdf5
from mg.errors import UserError
from mg.evaluation.attention import attention_ratio, read
from mg.evaluation.evaluate import evaluate
from mg.evaluation.saliency import saliency
from mg.files import read_json, write_json
from mg.report import style
from mg.report.figures import segmentation, spatial
from mg.report.figures.classes import per_class_iu
from mg.report.figures.cost import quality_against_cost
from mg.report.figures.curves import learning_curves
from mg.report.figures.saliency import HUES, saliency_image, saliency_panel
from mg.report.figures.segmentation import segmentation_panel
from mg.report.figures.sheets import dataset_sheet
from mg.report.figures.spatial import spatial_panel
from mg.report.names import NETWORKS, controls_note, in_order
from mg.report.tables.claims import write_claims_table


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three networks and two seeds on two tasks, untrained, with everything a run leaves behind."""
    root = tmp_path_factory.mktemp("run")
    torch.set_num_threads(1)
    for task in ("segmentation", "translation"):
        save_data(root / task / "test.h5", task, n=6)
        for label in ("unet", "pmg", "my_own_net"):
            for seed in (0, 1):
                folder = root / "models" / task / label / f"seed{seed}"
                folder.mkdir(parents=True)
                model = save_model(folder / "model.pt", task, label=label, seed=seed)
                evaluate(
                    model,
                    root / task / "test.h5",
                    metrics_path=folder / "metrics.json",
                    predictions_path=folder / "predictions.h5",
                )
                save_history(folder / "history.csv", seed)
                if task == "translation":
                    saliency(
                        model,
                        root / task / "test.h5",
                        folder / "saliency.h5",
                        count=2,
                        window=4,
                        stride=4,
                    )
    return root


def save_history(path, seed, valid=True):
    with open(path, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(
            "epoch,images,train_loss,valid_loss,valid_mean_iu,valid_mean_acc,learning_rate,"
            "images_per_second,seconds".split(",")
        )
        for epoch in range(1, 6):
            loss = 0.7 / epoch + 0.01 * seed
            measured = [loss * 1.1, 0.1 * epoch, 0.2] if valid else ["", "", ""]
            writer.writerow([epoch, 1600 * epoch, loss, *measured, 0.01, 200, 8 * epoch])


def files(run, name, task="*"):
    return sorted(run.glob(f"models/{task}/*/seed*/{name}"))


DRAWN = {
    "segmentation_panel": lambda run, prefix: segmentation_panel(
        run / "segmentation/test.h5", files(run, "predictions.h5", "segmentation"), prefix, 2
    ),
    "spatial_panel": lambda run, prefix: spatial_panel(
        [run / "translation/test.h5"], files(run, "predictions.h5", "translation"), prefix, 2
    ),
    "saliency_panel": lambda run, prefix: saliency_panel(files(run, "saliency.h5"), prefix, 2),
    "learning_curves": lambda run, prefix: learning_curves(files(run, "history.csv"), prefix),
    "quality_against_cost": lambda run, prefix: quality_against_cost(
        files(run, "metrics.json"), prefix
    ),
    "per_class_iu": lambda run, prefix: per_class_iu(files(run, "metrics.json"), prefix),
    "dataset_sheet": lambda run, prefix: dataset_sheet(
        [run / "translation/test.h5", run / "segmentation/test.h5"], prefix, 4
    ),
}


@pytest.fixture
def texts(monkeypatch):
    """What the figures say, each within the page."""
    texts = []

    def save(figure, prefix, caption):
        caption = real_save(figure, prefix, caption)
        ticks = {  # labels of ticks beyond the limits exist but are not drawn
            label for a in figure.axes for label in a.get_xticklabels() + a.get_yticklabels()
        }
        for text in set(figure.findobj(Text)) - ticks:
            if text.get_text().strip():
                texts.append(text.get_text())
                extent, page = text.get_window_extent(), figure.bbox
                assert extent.x0 >= -1 and extent.x1 <= page.x1 + 1, texts[-1]
                assert extent.y0 >= -1 and extent.y1 <= page.y1 + 1, texts[-1]
        return caption

    real_save = style.save
    monkeypatch.setattr(style, "save", save)
    return texts


@pytest.mark.parametrize("name", DRAWN)
def test_figure(name, run, tmp_path, texts):
    caption = DRAWN[name](run, tmp_path / "figure")
    assert len(caption) > 20

    image = imread(tmp_path / "figure.png")
    assert image.shape[1] <= 7.7 * 200
    assert 0.02 < (image[:, :, :3].min(axis=2) < 0.9).mean() < 0.98  # neither empty nor all ink
    svg = (tmp_path / "figure.svg").read_text()
    ET.fromstring(svg)
    drawn = "".join(texts)
    if name != "dataset_sheet":
        for network in ("U-NET", "PMG", "my_own_net"):
            assert network in drawn and network in svg  # as text, not as outlines
    assert not re.search(r"(src|href)=\"(?!#|data:)", svg)


@pytest.mark.parametrize("name", [name for name in DRAWN if name != "dataset_sheet"])
def test_a_control_is_said_to_be_one_whatever_its_label(name, run, tmp_path):
    """`sg` and `r_sg` are not the authors'; nor is a network of another label that is one."""
    assert "of our own" not in DRAWN[name](run, tmp_path / "figure")
    copy = shutil.copytree(run, tmp_path / "run")
    for folder in copy.glob("models/*/*/seed*"):
        task, label = folder.parts[-3:-1]
        network = {"my_own_net": "r_sg"}.get(label, label)
        changes = {"dataset": task, "label": label, "network": network, "history_crc32": None}
        write_json(folder / "run.json", training(**changes))
        metrics = read_json(folder / "metrics.json")
        write_json(folder / "metrics.json", metrics | {"architecture": network})
    caption = DRAWN[name](copy, tmp_path / "figure")
    assert "my_own_net: of our own, as a control" in caption
    assert caption in unescape((tmp_path / "figure.svg").read_text())


def test_only_the_single_grid_networks_are_our_own():
    assert controls_note({"unet": None, "pmg": "pmg"}) == ""
    assert controls_note({"r_sg": "r_sg", "sg": None}).startswith(
        "SG and R-SG: of our own, as controls"
    )
    assert controls_note({"sg": "pmg", "sg_wide": "sg"}).startswith("sg_wide: of our own")


def test_all_transformations_stand_beside_the_single_ones(tmp_path, monkeypatch):
    monkeypatch.setitem(spatial.TRANSFORMED, "reflection", "mirrored")  # a task that was added
    data, predictions = [], []
    for task in ("rotation", "spatial_transform", "translation"):
        data.append(save_data(tmp_path / f"{task}.h5", task, n=6))
        model = save_model(tmp_path / f"{task}.pt", task, label="pmg", seed=0)
        predictions.append(tmp_path / f"{task}-predictions.h5")
        evaluate(
            model,
            data[-1],
            metrics_path=tmp_path / f"{task}.json",
            predictions_path=predictions[-1],
        )
    both = spatial_panel(data, predictions, tmp_path / "both", count=2)
    together = "rotated, stretched, scaled and moved at once (left)"
    assert f"{together}, or only rotated or moved (right);" in both
    svg = (tmp_path / "both.svg").read_text()
    # Two blocks of input, truth and PMG: four rows at once, and two of each single task.
    assert svg.count("<image") == 2 * 3 * 4 and svg.count(">PMG<") == 3
    single = spatial_panel(data[2:], predictions[2:], tmp_path / "single", count=2)
    assert "a digit that was moved;" in single
    assert (tmp_path / "single.svg").read_text().count("<image") == 3 * 2


def test_a_network_that_was_not_run_on_a_task_takes_no_room(run, tmp_path):
    data = [run / "translation/test.h5", save_data(tmp_path / "rotation.h5", "rotation", n=6)]
    model = save_model(tmp_path / "model.pt", "rotation", label="unet", seed=0)
    evaluate(model, data[1], metrics_path=tmp_path / "m.json", predictions_path=tmp_path / "p.h5")
    paths = files(run, "predictions.h5", "translation")
    caption = spatial_panel(data, [*paths, tmp_path / "p.h5"], tmp_path / "f", count=3)
    assert "A network stands only where it was run." in caption
    svg = (tmp_path / "f.svg").read_text()
    assert svg.count("<image") == 3 * 5 + 3 * 3 and svg.count(">PMG<") == 1
    assert "not run" not in svg


def test_predictions_for_other_inputs_are_refused(run, tmp_path):
    data, paths = [run / "translation/test.h5"], files(run, "predictions.h5", "translation")
    other = save_data(tmp_path / "other.h5", "translation", n=7)
    spatial_panel(data, paths, tmp_path / "f", count=2)
    with pytest.raises(UserError, match=f"predictions for other inputs than those in {other}"):
        spatial_panel([other], paths, tmp_path / "other", count=2)
    assert not (tmp_path / "other.png").exists()


def test_labels_of_one_name_and_small_sets_are_all_drawn(tmp_path):
    data = save_data(tmp_path / "test.h5", "translation", n=2)
    paths = []
    for label in ("pmg", "PMG", "input"):
        model = save_model(tmp_path / "model.pt", "translation", label=label, seed=0)
        paths.append(tmp_path / f"{label}-predictions.h5")
        evaluate(model, data, metrics_path=tmp_path / "m.json", predictions_path=paths[-1])
    spatial_panel([data], paths, tmp_path / "f", count=9)
    assert (tmp_path / "f.svg").read_text().count("<image") == 2 * 5
    height, width = imread(tmp_path / "f.png").shape[:2]
    assert height < 0.7 * width  # no room for the seven that are not there


def test_panels_say_which_seeds_they_show(run, tmp_path):
    paths = files(run, "predictions.h5", "segmentation")
    draw = partial(segmentation_panel, run / "segmentation/test.h5", count=1)
    assert "Shown: seed 0 of each network." in draw(paths, tmp_path / "f")
    without = [path for path in paths if "unet/seed0" not in str(path)]
    assert "Shown: seed 0 of PMG and my_own_net; 1 of U-NET." in draw(without, tmp_path / "f")
    assert "Shown: seed 0 of each" in DRAWN["spatial_panel"](run, tmp_path / "f")
    assert "Shown: seed 0 of each" in DRAWN["saliency_panel"](run, tmp_path / "f")


def test_curves_say_over_how_many_seeds_they_are_means_and_which_axis_is_logarithmic(run, tmp_path):
    paths = files(run, "history.csv")
    caption = learning_curves(paths, tmp_path / "f")
    assert "Lines: means over 2 seeds; bands" in caption
    assert (tmp_path / "f.svg").read_text().count("loss (nats, log axis)") == 4
    fewer = [p for p in paths if "seed0" in str(p) or "segmentation" in str(p)]
    caption = learning_curves(fewer, tmp_path / "f")
    assert "Lines: means over seeds (Segmentation 2; else one seed); bands" in caption
    fewer.remove(next(path for path in paths if "segmentation/pmg/seed1" in str(path)))
    caption = learning_curves(fewer, tmp_path / "f")
    assert "(Segmentation 2, PMG 1; else one seed)" in caption
    caption = learning_curves([p for p in paths if "seed0" in str(p)], tmp_path / "f")
    assert "One seed per network" in caption and "bands" not in caption


def test_maps_come_with_what_was_measured_of_them(run, tmp_path):
    paths = files(run, "saliency.h5")
    caption = saliency_panel(paths, tmp_path / "f")
    (path,) = [path for path in paths if path.parts[-3:-1] == ("pmg", "seed0")]
    ratio = attention_ratio(read(path))
    assert f"PMG {ratio:.2f}" in caption and "An empty map: " in caption


@pytest.mark.parametrize(("wrong", "shown"), [(0, "1.00"), (1, "0.99"), (20, "0.98")])
def test_only_a_perfect_segmentation_scores_one(wrong, shown):
    truth = np.ones((1, 32, 32), bool)
    predicted = truth.copy()
    predicted.reshape(-1)[:wrong] = False
    axis = style.new_figure(1, 1).add_subplot()
    segmentation._score(axis, predicted, truth)
    assert axis.texts[0].get_text() == shown


def test_long_names_stay_in_their_panel_and_off_other_points(run, tmp_path, monkeypatch):
    paths = []
    (path, *_) = files(run, "metrics.json", "segmentation")
    labels = ("pmg_much_deeper", "r_pmg_wide_and_deep")
    for i, name in enumerate(labels):
        record = read_json(path) | {"network": name, "mean_iu": 0.5}
        record |= {"macs": (9 + i) * 10**6, "train_seconds": 100 - i}
        paths.append(tmp_path / f"{name}.json")
        write_json(paths[-1], record)
    figures = []
    monkeypatch.setattr(style, "save", lambda figure, *_: figures.append(figure))
    quality_against_cost(paths, tmp_path / "f")
    for axis in figures[0].axes:
        names = [text.get_window_extent() for text in axis.texts if text.get_text() in labels]
        assert len(names) == 2 and not names[0].overlaps(names[1])
        assert all(axis.bbox.containsx(x) for box in names for x in (box.x0, box.x1))


def test_the_same_results_give_the_same_files(run, tmp_path):
    for prefix in ("a", "b"):
        DRAWN["quality_against_cost"](run, tmp_path / prefix)
        DRAWN["segmentation_panel"](run, tmp_path / (prefix + "2"))
    for first, second in (("a", "b"), ("a2", "b2")):
        for suffix in (".png", ".svg"):
            one, two = ((tmp_path / (n + suffix)).read_bytes() for n in (first, second))
            assert one == two


def test_curves_without_validation_show_the_loss_alone(tmp_path):
    path = tmp_path / "segmentation/unet/seed0/history.csv"
    path.parent.mkdir(parents=True)
    save_history(path, 0, valid=False)
    learning_curves([path], tmp_path / "curves")
    svg = (tmp_path / "curves.svg").read_text()
    assert "training loss" in svg and "validation" not in svg


def test_curves_of_one_epoch_are_marks(tmp_path):
    """A line through one point shows nothing."""
    path = tmp_path / "segmentation/unet/seed0/history.csv"
    path.parent.mkdir(parents=True)
    save_history(path, 0)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    learning_curves([path], tmp_path / "curves")
    svg = (tmp_path / "curves.svg").read_text()
    marks = re.findall(r'<g clip-path="[^"]*">\s*<use ', svg)
    assert len(marks) == 3, "in each panel"


def test_many_networks_are_all_named_on_the_page(tmp_path, texts):
    labels = [f"r_pmg_{k}" for k in range(24)]  # as many as config/cifar100.yaml has
    paths = [tmp_path / "segmentation" / label / "seed0/history.csv" for label in labels]
    for path in paths:
        path.parent.mkdir(parents=True)
        save_history(path, 0)
    learning_curves(paths, tmp_path / "curves")
    assert set(labels) <= set(texts)


def test_a_network_without_maps_is_said_to_have_none(run, tmp_path):
    model = save_model(tmp_path / "model.pt", "translation", label="sg", seed=0)
    content = torch.load(model, weights_only=True)
    for name, value in content["state_dict"].items():
        if name.endswith(("bn.weight", "bn.bias")):
            content["state_dict"][name] = torch.full_like(value, -1)
    torch.save(content, model)
    saliency(model, run / "translation/test.h5", tmp_path / "s.h5", count=2, window=4, stride=4)
    saliency_panel([*files(run, "saliency.h5"), tmp_path / "s.h5"], tmp_path / "both", 1)
    assert "none above" in (tmp_path / "both.svg").read_text()
    saliency_panel([tmp_path / "s.h5"], tmp_path / "alone", 1)
    assert "none above" in (tmp_path / "alone.svg").read_text()
    write_claims_table(
        files(run, "metrics.json"),
        prefix=tmp_path / "claims",
        saliency_paths=files(run, "saliency.h5"),
    )
    assert re.search(r"attention of PMG.*ratio \d", (tmp_path / "claims.csv").read_text())


def test_a_network_that_was_not_asked_is_not_said_to_answer_nothing(run, tmp_path):
    model = save_model(tmp_path / "model.pt", "translation", label="sg", seed=0)
    saliency(model, run / "translation/test.h5", tmp_path / "s.h5", count=1, window=4, stride=4)
    paths = [*files(run, "saliency.h5", "translation"), tmp_path / "s.h5"]
    saliency_panel(paths, tmp_path / "both", 2)
    svg = (tmp_path / "both.svg").read_text()
    assert svg.count(">no map<") == 1 and ">none above<" not in svg


def test_saliency_is_coloured_as_in_the_paper():
    rng = np.random.default_rng(0)
    attention = rng.random((8, 8)) * (rng.random((8, 8)) < 0.5)
    image = np.zeros((8, 8))
    image[0, 0] = 1
    for hue in HUES:
        colours = saliency_image(attention, image, hue)
        hsv = np.array([[colorsys.rgb_to_hsv(*pixel) for pixel in row] for row in colours])
        assert hsv[0, 0, 2] == 0  # ink is black
        shown = (attention > 0) & (image == 0)
        np.testing.assert_allclose(hsv[shown][:, 0], hue, atol=1e-9)
        levels = np.round(hsv[shown][:, 1] * 10, 6)
        assert set(levels) <= set(range(1, 11)) and levels.max() == 10
        order = np.argsort(attention[shown])
        assert (np.diff(levels[order]) >= 0).all()
        assert (hsv[(attention == 0) & (image == 0)][:, 1:] == [0, 1]).all()
    names = ("green", "red", "yellow", "blue", "cyan", "magenta", "orange")
    assert len(HUES) == len(names)
    assert colorsys.hsv_to_rgb(HUES[0], 1, 1) == (0, 1, 0)
    assert colorsys.hsv_to_rgb(HUES[1], 1, 1) == (1, 0, 0)


def test_no_two_networks_of_a_figure_look_the_same():
    mnist = ["unet", "umg", "sg", "r_sg", "pmg", "r_pmg"]
    looks = style.looks(mnist)
    assert looks == {name: style.LOOKS[name] for name in mnist}
    assert len({look.colour for look in looks.values()}) == 6
    assert set(style.LOOKS) == set(NETWORKS)
    kinds = ("vgg", "resnet", "mg", "r_mg", "pmg", "r_pmg")
    labels = [f"{kind}_{n}" for kind in kinds for n in (1, 2, 3, 4)]  # config/cifar100.yaml
    for shown in (labels, [*labels, *kinds], [*NETWORKS, "p_mg_2"], [f"n{i}" for i in range(45)]):
        # Colour and marker alone tell them apart, where there are no lines.
        assert len({look[:2] for look in style.looks(shown).values()}) == len(shown)
    assert len(style.looks([f"n{i}" for i in range(60)])) == 60


def test_a_stranger_keeps_its_look_whoever_else_is_shown():
    alone = style.looks(["wide pmg"])["wide pmg"]
    for others in (["unet", "pmg"], ["zeta", "r_sg"], list(NETWORKS)):
        assert style.looks([*others, "wide pmg"])["wide pmg"] == alone
    assert style.looks(["b", "a", "pmg"]) == style.looks(["pmg", "a", "b"])


def test_networks_come_in_the_papers_order():
    assert in_order(["zeta", "pmg", "alpha", "unet", "pmg"]) == ["unet", "pmg", "alpha", "zeta"]


@pytest.mark.parametrize("content", ["", "epoch,images\n1,x\n", "\x00"])
def test_damaged_histories_are_refused(content, tmp_path):
    path = tmp_path / "segmentation/unet/seed0/history.csv"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(UserError, match="history.csv"):
        learning_curves([path], tmp_path / "curves")


def test_only_one_data_set_of_a_task_is_taken(run, tmp_path):
    data = run / "translation/test.h5"
    released = save_data(tmp_path / "released.h5", "mnist-tra", n=6)
    for draw in (
        dataset_sheet,
        lambda paths, prefix: spatial_panel(paths, files(run, "predictions.h5", "tr*"), prefix),
    ):
        for twice in ([data, data], [data, released]):
            with pytest.raises(UserError, match="are both of translation; give one of each task"):
                draw(twice, tmp_path / "f")
        assert not list(tmp_path.glob("f*"))
        draw([released], tmp_path / "g")  # the authors' name of the task


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("history.csv", learning_curves),
        ("saliency.h5", saliency_panel),
        (
            "predictions.h5",
            lambda paths, prefix: spatial_panel(
                [paths[0].parents[4] / "translation/test.h5"], paths, prefix
            ),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_two_files_of_one_run_are_refused(run, tmp_path, name, draw):
    paths = files(run, name, "translation")
    other = tmp_path / Path(*paths[-1].parts[-4:])  # such as that of another configuration
    other.parent.mkdir(parents=True)
    shutil.copy(paths[-1], other)
    with pytest.raises(UserError, match=f"{other} is the second file for translation"):
        draw([*paths, other], tmp_path / "f")
    draw(paths, tmp_path / "f")


def test_maps_of_several_windows_are_not_drawn_under_one_caption(run, tmp_path):
    paths = files(run, "saliency.h5")
    other = tmp_path / "saliency.h5"
    shutil.copy(paths[0], other)
    with h5py.File(other, "r+") as file:
        hdf5.write_attributes(file, {"window": 8})
    with pytest.raises(UserError, match=r"windows and strides \(4, 4\) and \(8, 4\)"):
        saliency_panel([other, *paths[1:]], tmp_path / "f")


def test_figures_refuse_what_does_not_belong(run, tmp_path):
    with pytest.raises(UserError, match="predictions for translation"):
        segmentation_panel(
            run / "segmentation/test.h5",
            files(run, "predictions.h5", "translation"),
            tmp_path / "f",
        )
    with pytest.raises(UserError, match="of translation, with 1-channel .* for 10-channel"):
        segmentation_panel(run / "translation/test.h5", [], tmp_path / "f")
    with pytest.raises(UserError, match="of segmentation, with 10-channel .* for 1-channel"):
        spatial_panel([run / "segmentation/test.h5"], [], tmp_path / "f")
    (tmp_path / "p.h5").write_text("nothing")
    with pytest.raises(UserError, match="p.h5"):
        segmentation_panel(run / "segmentation/test.h5", [tmp_path / "p.h5"], tmp_path / "f")
    for function in (quality_against_cost, per_class_iu, learning_curves):
        with pytest.raises(UserError):
            function([], tmp_path / "f")
    with pytest.raises(UserError):
        saliency_panel([], tmp_path / "f")
    with pytest.raises(UserError, match="at least one"):
        dataset_sheet([run / "segmentation/test.h5"], tmp_path / "f", count=0)
    assert not list(tmp_path.glob("f*"))
