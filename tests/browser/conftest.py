"""An explorer of a small study with texts that pages break on, in a headless Chromium."""

import shutil

import pytest
from browser_visit import HOSTILE, Visit, visits
from clones import Clone
from playwright.sync_api import sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium for all tests."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("The explorer's tests need Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A clone with the explorer of a small study: two models, two seeds, hostile texts, a picture of one's own."""
    clone = Clone(tmp_path_factory.mktemp("explored") / "clone")
    vocabulary = ["red", "blue", "green", "a three", "a seven", "grass", "wood", "stars", "on the left", "at the top"]
    texts = [*HOSTILE, *(f"a photo of {word}" for word in vocabulary)]
    (clone.directory / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    digits = clone.config["datasets"]["digits"] | {"pairs": False}
    digits["demo"] = {"images": 120}
    digits["roles"] = {"fit": {"split": "train", "per_class": 3}, "eval": {"split": "test", "per_class": 3}}
    requested = {"model": "demo", "dataset": "digits"}
    pictures = ["config/demo/example.png", "own/test-00003.png"]
    clone.configure(
        models={name: clone.demo["models"][name] for name in ("demo", "demo-biased")},
        datasets={"digits": digits},
        texts={"hostile": {"file": "texts.txt"}},
        evaluation={"methods": ["components", "textspan", "sparse", "weights"], "budgets": [0, 2]},
        segmentation={"methods": ["decomposition"]},
        queries={"stars": requested | {"text": "a photo of stars"}},
        neighbours={"like-the-example": requested | {"image": "config/demo/example.png"}},
        interventions={"more-seven": {**clone.demo["interventions"]["more-four"], "about": {}}},
    )
    assert clone.snakemake("results/data/digits/manifest.csv").returncode == 0
    (clone.directory / "own").mkdir()
    shutil.copy(clone.directory / "results" / "data" / "digits" / "images" / "test-00003.png", clone.directory / "own")
    clone.configure(explorer={"pictures": pictures})
    result = clone.snakemake("explorer")
    assert result.returncode == 0, result.stdout
    return clone


@pytest.fixture(scope="session")
def explorer(study, tmp_path_factory):
    """The page's folder, passed on: somewhere else, under a name with a blank and more."""
    folder = tmp_path_factory.mktemp("passed on") / "my explorer, é #1"
    shutil.copytree(study.directory / "results" / "explorer", folder)
    return folder


@pytest.fixture
def visit(chromium, explorer):
    """A function that opens the page."""
    with visits(Visit, chromium, explorer) as open_page:
        yield open_page
