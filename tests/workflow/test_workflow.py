"""The whole chain on real snakemake: it runs, it stops where nothing changed, and it says what is wrong."""

import copy
import hashlib
import json
import os
import re
import signal
import subprocess
import time

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from clones import environment
from PIL import Image

from clipspectra.arrays import load_arrays

PROMPTS = {"class": {"templates": ["a {}"]}}
HEADS_MAP = "results/figures/demo/digits/seed-0/demo-vocabulary/heads-map.png"


def digests(clone):
    """Digest of every table and figure, of what was run, and of the paper."""
    results = clone.directory / "results"
    paths = [path for part in ("tables", "figures") for path in (results / part).rglob("*.*")]
    paths += [results / "study.json", results / "paper.pdf"]
    return {str(path.relative_to(clone.directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def planned(result):
    """Names of the rules in a dry run's statistics."""
    assert result.returncode == 0, result.stdout
    table = result.stdout.split("Job stats:")[1].split("total")[0]
    return {line.split()[0] for line in table.splitlines()[3:] if line.strip()}


def test_the_demo_gives_tables_and_figures(finished):
    results = finished.directory / "results"
    names_of_files = {str(path.relative_to(results)) for path in results.rglob("*.*")}
    for table in (
        "accuracy",
        "recovery",
        "effects",
        "segmentation",
        "labels",
        "names",
        "stability",
        "texts",
        "comparisons",
    ):
        assert f"tables/{table}.csv" in names_of_files
    assert {"tables/exactness.csv", "tables/skipped-images.csv", "tables/recovery.tex"} <= names_of_files
    assert {f"figures/demo/digits/demo-vocabulary/recovery.{ending}" for ending in ("png", "pdf")} <= names_of_files
    assert "figures/spatial/red-three.png" in names_of_files
    assert {
        "queries/red.csv",
        "queries/example.csv",
        "queries/topics.tex",
        "neighbours/a-component.csv",
    } <= names_of_files
    assert {f"figures/interventions/more-four/demo{what}.pdf" for what in ("", "-values")} <= names_of_files
    assert {
        "figures/queries/red.png",
        "figures/neighbours/like-the-example.pdf",
        "tables/interventions.tex",
    } <= names_of_files
    compared = {f"figures/comparisons/balanced-and-biased/{figure}.png" for figure in ("heads-map", "cards")}
    assert compared | {"comparisons/balanced-and-biased/seed-0/components.csv"} <= names_of_files
    by_texts = [f"seed-0/demo-vocabulary/{figure}" for figure in ("heads-map", "cards", "spectra", "factors-map")]
    by_texts += [f"demo-vocabulary/{figure}" for figure in ("names", "stability")]
    for figure in (*by_texts, "seed-0/segmentation", "seed-0/segmentation-parts", "ablation", "effects"):
        assert {f"figures/demo/digits/{figure}.{ending}" for ending in ("png", "pdf", "json")} <= names_of_files
    for place in ("results/explorer/index.html", "results/report.zip", "results/figures/", "results/tables/"):
        assert f"\n  {place}" in finished.output
    same = pd.read_csv(results / "tables" / "comparisons.csv")
    assert len(same) == 2 * 12
    assert (same[["cka", "correlation", "rank"]] == 1).all(axis=None)
    assert (same["lost_change"] == 0).all()
    exactness = pd.read_csv(results / "tables" / "exactness.csv")
    chosen = [len(pd.read_csv(path)) for path in results.glob("data/digits/seed-*/images.csv")]
    assert exactness["images"].sum() == sum(chosen) > 200
    assert exactness["largest_sum_error"].max() < 1e-5
    accuracy = pd.read_csv(results / "tables" / "accuracy.csv").set_index(["factor", "at_mean"])["accuracy"]
    assert accuracy["colour", "none"] > 90
    assert accuracy["class", "none"] > 75
    assert accuracy["class", "MLPs and all heads"] < 30
    labels = pd.read_csv(results / "tables" / "labels.csv")
    labels = labels.set_index(["method", "naming", "components", "which_poles", "which_names"])
    for naming in ("says", "fires_on"):
        found = labels.loc["components", naming, "of heads, one factor moves 50 % or more", "better", "any"]
        assert found["factor_hits"] > 1.5 * found["factor_hits_by_chance"]
    names = pd.read_csv(
        results / "tables" / "names.csv", keep_default_na=False, na_values={"score": [""], "by_chance": [""]}
    )
    names = names[(names["names"] == "all") & (names["components"] == "all") & (names["method"] == "components")]
    names = names.set_index(["measure", "naming", "control"])
    above_chance = names["score"] - names["by_chance"].astype(float)
    for measure, margin in (("value_hits", 20), ("signed_hits", 10), ("auc", 0.04)):
        fires_on, says = (above_chance[measure, naming, ""] for naming in ("fires_on", "says"))
        assert fires_on > says > margin / 4
        for naming in ("fires_on", "says"):  # a model that has learned nothing is told from the trained one
            assert fires_on - above_chance[measure, naming, "shuffled weights"] > margin
    assert not [path for path in results.glob("tables/*") if str(finished.directory) in path.read_text()]


def test_tables_have_the_columns_that_the_docs_describe(finished):
    section = (finished.directory / "docs" / "outputs.md").read_text().split("## Columns")[1]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    assert len(rows) > 10
    for file, columns in rows:
        header = set(pd.read_csv(finished.directory / file.strip(" `"), nrows=0).columns)
        assert set(re.findall("`([^`]+)`", columns)) <= header, file


def test_exports_have_the_references_keys(finished):
    result = finished.snakemake("exports", "--quiet")
    assert result.returncode == 0, result.stdout
    name = "results/exports/digits_completeness_demo-vocabulary_demo_algo_{}_seed_0.jsonl"
    texts = load_arrays(finished.directory / "results/text/demo/demo-vocabulary.safetensors")[0]["features"]
    for algorithm in ("svd_data_approx", "text_span"):
        lines = [json.loads(line) for line in (finished.directory / name.format(algorithm)).read_text().splitlines()]
        assert [(line["layer"], line["head"]) for line in lines[-2:]] == [(3, 2), (-1, -1)]
        assert len(lines) == 4 * 3 + 1
        assert 0 < lines[-1]["nr_texts"] <= len(texts)
        assert 10 < lines[-1]["accuracy"] <= 100
    line = json.loads((finished.directory / name.format("svd_data_approx")).read_text().splitlines()[0])
    vh, project, first = np.array(line["vh"]), np.array(line["project_matrix"]), line["embeddings_sort"][0]
    assert len(line["s"]) == len(vh) == len(line["embeddings_sort"]) == len(project)
    np.testing.assert_allclose(project @ project, project, atol=1e-5)
    np.testing.assert_allclose(line["mean_values_text"], texts.mean(0), atol=1e-6)
    assert list(first["text"][0]) in (["text_max_0", "corr_max_0"], ["text_min_0", "corr_min_0"])
    assert len(first["text"]) == 10
    scores = (texts - texts.mean(0)) @ vh[0]
    assert first["cosine_similarity"] == pytest.approx(scores.max(), abs=1e-5)
    np.testing.assert_allclose(first["eigen_v_emb"], vh[0])


def test_a_second_run_has_nothing_to_do(finished):
    assert "Nothing to be done" in finished.snakemake("--dry-run").stdout


def test_settings_of_speed_change_nothing(finished):
    result = finished.snakemake("--dry-run", "--config", "batch_size=7", "gpu=1", "threads=2", "device=cpu")
    assert "Nothing to be done" in result.stdout


def test_one_figure_plans_nothing_above_its_data(finished):
    assert planned(finished.snakemake("--dry-run", "--force", HEADS_MAP)) == {"plot_heads_map"}


PAPER = {"describe_study", "paper"}
EXPLORER = {"explore_components", "explorer"} | PAPER
COMPARED = {"compare_models", "table_comparisons", "plot_comparison_map", "plot_comparison_cards"}
BY_COMPONENT = {"plot_cards", "plot_heads_map", "plot_spectra", "plot_factors_map"}


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        (
            {"evaluation": {"budgets": [0, 2, 9, 12]}},
            {"evaluate_recovery", "table_recovery", "plot_recovery"} | EXPLORER,
        ),
        ({"explanations": {"coherence": 0.5}}, None),  # sparse_coherent is not among the methods
        (
            {"explanations": {"texts_per_component": 3}},
            {"explain_heads_by_sparse_sums", "evaluate_recovery", "table_recovery", "plot_recovery"}
            | {"score_components_and_labels", "table_labels"}
            | BY_COMPONENT
            | COMPARED
            | {"evaluate_names", "table_names", "plot_names"}
            | EXPLORER,
        ),
        (
            {"explanations": {"naming": "says"}},
            {"score_components_and_labels", "table_labels", "trace_query", "plot_query"}
            | {"record_config"}
            | BY_COMPONENT
            | COMPARED
            | EXPLORER,
        ),
        (
            {"interventions": {"more-four": {"about": {"class": ["five"]}}}},
            {"table_intervention_values", "plot_intervention_values"} | PAPER,
        ),
        (
            {"segmentation": {"direction": "text"}},
            {"segment_images", "table_segmentation", "plot_segmentation"}
            | {"segment_parts_and_components", "plot_segmentation_parts"}
            | EXPLORER,
        ),
    ],
)
def test_an_option_runs_what_depends_on_it(finished, change, rules):
    """Segmentation stores the scores of both directions, so that another one only chooses what is shown."""
    path = finished.directory / "config" / "changed.yaml"
    path.write_text(yaml.safe_dump(update_deeply(copy.deepcopy(finished.config), change), sort_keys=False))
    result = finished.snakemake("--dry-run", "--configfile", "config/changed.yaml")
    path.unlink()
    if rules is None:
        assert "Nothing to be done" in result.stdout
    else:
        assert planned(result) - {"all"} == rules


def update_deeply(config, change):
    """The config with a change's values, keys that it does not name as they were."""
    for key, value in change.items():
        config[key] = update_deeply(config.get(key, {}), value) if isinstance(value, dict) else value
    return config


def test_the_same_inputs_give_the_same_bytes(finished):
    before = digests(finished)
    result = finished.snakemake("--forcerun", "segment_images", "explain_heads", "evaluate_accuracy")
    assert result.returncode == 0, result.stdout
    assert "plot_segmentation" in result.stdout
    assert digests(finished) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batchsize": 3}, ["top level", "'batchsize' was unexpected"]),
        ({"seeds": []}, ["seeds", "non-empty"]),
        ({"segmentation": {"methods": ["Grad-CAM"]}}, ["segmentation.methods", "'Grad-CAM' is not one of"]),
        ({"models": {"demo": {"architecture": "ViT-B-16"}}}, ["models.demo", "'pretrained' is a required property"]),
        (
            {
                "datasets": {
                    "digits": {"demo": {}, "roles": {"eval": {"per_class": 3}}, "prompts": PROMPTS, "pairs": True}
                }
            },
            ["datasets.digits.pairs", "give the dataset factors and a role fit"],
        ),
        ({"models": {"a/b": {"architecture": "ViT-B-16", "pretrained": "openai"}}}, ["models", "'a/b'"]),
    ],
)
def test_a_wrong_config_is_named(clone, changes, words):
    clone.configure(**changes)
    result = clone.snakemake("--dry-run")
    assert result.returncode != 0
    sentence = next(line for line in result.stdout.splitlines() if line.startswith("Config, "))
    assert all(word in sentence for word in words)


@pytest.mark.parametrize(
    "target", ["results/text/nobody/demo-vocabulary.safetensors", "results/data/nowhere/manifest.csv"]
)
def test_an_unknown_model_or_dataset_is_named(clone, target):
    result = clone.snakemake("--dry-run", target)
    assert result.returncode != 0
    assert target in result.stdout


def test_a_damaged_or_missing_checkpoint_is_named(clone):
    target = "results/text/demo/demo-vocabulary.safetensors"
    weights = clone.directory / clone.config["models"]["demo"]["pretrained"]
    weights.write_bytes(weights.read_bytes()[:-1])
    result = clone.snakemake(target)
    assert result.returncode != 0
    assert "balanced.safetensors is damaged or another file: its sha256 is" in result.stdout
    assert not list((clone.directory / "results" / "text").rglob("*.safetensors"))
    weights.unlink()
    result = clone.snakemake("--dry-run", target)
    assert result.returncode != 0
    sha256 = clone.config["models"]["demo"]["sha256"]
    missing = f"Config, models.demo.pretrained: config/demo/balanced.safetensors is not there, sha256 {sha256}"
    assert missing in result.stdout


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill"])
def test_an_interrupted_run_goes_on(clone, how):
    """Stopped in the middle of writing images; then a second run."""
    clone.config["datasets"]["digits"]["demo"]["images"] = 6000
    clone.configure()
    target = "results/data/digits/manifest.csv"
    process = subprocess.Popen(
        ["snakemake", "--cores", "1", target],
        cwd=clone.directory,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    images = clone.directory / "results" / "data" / "digits" / "images"
    deadline = time.monotonic() + 60
    while not (images.exists() and len(list(images.iterdir())) > 50):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    subprocess.run(["kill", f"-{how.value}", "--", f"-{process.pid}"], check=True)
    assert process.wait(30) != 0
    assert not (clone.directory / target).exists()
    clone.config["datasets"]["digits"]["demo"]["images"] = 240
    clone.configure()
    if how == signal.SIGKILL:  # nobody was left to take the lock away
        assert clone.snakemake("--unlock").returncode == 0
    result = clone.snakemake(target)
    assert result.returncode == 0, result.stdout
    assert len(pd.read_csv(clone.directory / target)) == 240 + 200  # and 20 pairs for each of five factors
    assert len(list(images.glob("*.png"))) == 2 * 240 + 200  # these without masks


def test_a_directory_without_write_permission_is_named(clone):
    clone.directory.chmod(0o555)
    humbled = ["setpriv", "--bounding-set=-dac_override"] if os.getuid() == 0 else []  # root may write anywhere
    result = clone.run(*humbled, "snakemake", "--cores", "1", "results/data/digits/manifest.csv")
    assert result.returncode != 0
    assert f"No permission to write in {clone.directory}" in result.stdout
    assert not (clone.directory / "results").exists()


def test_what_the_config_names_must_be_in_the_manifest(clone):
    """A factor without a column, and masks where there are none."""
    for number in range(6):
        for name in ("black", "white"):
            path = clone.directory / "squares" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (64, 64), 255 * (name == "white") + number - 2).save(path)
    roles = {"fit": {"per_class": 3}, "eval": {"per_class": 3}}
    own = {"folder": "squares", "roles": roles, "prompts": {"class": {"templates": ["a {} digit"]}}}
    bare = {key: {} for key in ("queries", "neighbours", "interventions")}  # which are about the digits
    clone.configure(datasets={"squares": own | {"factors": ["weather"], "masks": True}}, seeds=[0], shards=1, **bare)
    result = clone.snakemake("--keep-going")
    assert result.returncode != 0
    assert "The config has 'weather' under factors, but the manifest has no such column." in result.stdout
    assert "6 eval images of squares have no mask in the manifest" in result.stdout
    assert not list((clone.directory / "results").rglob("factors.csv"))


NOTEBOOKS = ("look", "where", "change")


def test_notebooks(finished):
    """They run on the finished demo, keep their figures, and what fails in one is in its log."""
    result = finished.snakemake("notebooks")
    assert result.returncode == 0, result.stdout
    made = finished.directory / "results" / "notebooks"
    for name in NOTEBOOKS:
        assert Image.open(made / f"{name}.png").width > 1000
        cells = [cell for cell in nbformat.read(made / f"{name}.ipynb", 4)["cells"] if cell["cell_type"] == "code"]
        assert all(cell["execution_count"] for cell in cells)
        outputs = [output for cell in cells for output in cell["outputs"]]
        assert {output["output_type"] for output in outputs} == {"execute_result"}  # no errors, no warnings
        assert any("image/png" in output["data"] for output in outputs)
    notebook = finished.directory / "notebooks" / "where.ipynb"
    content = notebook.read_text()
    try:
        notebook.write_text(content.replace("config/demo/example.png", "nowhere.png"))
        result = finished.snakemake("notebooks")
    finally:
        notebook.write_text(content)
    assert result.returncode != 0
    sentence = "The picture nowhere.png is not there, and digits has no image of that name."
    assert sentence in (finished.directory / "results" / "logs" / "notebooks" / "where.log").read_text()
    assert not (made / "where.png").exists()
