"""The page to explore: it holds what the files hold, and a real browser shows and picks it."""

import base64
import json
import re
import zlib

import h5py
import numpy as np
import pytest
from test_evaluation_pixels import save_data, save_model
from test_report_figures import files, run  # noqa: F401

from mg.data import hdf5
from mg.errors import UserError
from mg.evaluation.attention import POINT_NAMES
from mg.evaluation.evaluate import evaluate
from mg.report.explorer import write_explorer
from mg.report.figures.panels import digit_colours
from mg.report.figures.saliency import HUES, saliency_image, saliency_levels
from mg.report.figures.segmentation import error_colours


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):  # noqa: F811
    """An explorer of segmentation and translation, three networks each."""
    path = tmp_path_factory.mktemp("a page") / "explorer.html"
    write_explorer(
        [run / "translation/test.h5", run / "segmentation/test.h5"],
        files(run, "predictions.h5"),
        path,
        saliency_paths=files(run, "saliency.h5"),
        count=4,
        run="<tiny> & Co.",
    )
    return path


def content(path):
    text = path.read_text()
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', text, re.S)
    return json.loads(found[1])


def unpacked(text, *shape):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(shape)


def test_the_page_tells_which_networks_are_controls(page, run, tmp_path):  # noqa: F811
    assert "of our own" not in page.read_text()
    data = run / "translation/test.h5"
    model = save_model(tmp_path / "model.pt", "translation", label="sg")
    evaluate(model, data, metrics_path=tmp_path / "m.json", predictions_path=tmp_path / "p.h5")
    write_explorer([data], [tmp_path / "p.h5"], tmp_path / "page.html")
    assert "<li>SG: of our own, as a control" in (tmp_path / "page.html").read_text()


def test_the_page_holds_what_the_files_hold(page, run):  # noqa: F811
    held = content(page)
    assert [task["name"] for task in held["tasks"]] == ["Segmentation", "Translation"]
    assert [network["name"] for network in held["networks"]] == ["U-NET", "PMG", "my_own_net"]
    assert [point["name"] for point in held["points"]] == list(POINT_NAMES)
    for task, channels in zip(held["tasks"], (10, 1), strict=True):
        name = task["name"].lower()
        data = hdf5.load(run / name / "test.h5")
        assert task["index"] == [0, 1, 2, 3] and task["channels"] == channels
        truth = unpacked(task["truth"], 4, channels, 16, 16)
        assert ((truth == 255) == (data.y[:4] == 1)).all() and set(np.unique(truth)) == {0, 255}
        assert np.abs(unpacked(task["input"], 4, 1, 16, 16) / 255 - data.x[:4]).max() < 0.003
        with h5py.File(run / f"models/{name}/pmg/seed0/predictions.h5") as file:
            stored = file["prediction"][:4].astype(np.float32)
        output = unpacked(task["networks"]["pmg"]["output"], *stored.shape)
        assert np.abs(output / 255 - stored).max() < 0.003
        assert ((output >= 128) == (stored >= 0.5)).all()
    assert all(network["maps"] is None for network in held["tasks"][0]["networks"].values())

    maps = held["tasks"][1]["networks"]["pmg"]["maps"]
    with h5py.File(run / "models/translation/pmg/seed0/saliency.h5") as file:
        index, points, stored = (file[name][:] for name in ("index", "points", "map"))
    assert maps["places"] == index.tolist() and maps["points"] == points.tolist()
    levels = unpacked(maps["levels"], *stored.shape)
    assert (levels[1, 3] == saliency_levels(stored[1, 3])).all() and levels.max() == 10


def test_examples_with_maps_are_shown_wherever_they_lie(run, tmp_path):  # noqa: F811
    paths = [run / "translation/test.h5"], files(run, "predictions.h5", "translation")
    maps = files(run, "saliency.h5")
    write_explorer(*paths, tmp_path / "one.html", saliency_paths=maps, count=1)
    (task,) = content(tmp_path / "one.html")["tasks"]
    (first,) = files(run, "saliency.h5", "translation")[:1]
    with h5py.File(first) as file:
        assert set(task["index"]) >= {0, *file["index"][:].tolist()}


def test_maps_of_another_test_set_are_refused(run, tmp_path):  # noqa: F811
    (maps,) = files(run, "saliency.h5", "translation")[-1:]
    fewer, larger = (
        save_data(tmp_path / f"{n}-{size}.h5", "translation", n=n, size=size)
        for n, size in ((1, 16), (6, 32))
    )
    whole = hdf5.load(run / "translation/test.h5")
    other = tmp_path / "other.h5"
    hdf5.write(other, [(1 - whole.x, whole.y)], whole.attributes)
    for data in (fewer, larger, other):
        with pytest.raises(UserError, match=f"maps of unet are not of the inputs in {data}"):
            write_explorer([data], [], tmp_path / "e.html", saliency_paths=[maps])
    assert not (tmp_path / "e.html").exists()


def test_a_set_may_call_its_task_as_the_authors_do(run, tmp_path):  # noqa: F811
    data = save_data(tmp_path / "test.h5", "mnist-tra", n=6)
    predictions = files(run, "predictions.h5", "translation")
    write_explorer([data], predictions, tmp_path / "page.html")
    (task,) = content(tmp_path / "page.html")["tasks"]
    assert task["name"] == "Translation" and len(task["networks"]) == 3


def test_what_does_not_belong_is_refused(run, tmp_path):  # noqa: F811
    data, predictions = [run / "translation/test.h5"], files(run, "predictions.h5", "segmentation")
    with pytest.raises(UserError, match="is of segmentation, which no test set is given for"):
        write_explorer(data, predictions, tmp_path / "e.html")
    with pytest.raises(UserError, match="at least one"):
        write_explorer([], [], tmp_path / "e.html")
    with pytest.raises(UserError, match="are both of translation"):
        write_explorer(data * 2, [], tmp_path / "e.html")
    (tmp_path / "p.h5").write_text("nothing")
    with pytest.raises(UserError, match="p.h5 is not a file of predictions"):
        write_explorer(data, [tmp_path / "p.h5"], tmp_path / "e.html")
    assert not (tmp_path / "e.html").exists()


# ------------------------------------------------------------------------------ in a browser

CARDS = """return [...document.querySelectorAll('#cards figure')].map(card => [
  card.querySelector('figcaption').firstChild.textContent,
  card.querySelectorAll('canvas').length])"""

# The pixels of a card's canvas as colours, one per pixel of the image.
PIXELS = """
const [card, row, size] = arguments;
const canvas = document.querySelectorAll('#cards figure')[card].querySelectorAll('canvas')[row];
const copy = Object.assign(document.createElement('canvas'), { width: size, height: size });
const pen = copy.getContext('2d', { willReadFrequently: true });
pen.imageSmoothingEnabled = false;
pen.drawImage(canvas, 0, 0, size, size);
return [...pen.getImageData(0, 0, size, size).data]"""


def pixels(browser, card, row, size=16):
    """The colours (size, size, 3) of a picture of a card."""
    return np.array(browser.run(PIXELS, card, row, size)).reshape(size, size, 4)[:, :, :3]


def chosen(browser):
    script = "return document.querySelector('[name=point]:checked')?.parentElement.textContent"
    return browser.run(script)


def values(browser):
    """The table of values as rows of text."""
    script = """return [...document.querySelectorAll('#values tbody tr')].map(
      row => [...row.cells].map(cell => cell.textContent))"""
    return browser.run(script)


def test_a_browser_shows_and_picks(page, run, browser):  # noqa: F811
    from selenium.webdriver.support.ui import Select

    browser.open(page)
    browser.wait("document.querySelectorAll('#cards canvas').length > 4")
    assert browser.driver.title == "Explore run <tiny> & Co."
    heading = "document.getElementById('heading').textContent"
    assert browser.run(f"return {heading}") == "Translation, test image 0"

    # Translation: every network with its map, at the point that is picked, drawn as in the panel.
    with h5py.File(run / "models/translation/pmg/seed0/saliency.h5") as file:
        assert file["index"][0] == 0
        points, maps, image = file["points"][0], file["map"][0], file["input"][0, 0]
    cards = [["input", 1], ["truth", 1], ["U-NET", 2], ["PMG", 2], ["my_own_net", 2]]
    assert browser.run(CARDS) == cards
    for key, point in (("1", 0), ("4", 3)):
        browser.press(key)
        browser.wait(f"document.querySelector('[name=point]:checked')?.value == {point}")
        assert chosen(browser) == POINT_NAMES[point]
        expected = saliency_image(maps[point], image, HUES[point])
        shown = pixels(browser, 3, 1)
        np.testing.assert_allclose(shown, expected * 255, atol=2)
        assert ["PMG", *map(str, points[point])] in [row[:3] for row in values(browser)]

    # A click on an answer picks the nearest of its points; on the input, the pixel.
    script = """const [card, y, x, size] = arguments;
    const canvas = document.querySelectorAll('#cards figure')[card].querySelector('canvas');
    canvas.scrollIntoView({ block: 'center' });
    const box = canvas.getBoundingClientRect();
    canvas.dispatchEvent(new MouseEvent('click', { bubbles: true,
      clientX: box.left + (x + .5) / size * box.width,
      clientY: box.top + (y + .5) / size * box.height }))"""
    y, x = map(int, points[6])
    browser.run(script, 3, y, x, 16)
    browser.wait("document.querySelector('[name=point]:checked')?.value > 3")
    browser.run(script, 0, 5, 9, 16)
    browser.wait("!document.querySelector('[name=point]:checked')")
    assert browser.run("return [row.value, column.value].join()") == "5,9"
    data = hdf5.load(run / "translation/test.h5")
    assert values(browser)[0] == ["truth", "5", "9", f"{data.y[0, 0, 5, 9]:.2f}"]

    # Keys and radio buttons go through the examples; one without maps says so.
    browser.press("\ue014")  # arrow right
    browser.wait(f"{heading} == 'Translation, test image 1'")
    browser.run("document.querySelector('[name=example][value=\"3\"]').click()")
    browser.wait(f"{heading} == 'Translation, test image 3'")

    # Segmentation: classes and errors of every network, and the values of every class at a pixel.
    Select(browser.driver.find_element("id", "task")).select_by_visible_text("Segmentation")
    browser.wait(f"{heading} == 'Segmentation, test image 0'")
    assert browser.run(CARDS) == cards
    assert not browser.driver.find_element("id", "points").is_displayed()
    data = hdf5.load(run / "segmentation/test.h5")
    with h5py.File(run / "models/segmentation/unet/seed0/predictions.h5") as file:
        output = file["prediction"][0].astype(np.float32)
    shown = pixels(browser, 1, 0)
    expected = digit_colours(data.y[0]) * 255
    away = np.hypot(*np.indices((16, 16)) - 8) > 3  # from the mark at the middle
    np.testing.assert_allclose(shown[away], expected[away], atol=2)
    shown = pixels(browser, 2, 1)
    expected = error_colours(output >= 0.5, data.y[0] > 0) * 255
    np.testing.assert_allclose(shown[away], expected[away], atol=2)
    row = next(row for row in values(browser) if row[0] == "U-NET")
    assert row[1:3] == ["8", "8"]
    np.testing.assert_allclose([float(v) for v in row[3:]], output[:, 8, 8], atol=0.011)

    # Going on to the next example before the other task is there.
    browser.run("""const choice = document.getElementById('task');
    choice.selectedIndex = 1;
    choice.dispatchEvent(new Event('change'));
    const key = new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true });
    document.body.dispatchEvent(key)""")
    browser.wait(f"{heading} == 'Translation, test image 1'")
    assert browser.driver.find_element("id", "points").is_displayed()
    browser.check_quiet(page)


def test_a_browser_can_be_dark_and_narrow(page, browser):
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    narrow = {"width": 420, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    try:
        browser.open(page)
        browser.wait("document.querySelectorAll('#cards canvas').length > 4")
        ink, ground = (
            sum(map(int, re.findall(r"\d+", colour)[:3]))
            for colour in browser.run(
                "const style = getComputedStyle(document.querySelector('.mg'));"
                "return [style.color, style.backgroundColor]"
            )
        )
        assert ink > 500 and ground < 150
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        browser.check_quiet(page)
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_everything_to_pick_has_a_name_and_can_be_reached_by_key(page, browser):
    browser.open(page)
    browser.wait("document.querySelectorAll('#cards canvas').length > 4")
    nameless = browser.run(
        """return [...document.querySelectorAll('select, input, canvas[role]')].filter(e =>
          !e.ariaLabel && !e.labels?.[0]?.textContent.trim()).map(e => e.outerHTML)"""
    )
    assert nameless == []
    seen = set()
    for _ in range(6):
        browser.press("\ue004")  # tab
        seen.add(browser.run("return document.activeElement.id || document.activeElement.name"))
    assert {"task", "example", "point", "row", "column"} <= seen
