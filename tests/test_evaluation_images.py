"""A trained network and image files of one's own: what `mg predict` says of them."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mg import networks
from mg.data.cifar_preparation import PREPARATIONS, Preparation
from mg.errors import UserError
from mg.evaluation.images import COLOURS, predict_images
from mg.evaluation.pixels import forward
from mg.training.model import load_model

PIXELS = {"kind": "clutter", "canvas": 16}
NARROW = [[8, 4, 2], [8, 4, 2], [8, 4, 2], [16, 8, 4], [16, 8]]


def save(path, network, dataset, options, preparation):
    torch.manual_seed(0)
    content = {
        "format": "mg-model-1",
        "network": network,
        "dataset": dataset,
        "options": options,
        "label": network,
        "seed": 0,
        "preparation": preparation,
        "state_dict": networks.build(network, dataset, **options).state_dict(),
    }
    torch.save(content, path)
    return path


def image(path, size=(40, 30), seed=0):
    """Of (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("kind", PREPARATIONS)
def test_a_classifier_names_the_classes_of_a_photograph(tmp_path, kind):
    if kind == "plain":
        scale, mean = torch.full((3, 1, 1), 4.0), torch.full((3, 1, 1), 0.5)
    else:
        scale, mean = torch.eye(3072), torch.zeros(3072)
    preparation = Preparation(kind, mean, scale)
    names = [f"kind {i}" for i in range(10)]
    state = preparation.state() | {"classes": names}
    model_path = save(tmp_path / "model.pt", "mg", "cifar10", {"width": NARROW}, state)
    (answer,) = predict_images(model_path, [image(tmp_path / "cat.png", (48, 32))], top=3)
    assert len(answer["classes"]) == 3

    x = np.array(Image.open(tmp_path / "cat.png"))[:, 8:40]  # the square at the centre
    x = torch.from_numpy(x.transpose(2, 0, 1).copy())[None]
    model, _ = load_model(model_path)
    with torch.no_grad():
        expected = model(preparation.crop(preparation.apply(x), 32))[0].softmax(0)
    for name, probability in answer["classes"]:
        assert probability == pytest.approx(float(expected[names.index(name)]), rel=1e-4)
    assert answer["classes"][0][1] == pytest.approx(float(expected.max()), rel=1e-4)


def test_a_network_of_imagenet_takes_any_size(tmp_path):
    state = {"kind": "photographs", "canvas": 32, "classes": ["a", "b", "c"]}
    options = {"depth": 18, "width": [[8, 4, 4], [8, 4, 4], [8, 8], [16]], "classes": 3}
    model_path = save(tmp_path / "model.pt", "r_mg", "imagenet", options, state)
    paths = [image(tmp_path / "wide.jpg", (90, 20)), image(tmp_path / "high.png", (35, 70), 1)]
    answers = predict_images(model_path, paths)
    assert [answer["image"] for answer in answers] == [str(path) for path in paths]
    for answer in answers:
        assert sorted(name for name, _ in answer["classes"]) == ["a", "b", "c"]
        assert sum(p for _, p in answer["classes"]) == pytest.approx(1, abs=1e-5)


def test_a_segmentation_is_drawn_in_colours(tmp_path):
    options = {"width": [4, 2], "grids": 2}
    model_path = save(tmp_path / "model.pt", "pmg", "segmentation", options, PIXELS)
    path = image(tmp_path / "digits.png", (16, 16))
    (answer,) = predict_images(model_path, [path], output=tmp_path / "out")
    picture = np.array(Image.open(answer["output"]))
    assert answer["output"] == str(tmp_path / "out" / "digits.png")
    assert picture.shape == (16, 16, 3)
    for digit, number in answer["pixels"].items():
        assert (picture == COLOURS[digit]).all(-1).sum() == number
    assert (picture == 0).all(-1).sum() == 256 - sum(answer["pixels"].values())


def test_images_are_read_as_they_are_seen(tmp_path):
    """What is transparent is black; a photograph is turned as its camera says."""
    model = save(tmp_path / "model.pt", "pmg", "segmentation", {"width": [8, 4]}, PIXELS)
    digit = np.zeros((16, 16), np.uint8)
    digit[2:12, 3:7] = 200
    Image.fromarray(digit).save(tmp_path / "plain.png")
    white = Image.new("L", (16, 16), "white")
    white.putalpha(Image.fromarray(digit))
    white.save(tmp_path / "transparent.png")
    turned = Image.fromarray(digit).transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=turned.getexif())
    names = ("plain", "transparent", "turned")
    paths = [tmp_path / f"{name}.png" for name in names]
    plain, *others = predict_images(model, paths, output=tmp_path / "out")
    assert plain["pixels"]
    picture = (tmp_path / "out/plain.png").read_bytes()
    for name, other in zip(names[1:], others, strict=True):
        assert other["pixels"] == plain["pixels"], name
        assert (tmp_path / f"out/{name}.png").read_bytes() == picture


def test_a_spatial_task_gives_an_image(tmp_path):
    options = {"width": [4, 2], "grids": 2}
    model_path = save(tmp_path / "model.pt", "pmg", "translation", options, PIXELS)
    path = image(tmp_path / "digit.png", (50, 40))
    (answer,) = predict_images(model_path, [path], output=tmp_path / "out")
    assert Image.open(answer["output"]).size == (16, 16) and "pixels" not in answer


def test_the_image_is_the_networks_output(tmp_path):
    options = {"width": [4, 2], "grids": 2}
    model_path = save(tmp_path / "model.pt", "pmg", "translation", options, PIXELS)
    path = image(tmp_path / "digit.png", (16, 16))
    (answer,) = predict_images(model_path, [path], output=tmp_path / "out")
    grey = torch.from_numpy(np.array(Image.open(path).convert("L"), np.float32) / 255)
    with torch.no_grad():
        logits = forward(load_model(model_path)[0], grey[None, None])[0, 0]
    picture = np.array(Image.open(answer["output"]))
    assert np.abs(picture - logits.sigmoid().numpy() * 255).max() < 0.51 and np.ptp(picture) > 20


def test_the_command_prints_answers(tmp_path):
    state = {"kind": "photographs", "canvas": 32, "classes": ["fox", "tea"]}
    options = {"depth": 18, "width": [[8, 4, 4], [8, 4, 4], [8, 8], [16]], "classes": 2}
    model_path = save(tmp_path / "model.pt", "r_mg", "imagenet", options, state)
    command = [sys.executable, "-m", "mg", "predict", "--model", str(model_path), "--json"]
    done = subprocess.run(
        [*command, str(image(tmp_path / "a.png"))], capture_output=True, text=True, check=True
    )
    (answer,) = json.loads(done.stdout)
    assert {name for name, _ in answer["classes"]} == {"fox", "tea"}


@pytest.mark.parametrize(
    "dataset, preparation, content, output, message",
    [
        ("translation", PIXELS, None, False, "name a folder with --output"),
        ("translation", {}, None, True, "does not say which size"),
        ("translation", PIXELS, b"no image", True, "is no readable image"),
        ("translation", PIXELS, b"", True, "is no readable image"),
        ("cifar10", {"kind": "plain"}, None, False, "how its images are prepared"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tmp_path, dataset, preparation, content, output, message
):
    options = {"width": [4, 2], "grids": 2} if dataset == "translation" else {"width": NARROW}
    network = "pmg" if dataset == "translation" else "mg"
    model_path = save(tmp_path / "model.pt", network, dataset, options, preparation)
    path = image(tmp_path / "a.png")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        predict_images(model_path, [path], output=tmp_path / "out" if output else None)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_pictures_do_not_overwrite_each_other(tmp_path):
    options = {"width": [4, 2], "grids": 2}
    model_path = save(tmp_path / "model.pt", "pmg", "translation", options, PIXELS)
    (tmp_path / "b").mkdir()
    paths = [image(tmp_path / "a.png"), image(tmp_path / "b/a.png")]
    with pytest.raises(UserError, match="the same name"):
        predict_images(model_path, paths, output=tmp_path / "out")


def test_an_image_is_not_overwritten_with_its_answer(tmp_path):
    options = {"width": [4, 2], "grids": 2}
    model_path = save(tmp_path / "model.pt", "pmg", "translation", options, PIXELS)
    (tmp_path / "digits").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "digits")
    paths = [image(tmp_path / "digits/a.jpg"), image(tmp_path / "digits/b.png")]
    before = paths[1].read_bytes()
    with pytest.raises(UserError, match=f"would overwrite {paths[1]}; name another folder"):
        predict_images(model_path, paths, output=tmp_path / "link")
    assert paths[1].read_bytes() == before and not (tmp_path / "digits/a.png").exists()
