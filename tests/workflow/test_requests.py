"""What jobs ask a cluster for, planned without one."""

CLUSTER = ("--dry-run", "--workflow-profile", "profiles/slurm")


def test_small_study_is_three_pieces(clone):
    result = clone.run("snakemake", *CLUSTER, "all")
    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    assert sum("Group job" in line for line in lines) == 3
    assert [line for line in lines if line.startswith("rule ")] == ["rule all:"]


def test_more_than_a_job_may_have_is_one_sentence(clone):
    result = clone.run("snakemake", *CLUSTER, "--resources", "mem_mb=1500", "--", "results/tables/texts.csv")
    assert result.returncode != 0
    assert "embed_texts (model demo, texts demo-vocabulary) needs 2" in result.stdout
    assert "and the profile lets no job have more than 1500; lower batch_size, or raise mem_mb" in result.stdout


def test_what_is_asked_for_grows_with_model_images_and_batch(clone):
    """Seen by what is refused: batches of many images for their memory, many images for their time."""
    limits = ("--resources", "mem_mb=3000", "runtime=20", "--", "results/tables/exactness.csv")
    assert clone.run("snakemake", *CLUSTER, *limits).returncode == 0
    result = clone.run("snakemake", *CLUSTER, "--config", "batch_size=5000", *limits)
    assert "extract_activations" in result.stdout
    assert "lower batch_size" in result.stdout
    digits = clone.config["datasets"]["digits"]
    clone.configure(datasets={"digits": digits | {"demo": digits["demo"] | {"images": 100_000}}})
    result = clone.run("snakemake", *CLUSTER, *limits)
    assert "minutes" in result.stdout
    assert "raise shards, threads or gpu" in result.stdout
