"""What several tests share: one thread per process, and a small data set."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mg.signals import STOPPING, WARNINGS

# Several tests compare results bit for bit; threads of a shared machine only slow them down.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
# Where tests are started in the background or by nohup, these are ignored, and so by what they
# interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """What `mg`, called in the tests' own process, makes of signals ends with the test."""
    numbers = (*STOPPING, *WARNINGS, signal.SIGALRM, signal.SIGCHLD)
    before, hook = {number: signal.getsignal(number) for number in numbers}, sys.unraisablehook
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    sys.unraisablehook = hook


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with train.h5 and valid.h5: 64 and 32 images of 16x16, squares as targets."""
    from mg.data import hdf5

    folder = tmp_path_factory.mktemp("tiny")
    random = np.random.default_rng(0)
    for split, count in (("train", 64), ("valid", 32)):
        y = np.zeros((count, 1, 16, 16), np.uint8)
        for image, (top, left) in zip(y, random.integers(0, 10, (count, 2)), strict=True):
            image[0, top : top + 6, left : left + 6] = 1
        x = np.clip(y * 0.8 + random.uniform(0, 0.2, y.shape), 0, 1).astype(np.float32)
        attributes = {"task": "translation", "split": split, "mode": "independent", "seed": 0}
        hdf5.write(folder / f"{split}.h5", [(x, y)], attributes | {"canvas": 16})
    return folder


@pytest.fixture
def add_network(monkeypatch) -> Callable[[Callable], None]:
    """Adds a network "new" for the MNIST tasks, which a builder (channels, classes) makes."""
    from mg.networks import mnist, registry, settings

    def add(builder: Callable) -> None:
        entry = registry.Network(lambda: settings.Settings({}), residual=False)
        monkeypatch.setitem(registry.NETWORKS["mnist"], "new", entry)
        monkeypatch.setattr(mnist, "new", builder, raising=False)

    return add


@pytest.fixture(scope="session")
def mnist_directory() -> Path:
    """The folder of the real MNIST files, fetched if they are not there yet."""
    from mg.data import mnist

    folder = Path(__file__).parent.parent / "resources/mnist"
    mnist.fetch(folder, mnist.SOURCES)
    return folder


class Browser:
    """A headless Chromium that notes what its pages ask for and complain about."""

    def __init__(self, folder: Path) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for switch in (
            *("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-sync"),
            *("disable-background-networking", "disable-component-update", "disable-quic"),
            f"user-data-dir={folder}",
            "window-size=1300,1000",
        ):
            options.add_argument(f"--{switch}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options, service)
        self.driver.implicitly_wait(0)

    def open(self, path: Path) -> None:
        """Show a file; what earlier pages did is forgotten."""
        self.driver.get("about:blank")
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(path.as_uri())

    def wait(self, script: str, seconds: float = 60):
        """The value of a JavaScript expression as soon as it is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(self.driver, seconds)
        return wait.until(lambda driver: driver.execute_script(f"return {script}"), script)

    def run(self, script: str, *arguments):
        """Run JavaScript in the page; what it returns."""
        return self.driver.execute_script(script, *arguments)

    def press(self, keys: str) -> None:
        """Type into what has the focus."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()

    def check_quiet(self, path: Path) -> None:
        """Nothing but `path` was asked for since it was opened, and the console is empty."""
        asked = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.add(message["params"]["request"]["url"].partition("#")[0])
            assert message["method"] != "Network.webSocketCreated", message
        foreign = {url for url in asked - {path.as_uri()} if not url.startswith(("data:", "blob:"))}
        assert path.as_uri() in asked and not foreign
        own = "cdn.tailwindcss.com should not be used in production"  # Snakemake's, in its report
        complaints = [entry["message"] for entry in self.driver.get_log("browser")]
        assert [message for message in complaints if own not in message] == []


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Browser]:
    """A real browser; tests that need one are skipped where Debian's Chromium is not installed."""
    for program in ("chromium", "chromedriver"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed (apt-get install chromium chromium-driver)")
    started = Browser(tmp_path_factory.mktemp("browser"))
    yield started
    started.driver.quit()
