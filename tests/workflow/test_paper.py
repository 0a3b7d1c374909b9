"""The paper says what the tables say, whatever names and numbers are in them; the archive has what a paper needs."""

import hashlib
import json
import re
import shutil
import zipfile

import pandas as pd
import pytest
from clones import ROOT
from pypdf import PdfReader

from clipspectra import InputError
from clipspectra.paper.findings import findings
from clipspectra.paper.typesetting import typeset

HOSTILE = '#panic("x") $a_b$ *c* <d> \\e @f `g` [h'


class Study:
    """What the paper reads of finished results, in a folder of its own, to be changed."""

    def __init__(self, results, folder):
        self.results, self.folder = folder / "results", folder
        for part in ("tables", "queries"):
            shutil.copytree(results / part, self.results / part, ignore=shutil.ignore_patterns("*.safetensors"))
        shutil.copytree(results / "figures", self.results / "figures", ignore=shutil.ignore_patterns("*.png"))
        self.description = json.loads((results / "study.json").read_text())

    def table(self, name):
        return pd.read_csv(self.path(name), dtype=str, keep_default_na=False)

    def path(self, name):
        return self.results / "tables" / f"{name}.csv"

    def change_tables(self, change):
        for name in self.description["tables"]:
            change(self.table(name)).to_csv(self.path(name), index=False)

    def typeset(self):
        (self.results / "study.json").write_text(json.dumps(self.description))
        typeset(ROOT / "paper" / "paper.typ", self.results, self.folder / "paper.pdf")
        return PdfReader(self.folder / "paper.pdf")

    def text(self):
        return text_of(self.typeset())


def text_of(pages):
    """The words of a PDF, with single blanks; words that were parted at a line's end stay so."""
    return re.sub(r"\s+", " ", " ".join(page.extract_text() for page in pages.pages)).replace("\u200b", "")


@pytest.fixture
def study(finished, tmp_path):
    return Study(finished.directory / "results", tmp_path)


def test_a_run_ends_with_a_paper_of_its_numbers(finished, study):
    text = text_of(PdfReader(finished.directory / "results" / "paper.pdf"))
    for heading in ("Method", "Models and data", "Whether the names are right", "Where the evidence is", "References"):
        assert heading in text
    row = study.table("accuracy").query("factor == 'class' and group == 'all' and at_mean == 'none'").iloc[0]
    assert f"{float(row['accuracy']):.1f}" in text
    for finding in study.description["findings"]:
        assert re.findall(r"\d+\.\d", finding["sentence"])[0] in text
    bounds = [float(page.mediabox.width) for page in PdfReader(finished.directory / "results" / "paper.pdf").pages]
    assert {round(width / 72 * 25.4) for width in bounds} == {210}


def test_the_choice_of_models_and_datasets_holds_everywhere(study, tmp_path):
    """What is left out of a study with two models and datasets is named nowhere, and nothing fails for its lack."""
    other = {"demo": "left-out", "digits": "left-out-too"}
    study.change_tables(lambda table: pd.concat([table, table.replace(other)]))
    for key, name in (("models", "left-out"), ("datasets", "left-out-too")):
        study.description[key] = [*study.description[key], study.description[key][0] | {"name": name}]
    study.description["figures"] += [it | {"model": "left-out"} for it in study.description["figures"] if "model" in it]
    (study.results / "study.json").write_text(json.dumps(study.description))
    source = shutil.copytree(ROOT / "paper", tmp_path / "paper")
    for chosen, absent in (("demo", "left-out"), ("left-out", "")):
        choice = (
            f"#let choose(study) = {{\n  study.models = study.models.filter(it => it.name == {json.dumps(chosen)})\n"
        )
        data = "digits" if chosen == "demo" else "left-out-too"
        choice += f"  study.datasets = study.datasets.filter(it => it.name == {json.dumps(data)})\n  study\n}}\n"
        (source / "choices.typ").write_text(choice)
        typeset(source / "paper.typ", study.results, tmp_path / "paper.pdf")
        text = text_of(PdfReader(tmp_path / "paper.pdf"))
        assert chosen in text
        assert not absent or absent not in text


def test_a_number_in_a_table_is_the_number_in_the_text(study):
    assert "classifies 12.3" not in study.text()
    table = study.table("accuracy")
    chosen = table[["factor", "group", "at_mean"]].eq(["class", "all", "none"]).all(axis=1)
    table.loc[chosen, "accuracy"] = "12.3456"
    table.to_csv(study.path("accuracy"), index=False)
    assert "classifies 12.3" in study.text()
    paths = {name: study.path(name) for name in study.description["tables"]}
    assert "classifies 12.3 % of" in findings(paths)[0]["sentence"]


def test_sections_are_those_of_the_tables(study):
    whole = study.text()
    study.description["tables"] = [name for name in study.description["tables"] if name != "segmentation"]
    study.description["figures"] = []
    text = study.text()
    for heading in ("Where the evidence is", "Zero-shot segmentation", "Queries A text"):
        assert heading in whole
        assert heading not in text
    assert "Stability" in text


def test_names_are_text_whatever_they_look_like(study):
    study.change_tables(lambda table: table.replace({"demo": HOSTILE, "digits": "цифры #let"}))
    description = (
        json.dumps(study.description).replace('"demo"', json.dumps(HOSTILE)).replace('"digits"', '"цифры #let"')
    )
    study.description = json.loads(description)
    text = study.text()
    assert HOSTILE.replace(" ", "") in text.replace(" ", "")
    assert "цифры #let" in text


def test_one_seed_has_no_deviation(study):
    def first_seed(table):
        table = table.drop(columns=[name for name in table if name.endswith("_sd")])
        return table.assign(**{f"{name}_sd": "" for name in table if name == "accuracy"})

    study.change_tables(first_seed)
    study.description |= {"seeds": [0], "figures": []}
    assert "±" not in study.text().split("Models and data", 1)[1].split("All tables")[0]


def test_many_models_break_over_pages(study):
    names = [f"model-with-a-long-name-{number}" for number in range(40)]
    study.change_tables(
        lambda table: pd.concat([table.assign(model=name) for name in names]) if "model" in table else table
    )
    model = study.description["models"][0]
    study.description["models"] = [{**model, "name": name} for name in names]
    study.description["figures"] = []
    study.description["tables"].remove("names")  # its lines are the most, and as in other tables
    pages = study.typeset()
    text = text_of(pages)
    assert "more rows are in the appendix" in text
    assert names[0] in text.replace(" ", "")
    assert len(pages.pages) < 120


def test_a_column_that_is_missing_is_named(study):
    study.table("recovery").drop(columns="top1").to_csv(study.path("recovery"), index=False)
    with pytest.raises(InputError, match=r"results/tables/recovery\.csv has no column 'top1'.*Delete the file"):
        study.typeset()
    assert not (study.folder / "paper.pdf").exists()
    paths = {name: study.path(name) for name in study.description["tables"]}
    with pytest.raises(InputError, match="recovery.csv has no column 'top1'"):
        findings(paths)


def test_an_error_in_ones_own_text_is_named_with_its_line(study, tmp_path):
    source = shutil.copytree(ROOT / "paper", tmp_path / "paper")
    (source / "sections" / "setup.typ").write_text("= Data\n\nWe use #nothing.\n")
    (study.results / "study.json").write_text(json.dumps(study.description))
    with pytest.raises(InputError, match=r"paper/sections/setup\.typ, line 3: unknown variable: nothing"):
        typeset(source / "paper.typ", study.results, tmp_path / "paper.pdf")


def test_published_figures_stand_beside_the_same_model_only(study):
    row = {"table": "accuracy", "column": "accuracy", "setting": "none", "images": 50000, "value": 71.23}
    row |= {"source": "ilharco2021", "model": "demo", "dataset": "digits"}
    assert "published" not in study.text().split("All tables")[0].replace("published protocol", "")
    study.description["published"] = [row]
    text = study.text()
    assert "71.23" in text
    assert "Published: the figure of others" in text


def test_the_same_results_give_the_same_bytes(study, finished):
    study.typeset()
    first = (study.folder / "paper.pdf").read_bytes()
    study.typeset()
    assert (study.folder / "paper.pdf").read_bytes() == first
    archive = finished.directory / "results" / "archive.zip"
    sums = []
    for forced in ([], ["--forcerun", "archive"]):
        result = finished.snakemake("--quiet", "all", *forced, "--", "archive")
        assert result.returncode == 0, result.stdout
        sums.append(hashlib.sha256(archive.read_bytes()).hexdigest())
    assert sums[0] == sums[1]
    with zipfile.ZipFile(archive) as packed:
        names = set(packed.namelist())
        lines = packed.read("SHA256SUMS").decode().splitlines()
        listed = dict(reversed(line.split("  ", 1)) for line in lines)
        assert set(listed) == names - {"SHA256SUMS"}
        assert all(hashlib.sha256(packed.read(name)).hexdigest() == digest for name, digest in listed.items())
    assert {"paper.pdf", "study.json", "tables/recovery.tex", "requirements.txt", "paper/paper.typ"} <= names
    assert "config/1-config.yaml" in names
    assert not [name for name in names if name.endswith((".safetensors", ".parquet"))]
