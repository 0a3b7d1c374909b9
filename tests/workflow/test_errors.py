"""What users meet when something is wrong: a config, a file, a directory, a run that was stopped."""

import os
import signal
import subprocess
import time

import pandas as pd
import pytest
from clones import environment
from PIL import Image

PROMPTS = {"class": {"templates": ["a {}"]}}


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


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"do": "remove", "mlps": True}, "cannot be folded"),
        ({"do": "amplify", "by": 1, "heads": [[0, 0]]}, "changes nothing"),
    ],
)
def test_a_fold_that_cannot_be_is_refused_before_any_work(clone, edit, words):
    clone.configure(interventions={"fold-me": {"dataset": "digits", "edits": [edit]}})
    result = clone.snakemake("--dry-run", "results/interventions/fold-me/demo/weights.safetensors")
    assert result.returncode != 0
    assert (
        f"Config, interventions.fold-me: {'an edit of MLPs' if 'mlps' in edit else 'amplifying by 1'}" in result.stdout
    )
    assert words in result.stdout


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
