"""What users meet when something is wrong: a config, a file, a directory, a run that was stopped."""

import os
import re
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


@pytest.mark.parametrize(
    ("how", "whom"),
    [(signal.SIGINT, "all"), (signal.SIGKILL, "all"), (signal.SIGKILL, "snakemake")],
    ids=["Ctrl-C", "kill", "kill Snakemake alone"],
)
def test_an_interrupted_run_goes_on(clone, how, whom):
    """Stopped in the middle of writing images; then the same run again, without another step."""
    clone.config["datasets"]["digits"]["demo"]["images"] = 6000
    clone.configure()
    command = ["snakemake", "--cores", "1", "results/data/digits/manifest.csv"]
    with open(clone.directory / "printed", "w") as printed:
        process = subprocess.Popen(
            command, cwd=clone.directory, env=environment(), stdout=printed, stderr=printed, start_new_session=True
        )
    images = clone.directory / "results" / "data" / "digits" / "images"
    wait_until(lambda: (images.exists() and len(list(images.iterdir())) > 50) or process.poll() is not None)
    if whom == "snakemake":
        os.killpg(process.pid, signal.SIGSTOP)  # or its job might end meanwhile
        second = clone.run(*command)
        os.killpg(process.pid, signal.SIGCONT)
        assert second.returncode != 0
        assert second.stdout.count("LockException") == second.stdout.count("cannot be locked") == 1
        assert "Traceback" not in second.stdout
        process.kill()
    else:
        os.killpg(process.pid, how)
    assert process.wait(30) != 0
    wait_until(lambda: not working(clone))  # the job ends with its Snakemake
    assert not (clone.directory / command[-1]).exists()
    assert "Traceback" not in (clone.directory / "printed").read_text()
    clone.config["datasets"]["digits"]["demo"]["images"] = 240
    clone.configure()
    result = clone.run(*command)
    assert result.returncode == 0, result.stdout
    assert ("The run before this one was killed." in result.stdout) == (how == signal.SIGKILL)
    assert len(pd.read_csv(clone.directory / command[-1])) == 240 + 200  # and 20 pairs for each of five factors
    assert len(list(images.glob("*.png"))) == 2 * 240 + 200  # these without masks


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def working(clone):
    """Whether a script of this clone is at work, whoever its parent is."""
    return (
        str(clone.directory / ".snakemake")
        in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    )


def test_a_run_told_to_end_finishes_its_jobs_and_a_wrong_clock_is_named(clone):
    command = ["snakemake", "--cores", "1", "results/data/digits/seed-0/images.csv"]
    process = subprocess.Popen(
        command, cwd=clone.directory, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    data = clone.directory / "results" / "data" / "digits"
    wait_until(lambda: (data / "images").exists() or process.poll() is not None)
    process.terminate()
    assert process.wait(60) != 0
    assert (data / "manifest.csv").exists()
    assert not (data / "seed-0").exists()
    assert not (clone.directory / ".snakemake" / "locks").exists()

    tomorrow = time.time() + 86400
    os.utime(data / "manifest.csv", (tomorrow, tomorrow))
    result = clone.run(*command)
    assert result.returncode != 0
    assert "results/data/digits/manifest.csv is dated in the future" in result.stdout
    remedy = re.search("find results .*", result.stdout)[0]
    clone.run("sh", "-c", remedy)
    result = clone.run(*command)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("Finished jobid") == 1


def test_a_full_disk_is_one_sentence(clone):
    """Results on a file system of their own, for one command."""
    (clone.directory / "results").mkdir()
    mounted = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    mount, run = "mount -t tmpfs -o size=1m none results", "snakemake --cores 1 results/data/digits/manifest.csv"
    if clone.run(*mounted, mount).returncode:
        pytest.skip("mounting is not allowed here")
    result = clone.run(*mounted, f"{mount}; {run}; code=$?; find results -type f -name '[!.]*.png'; exit $code")
    assert result.returncode != 0
    assert "\nError: No space is left on the disk; make room and run again.\n" in result.stdout
    assert "Traceback" not in result.stdout
    assert "images/" not in result.stdout  # nothing half-made stays


@pytest.mark.parametrize("folder", [".", "results"])
def test_a_directory_without_write_permission_is_named(clone, folder):
    folder = clone.directory / folder
    folder.mkdir(exist_ok=True)
    folder.chmod(0o555)
    humbled = ["setpriv", "--bounding-set=-dac_override"] if os.getuid() == 0 else []  # root may write anywhere
    result = clone.run(*humbled, "snakemake", "--cores", "1", "results/data/digits/manifest.csv")
    assert result.returncode != 0
    assert f"No permission to write in {folder}" in result.stdout
    assert not (clone.directory / "results" / "data").exists()


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
