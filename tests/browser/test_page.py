"""The explorer from disk: by keyboard and by phone, links and the way back, hostile texts, what is missing."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import axe_playwright_python
import pandas as pd
import pytest
from browser_visit import HOSTILE, Visit, change_part, read_part
from clones import ROOT
from playwright.sync_api import expect

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
RUN = "runs/demo/digits/seed-0/hostile"
SCREENS = {
    "map": "",
    "scatter": "#x=norm&y=first",
    "head": "#v=head&h=3.1&c=1",
    "textspan": "#v=head&h=3.1&k=textspan",
    "sparse": "#v=head&h=3.1&k=sparse",
    "search": "#v=search&q=photo",
    "text": "#v=search&i=a+photo+of+stars",
    "value": "#v=search&f=texture&w=stars",
    "compare": "#v=compare&h=3.1",
    "pictures": "#v=picture",
    "picture": "#v=picture&p=images/test-00003.png",
    "own": "#v=picture&o=example.png",
    "proof": "#v=proof",
    "entries": "#v=entries",
    "intervention": "#v=entries&e=entries/interventions/more-seven/demo",
    "query": "#v=entries&e=entries/queries/stars",
    "neighbours": "#v=entries&e=entries/neighbours/like-the-example",
    "spatial": "#v=entries&e=entries/spatial/red-three",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_every_screen_is_accessible(visit, screen, scheme):
    opened = visit(SCREENS[screen], color_scheme=scheme, reduced_motion="reduce")
    assert not opened.page.locator("[role=alert]").count()
    opened.page.evaluate(AXE)
    violations = opened.page.evaluate("axe.run({preload: false})")["violations"]
    serious = [
        f"{found['id']}: {node['html'][:200]}"
        for found in violations
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"]
    ]
    assert not serious


@pytest.mark.parametrize("screen", SCREENS)
def test_every_screen_fits_a_phone(visit, screen):
    page = visit(SCREENS[screen], width=360).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_by_keyboard_from_the_map_to_a_component_and_back(visit):
    opened = visit()
    keyboard, page = opened.page.keyboard, opened.page
    for _ in range(30):
        keyboard.press("Tab")
        if "layer 0, head 0" in opened.focused():
            break
    assert "layer 0, head 0" in opened.focused()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        keyboard.press(key)
    assert opened.focused().startswith("layer 2, head 1: ")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    expect(page.locator(".pointed h2")).to_have_text("Layer 2, head 1")
    keyboard.press("Enter")
    page.wait_for_selector(".card")
    page.wait_for_function("document.activeElement.tagName === 'H1'")
    assert page.locator("h1").inner_text().startswith("Layer 2, head 1")
    for _ in range(40):
        keyboard.press("Tab")
        if opened.focused().startswith("component 0:"):
            break
    keyboard.press("ArrowRight")
    assert opened.focused().startswith("component 1:")
    keyboard.press("Enter")
    expect(page.locator(".card.current h2")).to_have_text("Component 1")
    keyboard.press("j")
    expect(page.locator(".card.current h2")).to_have_text("Component 2")
    for component in range(3, 9):  # past the end of this page of cards
        keyboard.press("j")
        expect(page.locator(".card.current h2")).to_have_text(f"Component {component}")
    page.wait_for_function("document.activeElement.textContent.trim() === 'Component 8'")
    page.go_back()
    page.go_back()
    page.wait_for_selector(".grid")
    page.go_forward()
    page.wait_for_selector(".card")
    assert page.locator("h1").inner_text().startswith("Layer 2, head 1")
    keyboard.press("?")
    expect(page.locator("dialog[open] kbd").first).to_be_visible()
    keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)


def test_from_a_search_to_components_that_have_the_text(visit):
    opened = visit()
    page = opened.page
    page.keyboard.press("/")
    page.wait_for_function("document.activeElement.id === 'search'")
    page.keyboard.type("STARS photo", delay=120)  # slowly: the address follows while keys are pressed
    assert page.locator("#search").input_value() == "STARS photo"
    page.wait_for_function("document.querySelectorAll('.results .texts a').length === 1")
    page.wait_for_function("location.hash.includes('STARS')")
    page.locator(".results .texts a").click()
    page.wait_for_selector(".places tbody tr")
    page.locator("#search").fill("grass")  # and open a text before the keys have rested
    page.locator(".results .texts a", has_text="a photo of grass").click()
    page.wait_for_timeout(400)
    assert "i=a+photo+of+grass" in opened.hash()
    page.go_back()
    expect(page.locator(".places h2")).to_have_text("“a photo of stars”")
    shown = [row.inner_text().split("\t") for row in page.locator(".places tbody tr").all()]
    page.locator(".places tbody a").first.click()
    page.wait_for_selector(".card.current")
    place, pole, naming = shown[0]
    assert page.locator("h1").inner_text().lower().startswith(place.split(", component")[0])
    assert page.locator("[aria-label=Names] [aria-current]").inner_text() == naming.split(", ")[0]
    side = ".pole.top" if pole == "+" else ".pole.bottom"
    assert "a photo of stars" in page.locator(f".card.current {side} .texts").inner_text()


def test_a_link_brings_another_machine_to_the_same_view(visit, explorer, tmp_path):
    opened = visit("#v=compare&h=3.0")
    page = opened.page
    page.locator(".side").nth(1).locator("select").first.select_option("demo-biased")
    page.wait_for_function("location.hash.includes('demo-biased')")
    opened.ready()
    page.locator(".side").nth(1).get_by_role("link", name="Sparse sums").click()
    page.wait_for_function("location.hash.includes('sparse')")
    opened.ready()
    before, address = page.locator("main").inner_text(), opened.hash()
    page.reload()
    opened.ready()
    assert page.locator("main").inner_text() == before
    other = shutil.copytree(explorer, tmp_path / "other")
    assert visit(address, folder=other).page.locator("main").inner_text() == before


def test_texts_are_data_whatever_they_hold(visit, explorer):
    texts = read_part(explorer / "texts" / "hostile.js")
    assert set(HOSTILE) <= set(texts)
    for text in HOSTILE:
        opened = visit()
        opened.page.keyboard.press("/")
        opened.page.wait_for_function("document.activeElement.id === 'search'")
        opened.page.locator("#search").fill(text)
        shown = opened.page.locator(".results .texts a bdi").first
        assert shown.text_content() == text
        assert shown.get_attribute("dir") == "auto"
        opened.page.locator(".results .texts a").first.click()
        opened.page.wait_for_selector(".places h2")
        assert text in opened.page.locator(".places h2").text_content()
        assert not opened.page.locator("main script, main img").count()
        opened.page.reload()  # from its address
        opened.ready()
        assert text in opened.page.locator(".places h2").text_content()


def test_an_own_picture_that_is_one_of_the_dataset_has_the_same_components(visit, explorer):
    """The activations of the dataset's picture come from the extraction, those of one's own from another job."""
    overview = read_part(explorer / RUN / "overview.js")
    own = next(part for part in overview["own"] if part["name"] == "test-00003.png")
    pictures = read_part(explorer / "pictures" / "digits" / "list.js")["names"]
    number = pictures.index("images/test-00003.png")
    stored = read_part(explorer / RUN / "pictures" / f"{number // 100}.js")[str(number)]
    assert [row[:2] for row in own["components"]] == [row[:2] for row in stored["components"]]
    assert [row[2] for row in own["components"]] == pytest.approx([row[2] for row in stored["components"]], rel=0.01)
    assert own["neighbours"][0] == [number, 1]
    page = visit("#v=picture&o=test-00003.png").page
    assert page.locator(".maps .over").count() == len(own["maps"]) == 8
    assert page.locator(".maps a").first.get_attribute("href").startswith("#v=head")


def test_a_link_to_what_is_not_there_says_so(visit):
    for address, sentence in {
        "#m=another": "asks for the model “another”, which this explorer does not have",
        "#v=head&h=9.9": "demo has no head “9.9” here: its layers are 0 to 3, each with 3 heads.",
        "#v=picture&p=lost.png": "“lost.png” is not among the",
        "#v=search&i=no+such+text": "“no such text” is not in the pool hostile",
        "#v=entries&e=entries/queries/gone": "no entry “entries/queries/gone”",
    }.items():
        assert sentence in visit(address).page.locator("[role=alert]").inner_text()
    for address in ("#v=nonsense&c=-5&by=x&h=", "#v=constructor", "#v=__proto__"):
        assert visit(address).page.locator("h1").inner_text() == "Every head of demo on digits"
    short = visit("#m=demo&d=digits&s=0&h=3.1&c=0").page  # of a screen that it does not name
    assert short.locator(".card.current h2").inner_text() == "Component 0"
    assert visit("#v=picture&f=constructor&w=x").page.locator("h1").inner_text() == "Pictures of digits"


def test_an_intervention_is_that_of_the_seed_that_is_chosen(visit, study):
    opened = visit(SCREENS["intervention"])
    for seed in ("0", "1"):
        opened.page.get_by_label("seed").select_option(seed)
        folder = study.directory / "results" / "interventions" / "more-seven" / "demo" / f"seed-{seed}"
        edited = pd.read_csv(folder / "summary.csv").query("setting == 'edited' and role == 'eval'").iloc[0]
        row = opened.page.get_by_role("region", name="Before and after").locator("tr", has_text="edited").first
        expect(row.locator("td").nth(3)).to_have_text(f"{edited['units']}")
        expect(row.locator("td").nth(4)).to_have_text(f"{edited['accuracy']:.3g}")
        unit = pd.read_csv(folder / "units.csv").iloc[0]
        cells = opened.page.get_by_role("region", name="Units").locator("tbody tr").first.locator("td")
        place = f"layer {unit['layer']:.0f}, head {unit['head']:.0f}, component {unit['component']:.0f}"
        expect(cells.first).to_have_text(place)
        expect(cells.nth(2)).to_have_text(f"{100 * unit['share']:.3g}")


def test_every_screen_says_that_images_are_a_sample(chromium, explorer, tmp_path):
    words = "20 of 59 fit images (train) · means and components of all fit images"
    folder = shutil.copytree(explorer, tmp_path / "sampled")
    change_part(folder / "index.js", lambda index: index | {"samples": {"digits/0": words}})
    opened = Visit(chromium, folder)
    for address in SCREENS.values():
        opened.open(address)
        note = opened.page.locator("main > .note").first.inner_text()
        assert note.endswith(f"neighbours are of a sample of digits, seed 0: {words}.")
    opened.open("#v=proof")
    assert words in opened.page.locator(".facts").inner_text()
    opened.open("#s=1")
    assert words not in opened.page.locator("main").inner_text()
    opened.context.close()
    assert not opened.problems


def test_files_of_another_version_and_lost_files_are_named(chromium, explorer, tmp_path):
    older = shutil.copytree(explorer, tmp_path / "older")
    change_part(older / "index.js", lambda index: index | {"version": 0})
    opened = Visit(chromium, older)
    assert "written as version 0, but this page reads version 1" in opened.page.locator("[role=alert]").inner_text()
    opened.context.close()
    partial = shutil.copytree(explorer, tmp_path / "partial")
    (partial / RUN / "heads" / "3.1.js").unlink()
    opened = Visit(chromium, partial, "#v=head&h=3.1")
    assert f"{RUN}/heads/3.1.js is not in this folder" in opened.page.locator("[role=alert]").inner_text()
    opened.context.close()


def test_the_first_view_loads_little(visit, explorer):
    """The size that the promise of docs/explorer.md is about is measured by tools/benchmark_explorer.py."""
    opened, loaded = visit("#v=proof"), []
    opened.page.on("request", lambda request: loaded.append(request.url))
    opened.open("")
    assert not [url for url in loaded if re.search(r"texts/|heads/|plot\.js|search/", url)]


def test_the_same_results_give_the_same_bytes(study):
    folder = study.directory / "results" / "explorer"
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    forced = study.snakemake(
        "--forcerun", "explore_components", "draw_thumbnails", "map_pictures", "explorer", "--", "explorer"
    )
    assert forced.returncode == 0, forced.stdout
    after = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert before == after
    assert not [path for path, content in after.items() if str(study.directory).encode() in content]


def test_the_benchmark_runs(chromium, tmp_path):
    """It hands the rules' scripts what Snakemake would: on a small study, for its table alone."""
    sizes = ["--layers", "2", "--heads", "2", "--components", "8", "--texts", "200", "--pictures", "150"]
    command = [sys.executable, ROOT / "tools" / "benchmark_explorer.py", *sizes, "--folder", tmp_path / "study"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "| first view: all" in run.stdout


def test_an_explorer_of_a_part_says_what_is_missing(study, visit, tmp_path):
    config = study.config | {"explorer": {"models": ["demo"]}}
    (study.directory / "config" / "part.yaml").write_text(json.dumps(config))
    result = study.snakemake("--configfile", "config/part.yaml", "--", "explorer")
    assert result.returncode == 0, result.stdout
    page = visit("#v=proof", folder=study.directory / "results" / "explorer").page
    sentence = page.locator("main li", has_text="demo-biased").inner_text()
    assert sentence.startswith("The model demo-biased is not in this explorer")
    assert sentence.endswith("snakemake --cores all explorer")
