"""The report of a small study, unpacked and opened from disk: its first page, its chapters, and its links."""

import json
import re
import shutil
import zipfile

import pytest
from browser_visit import Visit, visits
from clones import ROOT

from clipspectra import InputError
from clipspectra.paper.report import complete_report, completed_page

HOSTILE_NAMES = ["?__import__('os')", "<script>alert(1)</script>", "$x$ `y` **z** {{ 1 }}", "a & b", "</script><b>c"]
STUDY = {
    "version": "0.10.0",
    "commit": "abc1234",
    "seeds": [0, 1],
    "protocol": "held_out",
    "sample": None,
    "models": [{"name": "demo", "architecture": "small", "pretrained": "a file", "layers": 4, "heads": 3}],
    "datasets": [{"name": "digits", "classes": 10, "roles": {"fit": {"images": 30, "split": "train"}}}],
    "texts": [{"name": "hostile", "count": 16}],
    "findings": [{"chapter": "Accuracy", "sentence": "demo is right on 8 of 10 images."}],
}


class ReportVisit(Visit):
    """A report in the browser."""

    def check_request(self, request):
        if not request.url.startswith(("chrome://", "chrome-extension://")):  # the browser's own viewer of PDF files
            super().check_request(request)

    def open(self, address):
        self.page.goto((self.folder / "report.html").absolute().as_uri() + address)
        self.page.wait_for_selector("nav ul")

    def menu(self, name):
        """Open a folder of the menu, or a link of a caption."""
        self.page.locator("nav").get_by_role("link", name=name, exact=True).click()

    def row(self, title, button):
        """Press a button of a listed result: eye or information-circle."""
        self.page.locator("nav tr", has_text=title).locator(f"a[iconname={button}]").click()

    def shown(self):
        """Width of the picture that the page shows, once it is loaded."""
        self.page.wait_for_function("document.querySelector('.p-3 > img')?.naturalWidth")
        return self.page.locator(".p-3 > img").get_attribute("src")


@pytest.fixture(scope="session")
def made(study):
    """The study with its report, and Snakemake's own beside it."""
    result = study.snakemake("--notemp", "--", "report")
    assert result.returncode == 0, result.stdout
    return study.directory / "results"


def unpacked(archive, folder):
    """The folder of a report, passed on: somewhere else, under a name with a blank and more."""
    shutil.unpack_archive(archive, folder / "my report, é #1")
    return folder / "my report, é #1" / "report"


@pytest.fixture(scope="session")
def report(made, tmp_path_factory):
    return unpacked(made / "report.zip", tmp_path_factory.mktemp("report"))


@pytest.fixture
def visit(chromium, report):
    """A function that opens the report."""
    with visits(ReportVisit, chromium, report) as open_report:
        yield open_report


def test_the_first_page_says_what_was_run_and_found(visit, made):
    study = json.loads((made / "study.json").read_text())
    page = visit().page
    said = page.locator(".page").all_inner_texts()
    for finding in study["findings"]:
        assert finding["sentence"] in said[0]
    for entry in (*study["models"], *study["datasets"], *study["texts"]):
        assert entry["name"] in said[1]
    assert f"clipspectra {study['version']}" in said[1]


def test_a_finding_leads_to_its_chapter(visit):
    page = visit().page
    link = page.locator(".page li a").first
    chapter = link.inner_text()
    link.click()
    page.locator("nav ol").get_by_text(re.compile(rf"\d+ {chapter}")).wait_for()


def test_the_folders_are_the_chapters_in_order(visit):
    names = visit().page.locator("nav a span").all_inner_texts()
    folders = [name for name in names if re.match(r"\d\d ", name)]
    assert folders == sorted(folders)
    assert {"00 Overview", "01 Data and models", "03 Heads", "13 Exactness"} <= set(folders)


def test_a_switch_changes_the_model_of_a_figure(visit):
    opened = visit()
    opened.menu("03 Heads")
    opened.menu("digits")
    opened.row("Heads map", "eye")
    first = opened.shown()
    opened.page.locator("nav fieldset label", has_text="demo-biased").click()
    opened.page.wait_for_function("src => document.querySelector('.p-3 > img')?.getAttribute('src') !== src", arg=first)
    assert opened.shown().endswith("heads-map.png")


def test_a_caption_leads_to_what_belongs_with_it(visit):
    opened = visit()
    opened.menu("04 Recovery")
    opened.menu("Tables")
    opened.row("Accuracy that explanations recover", "information-circle")
    caption = opened.page.locator("nav .prose")
    assert "Zero-shot accuracy in %" in caption.inner_text()
    caption.get_by_role("link", name="demo-biased", exact=True).click()
    assert opened.shown().endswith("recovery.png")
    caption.get_by_role("link", name="Accuracy that explanations recover (table)").click()
    opened.page.get_by_text("results/tables/recovery.csv").first.wait_for()


def test_all_links_of_captions_lead_somewhere(visit):
    """And no caption has a mark that docutils did not understand."""
    captions = visit().page.evaluate("Object.fromEntries(Object.entries(results).map(([p, r]) => [p, r.caption]))")
    targets = re.findall(r"resultPath%22%3A%20%22(.*?)%22", "".join(captions.values()))
    assert len(targets) > 20
    assert {target.replace("%2F", "/") for target in targets} <= set(captions)
    assert not [path for path, caption in captions.items() if "system-message" in caption]


def test_the_explorer_opens_inside(visit):
    opened = visit()
    opened.page.locator(".page").get_by_role("link", name="the explorer").click()
    heading = opened.page.frame_locator("iframe").locator("h1")
    assert heading.inner_text() == "Every head of demo on digits"


def test_it_does_not_say_where_it_was_made(study, report):
    assert str(study.directory) not in (report / "report.html").read_text(encoding="utf-8")


def test_the_paper_opens_inside(visit, made, report):
    opened = visit()
    opened.page.locator(".page").get_by_role("link", name="the paper").click()
    inside = report / opened.page.locator("iframe").get_attribute("src")
    assert inside.read_bytes() == (made / "paper.pdf").read_bytes()


def test_names_are_data(visit, made, tmp_path):
    """On the first page, and in the parameters of jobs, which Snakemake writes into a script element as they are."""
    named = [{**STUDY["models"][0], "name": name, "pretrained": name} for name in HOSTILE_NAMES]
    findings = [{"chapter": name, "sentence": name} for name in HOSTILE_NAMES]
    hostile = STUDY | {"models": named, "findings": findings, "commit": ""}

    def complete(page):
        page = page.replace("naming=fires_on", "naming=</script><script>alert(1)</script><!--<script>")
        return completed_page(page, hostile, {}, [], [ROOT])

    complete_report(made / "report-parts" / "report.zip", tmp_path / "report.zip", complete)
    opened = visit(folder=unpacked(tmp_path / "report.zip", tmp_path))
    for part in opened.page.locator(".page").all_inner_texts()[:2]:
        for name in HOSTILE_NAMES:
            assert name in part
    opened.menu("03 Heads")
    opened.menu("digits")
    opened.row("Clearest components", "information-circle")
    assert "naming=</script><script>alert(1)</script><!--<script>" in opened.page.locator("nav").first.inner_text()


def test_a_report_in_another_form_is_refused(tmp_path):
    """And leaves nothing half-made."""
    with zipfile.ZipFile(tmp_path / "bare.zip", "w") as bare:
        bare.writestr("report/report.html", "<html></html>")

    def complete(page):
        return completed_page(page, STUDY, {}, [], [ROOT])

    with pytest.raises(InputError, match="another form"):
        complete_report(tmp_path / "bare.zip", tmp_path / "report.zip", complete)
    assert [path.name for path in tmp_path.iterdir()] == ["bare.zip"]
