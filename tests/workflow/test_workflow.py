"""The whole chain on real snakemake: it runs, it stops where nothing changed, and it says what is wrong."""

import copy
import hashlib
import json

import nbformat
import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
import yaml
from clones import documented_columns
from PIL import Image
from safetensors.torch import load_file

from clipspectra.arrays import load_arrays

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
        "retrieval",
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
        "tables/edited-models.csv",
        "interventions/more-four/demo/seed-1/edit.safetensors",
    } <= names_of_files
    compared = {f"figures/comparisons/balanced-and-biased/{figure}.png" for figure in ("heads-map", "cards")}
    assert compared | {"comparisons/balanced-and-biased/seed-0/components.csv"} <= names_of_files
    by_texts = [f"seed-0/demo-vocabulary/{figure}" for figure in ("heads-map", "cards", "spectra", "factors-map")]
    by_texts += [f"demo-vocabulary/{figure}" for figure in ("names", "stability")]
    for figure in (
        *by_texts,
        "seed-0/segmentation",
        "seed-0/segmentation-parts",
        "ablation",
        "effects",
        "retrieval-map",
    ):
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
    retrieval = pd.read_csv(results / "tables" / "retrieval.csv").query("intervention == 'as it is'")
    at_one = retrieval.query("direction == 'image to text' and measure == 'recall_at_1'").set_index("factor")["score"]
    assert at_one.to_dict() == {factor: accuracy[factor, "none"] for factor in at_one.index}
    colour = retrieval.query("direction == 'image to image' and factor == 'colour'").set_index("by")["score"]
    assert colour["head that names it most"] > colour["whole embedding"]
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
    columns = documented_columns(finished.directory)
    assert len(columns) > 10
    for file, described in columns.items():
        if "transfer" not in file:  # it takes two datasets: see test_chain.py
            assert described <= set(pd.read_csv(finished.directory / file, nrows=0).columns), file


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
            | {"record_config", "evaluate_retrieval", "table_retrieval", "plot_retrieval_map"}
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


def test_an_intervention_in_the_model_itself(finished):
    """Live it is the edit of stored arrays; folded, a folder that open_clip loads, with the demo's other weights."""
    result = finished.snakemake("results/interventions/more-four/demo/weights.safetensors")
    assert result.returncode == 0, result.stdout
    log = finished.directory / "results" / "logs" / "interventions" / "more-four" / "demo" / "weights.log"
    assert "Folded weights are not the edit: on digits, seed 0" in log.read_text()
    table = pd.read_csv(finished.directory / "results" / "tables" / "edited-models.csv").set_index(["setting", "group"])
    live, folded = table.loc[("edited, running model", "all")], table.loc[("edited, folded weights", "all")]
    assert live["difference"] < 1e-6
    assert folded["difference"] > 1e-3
    assert live["accuracy"] == table.loc[("edited, stored arrays", "all"), "accuracy"]
    model, _, _ = open_clip.create_model_and_transforms(
        f"local-dir:{finished.directory / 'results' / 'interventions' / 'more-four' / 'demo'}"
    )
    unedited = load_file(finished.directory / "config" / "demo" / "balanced.safetensors")
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, unedited[name].float())}
    assert changed
    assert all(".attn.out_proj." in name for name in changed)


def test_the_same_inputs_give_the_same_bytes(finished):
    before = digests(finished)
    result = finished.snakemake("--forcerun", "segment_images", "explain_heads", "evaluate_accuracy")
    assert result.returncode == 0, result.stdout
    assert "plot_segmentation" in result.stdout
    assert digests(finished) == before


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
