"""Saliency maps: against a plain loop, and on networks whose attention is known."""

import h5py
import numpy as np
import pytest
import torch
from test_evaluation_pixels import save_data, save_model
from torch import nn

from mg.errors import UserError
from mg.evaluation.attention import POINT_NAMES, attention_ratio, attention_shift, read
from mg.evaluation.evaluate import evaluate
from mg.evaluation.pixels import forward
from mg.evaluation.saliency import (
    Occlusion,
    points_of_interest,
    saliency,
    saliency_maps,
)
from mg.training.feed import INPUT_MEAN, INPUT_STD


class Shift(nn.Module):
    """Shows its input moved down and right, sharpened."""

    def __init__(self, down=0, right=0):
        super().__init__()
        self.move = (down, right)

    def forward(self, x):
        return (x * INPUT_STD + INPUT_MEAN - 0.5).roll(self.move, (2, 3)) * 20


def square(size=32, top=6, left=4, side=8):
    x = torch.zeros(1, size, size)
    x[:, top : top + side, left : left + side] = 1
    return x


def maps_of(model, x, **settings):
    occlusion = Occlusion(*x.shape[1:], **{"window": 4, "stride": 2} | settings)
    output = forward(model, x[None]).sigmoid()[0]
    points = points_of_interest(output[0].detach().numpy())
    return points, saliency_maps(model, x, output, points, occlusion, batch=50)


def test_positions_of_the_paper():
    occlusion = Occlusion(64, 64)
    assert len(occlusion) == 841 == len(occlusion.noise())
    assert len(occlusion.rows) == len(occlusion.columns) == 29
    assert occlusion.rows.sum(1).unique().tolist() == [8]
    assert len(Occlusion(32, 32, window=4, stride=1)) == 841


def test_copies_differ_from_the_input_in_the_window_alone():
    x = torch.rand(1, 11, 13)
    occlusion = Occlusion(11, 13, window=3, stride=2, seed=5)
    copies = torch.cat(list(occlusion.copies(x, batch=7)))
    positions = [(top, left) for top in range(0, 9, 2) for left in range(0, 11, 2)]
    assert len(copies) == len(positions) == len(occlusion)
    for copy, (top, left), noise in zip(copies, positions, occlusion.noise(), strict=True):
        expected = x.clone()
        expected[0, top : top + 3, left : left + 3] = noise
        assert torch.equal(copy, expected)


def test_agrees_with_a_plain_loop():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=2), nn.Tanh(), nn.Conv2d(4, 1, 5, padding=2)
    ).eval()
    nn.init.normal_(model[2].weight)
    x = torch.rand(1, 17, 20)
    window, stride, seed = 5, 3, 2
    with torch.inference_mode():
        output = forward(model, x[None]).sigmoid()[0]
        points = np.array([[1, 1], [8, 10], [14, 18], [7, 3]])
        expected = np.zeros((len(points), 17, 20))
        noise = iter(Occlusion(17, 20, window, stride, seed).noise())
        for top in range(0, 17 - window + 1, stride):
            for left in range(0, 20 - window + 1, stride):
                occluded = x.clone()
                occluded[0, top : top + window, left : left + window] = next(noise)
                change = (forward(model, occluded[None]).sigmoid()[0] - output)[0].abs().numpy()
                for i, (y, x_) in enumerate(points):
                    impact = change[y - 1 : y + 2, x_ - 1 : x_ + 2].max()
                    if impact >= 0.1:
                        expected[i, top : top + window, left : left + window] += impact
        occlusion = Occlusion(17, 20, window, stride, seed)
        maps = saliency_maps(model, x, output, points, occlusion, batch=6)
    assert (expected > 0).any((1, 2)).all()
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("move", [(0, 0), (10, 8)])
def test_attention_is_where_the_output_comes_from(move):
    points, maps = maps_of(Shift(*move), square(), stride=1)
    for (y, x), attention in zip(points, maps, strict=True):
        rows, columns = np.nonzero(attention.numpy())
        assert len(rows)
        reach = 4  # a window that touches the 3x3 neighbourhood
        assert np.abs(rows - (y - move[0])).max() <= reach
        assert np.abs(columns - (x - move[1])).max() <= reach


def test_a_network_that_ignores_its_input_has_empty_maps():
    class Constant(nn.Module):
        def forward(self, x):
            return square().expand(len(x), -1, -1, -1) * 10 - 5

    _, maps = maps_of(Constant(), square())
    assert not maps.any()


def test_seven_points_of_a_box():
    output = np.zeros((20, 30))
    output[4:12, 6:16] = 0.4
    points = dict(zip(POINT_NAMES, points_of_interest(output).tolist(), strict=True))
    assert points == {
        "centre": [7, 10],
        "top left": [4, 6],
        "middle left": [8, 6],
        "bottom left": [11, 6],
        "top right": [4, 15],
        "middle right": [8, 15],
        "bottom right": [11, 15],
    }


def test_points_stay_inside_and_need_two_rows_and_columns():
    assert points_of_interest(np.full((20, 30), 0.4)).min(0).tolist() == [1, 1]
    assert points_of_interest(np.full((20, 30), 0.4)).max(0).tolist() == [18, 28]
    line = np.zeros((20, 30))
    line[5] = 1
    assert points_of_interest(line) is None
    assert points_of_interest(line.T) is None
    assert points_of_interest(np.full((20, 30), 0.39)) is None


def test_file_holds_the_first_usable_examples_and_is_reproducible(tmp_path, capfd):
    model = save_model(tmp_path / "model.pt", "translation")
    content = torch.load(model, weights_only=True)
    for name, value in content["state_dict"].items():
        if name.endswith("running_var"):  # untrained: make its output sharp enough to have a box
            content["state_dict"][name] = value * 0.3
    torch.save(content, model)
    data = save_data(tmp_path / "test.h5", "translation")
    settings = {"count": 3, "window": 4, "stride": 4}
    done = saliency(model, data, tmp_path / "a.h5", **settings, batch=5)
    saliency(model, data, tmp_path / "b.h5", **settings, batch=16)
    first, second = read(tmp_path / "a.h5"), read(tmp_path / "b.h5")
    assert done["used"] == len(first["index"]) == 3
    line = capfd.readouterr().err.splitlines()[0]
    assert line.startswith("pmg_small translation: 3 inputs in ")
    assert line.endswith(f" s, {done['skipped']} passed over")
    assert first["index"].tolist() == [
        i for i in range(first["index"][-1] + 1) if i not in first["skipped"]
    ]
    assert first["map"].shape == (3, 7, 16, 16)
    np.testing.assert_allclose(first["map"], second["map"], rtol=1e-3, atol=1e-4)
    saliency(model, data, tmp_path / "c.h5", **settings, batch=5, seed=2)
    assert not np.allclose(first["map"], read(tmp_path / "c.h5")["map"], rtol=1e-3, atol=1e-4)
    assert list(first["point_names"]) == list(POINT_NAMES)
    assert (first["dataset"], first["network"], first["seed"]) == ("translation", "pmg_small", 3)
    assert (first["window"], first["stride"], first["threshold"]) == (4, 4, 0.1)
    with h5py.File(data) as file:
        np.testing.assert_array_equal(first["input"], file["x"][:][first["index"]])


def test_no_usable_example_gives_a_valid_empty_file(tmp_path):
    model = save_model(tmp_path / "model.pt", "translation")
    content = torch.load(model, weights_only=True)
    for name, value in content["state_dict"].items():
        if name.endswith(("bn.weight", "bn.bias")):
            content["state_dict"][name] = torch.full_like(value, -1)  # every output below 0.4
    torch.save(content, model)
    data = save_data(tmp_path / "test.h5", "translation", n=5)
    done = saliency(model, data, tmp_path / "saliency.h5", count=2, window=4)
    assert done == {"used": 0, "skipped": 5}
    stored = read(tmp_path / "saliency.h5")
    assert stored["map"].shape == (0, 7, 16, 16)
    assert stored["skipped"].tolist() == [0, 1, 2, 3, 4]


def test_mistakes_are_explained(tmp_path):
    segmentation = save_model(tmp_path / "seg.pt"), save_data(tmp_path / "seg.h5")
    with pytest.raises(UserError, match="spatial tasks"):
        saliency(*segmentation, tmp_path / "saliency.h5")
    with pytest.raises(UserError, match="does not fit a 16x16 canvas"):
        Occlusion(16, 16, window=20)
    with pytest.raises(UserError, match="stride of the saliency maps to 1 to 4"):
        Occlusion(16, 16, window=4, stride=5)
    with pytest.raises(UserError, match=r"leaves out 1 of 17 at the edge; .* a divisor of 13"):
        Occlusion(16, 17, window=4, stride=2)
    translation = (
        save_model(tmp_path / "t.pt", "translation"),
        save_data(tmp_path / "t.h5", "translation"),
    )
    with pytest.raises(UserError, match="cannot write .*t.pt/saliency.h5: Not a directory"):
        saliency(*translation, tmp_path / "t.pt" / "saliency.h5", window=4)
    for path in translation:
        with pytest.raises(UserError, match=f"{path} would be written over"):
            saliency(*translation, path, window=4)
    (tmp_path / "bad.h5").write_text("nothing")
    for name in ("bad.h5", "absent.h5"):
        with pytest.raises(UserError, match=name):
            read(tmp_path / name)


def test_the_authors_name_of_a_task_is_stored_as_ours(tmp_path):
    model = save_model(tmp_path / "model.pt", "mnist-tra")
    data = save_data(tmp_path / "test.h5", "translation", n=2)
    saliency(model, data, tmp_path / "saliency.h5", count=1, window=8, stride=8)
    assert read(tmp_path / "saliency.h5")["dataset"] == "translation"


def test_a_canvas_that_the_network_cannot_halve_is_refused(tmp_path):
    model = save_model(tmp_path / "model.pt", "translation")
    data = save_data(tmp_path / "test.h5", "translation", n=2, size=17)
    with pytest.raises(UserError, match="cannot work on a canvas of 17 pixels"):
        saliency(model, data, tmp_path / "saliency.h5", window=8)
    with pytest.raises(UserError, match="cannot work on a canvas of 17 pixels"):
        evaluate(model, data, metrics_path=tmp_path / "metrics.json")


def maps_on_digits(spread):
    """A file of three inputs whose maps are `spread(canvas with a 1 in the digit's middle)`."""
    places = [(8, 6), (20, 10), (12, 24)]
    inputs, dots = np.zeros((3, 1, 32, 32), np.float32), np.zeros((3, 32, 32), np.float32)
    for image, dot, (y, x) in zip(inputs, dots, places, strict=True):
        image[0, y - 2 : y + 3, x - 2 : x + 3] = 1
        dot[y, x] = 1
    maps = np.stack([spread(dot) for dot in dots])
    return {"input": inputs, "map": np.repeat(maps[:, None], 7, 1)}


def test_attention_on_the_digit_follows_it():
    on = maps_on_digits(lambda dot: dot)
    assert attention_ratio(on) == np.inf and attention_shift(on) == pytest.approx(1)


def test_attention_that_is_the_same_for_every_input_does_not_follow():
    even = maps_on_digits(np.ones_like)
    assert attention_ratio(even) == pytest.approx(1)
    assert attention_shift(even) == pytest.approx(0, abs=1e-6)


def test_the_part_of_the_attention_that_follows_the_digit_is_how_far_the_maps_move():
    part = maps_on_digits(lambda dot: 0.25 * dot + 0.75 / dot.size)
    assert attention_shift(part) == pytest.approx(0.25)
    part["map"][0, :3] = 0  # of points that change nothing
    assert attention_shift(part) == pytest.approx(0.25)


def test_attention_beside_the_digit_moves_with_it_though_the_ratio_does_not_see_it():
    beside = maps_on_digits(lambda dot: np.roll(dot, 6, 0))
    assert attention_ratio(beside) is None and attention_shift(beside) == pytest.approx(1)


def test_attention_of_one_map_or_none_cannot_be_said_to_follow():
    one = {name: values[:1] for name, values in maps_on_digits(lambda dot: dot).items()}
    none = {name: values[:0] for name, values in one.items()}
    empty = maps_on_digits(np.zeros_like)
    everywhere = maps_on_digits(lambda dot: dot)  # images of one's own, nowhere quite black
    everywhere["input"] += 0.1
    for maps in (one, none, empty, everywhere):
        assert attention_ratio(maps) is None and attention_shift(maps) is None
