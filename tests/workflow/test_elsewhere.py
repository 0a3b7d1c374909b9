"""Elsewhere, and with other settings of speed, the same bytes; tools/same_bytes.py compares whole studies."""

import shutil

from same_bytes import ELSEWHERE, SPECIAL, Conditions, compare, run, small_clone

TARGETS = [
    "results/explanations/demo/digits/seed-0/demo-vocabulary/components.parquet",
    "results/figures/digits/contact-sheet-seed-0.pdf",
]
TARGETS += ["results/queries/example/query.safetensors"]


def test_another_place_and_all_settings_of_speed_give_the_same_bytes(finished, tmp_path):
    """On a path that a shell must be given in quotes, in another environment, and from what a container image holds."""
    settings = {"threads": 2, "batch_size": 7, "shards": 3}
    conditions = Conditions(settings, folder=SPECIAL, variables=ELSEWHERE, umask=0o077)
    clone = small_clone(tmp_path, conditions)
    lines = (clone.directory / ".dockerignore").read_text().splitlines()
    held = {line[1:].split("/")[0] for line in lines if line.startswith("!")}
    for path in clone.directory.iterdir():
        if path.name not in held | {".venv"}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    result = run(clone, conditions, *TARGETS)
    assert result.returncode == 0, result.stdout
    count, changed = compare(finished, clone)
    assert count > 50
    assert not changed
