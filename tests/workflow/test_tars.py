"""From the command line: a dataset in tar files, some of them fetched, beside the same pictures in a folder."""

import hashlib
import http.server
import io
import threading
from functools import partial

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file
from skimage import data
from test_brought import planned
from webdataset import TarWriter

RUN = "results/explanations/demo/{}/seed-0/t/components"
ACTIVATIONS = "results/activations/demo/{}/shard-0-of-1.safetensors"


@pytest.fixture
def address(tmp_path):
    """A folder that is served on this machine, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def write_study(clone, served, address):
    """Photographs as tar files of both splits, and as files with a manifest in the same order; the config's options."""
    photographs, rows = {"cat": data.chelsea(), "coffee": data.coffee()}, []
    folders = {"train": clone.directory, "test": served}
    (clone.directory / "files").mkdir()
    for split, folder in folders.items():
        for shard in range(2):
            with TarWriter(str(folder / f"{split}-{shard}.tar")) as writer:
                for number in range(6):
                    label, (name, photograph) = number % 2, list(photographs.items())[number % 2]
                    start, file = 12 * number + 80 * shard + 3 * (split == "test"), io.BytesIO()
                    Image.fromarray(photograph[:150, start : start + 150]).save(file, "JPEG")
                    key = f"{split}-{shard}{number}"
                    writer.write({"__key__": key, "jpg": file.getvalue(), "cls": label, "txt": "a photograph"})
                    (clone.directory / "files" / f"{key}.jpg").write_bytes(file.getvalue())
                    rows.append({"image": f"files/{key}.jpg", "label": label, "class": name, "split": split})
    columns = ["image", "label", "class", "group", "split", "mask"]
    pd.DataFrame(rows, columns=columns).to_csv(clone.directory / "files.csv", index=False)
    (clone.directory / "classes.txt").write_text("cat\ncoffee\n")
    (clone.directory / "texts.txt").write_text("a cat\na cup of coffee\nfur\na table\nan eye\n")
    sums = [(hashlib.sha256(path.read_bytes()).hexdigest(), path.name) for path in served.glob("*.tar")]
    sums += [(hashlib.sha256(path.read_bytes()).hexdigest(), path.name) for path in clone.directory.glob("*.tar")]
    (clone.directory / "sums.txt").write_text("".join(f"{digest}  {name}\n" for digest, name in sums))
    whole = {"fit": {"split": "train", "per_class": "all"}, "eval": {"split": "test", "per_class": "all"}}
    common = {"roles": whole, "prompts": {"class": {"templates": ["a photo of a {}"]}}}
    tars = {"shards": {"train": "train-{0..1}.tar", "test": f"{address}/test-{{0..1}}.tar"}}
    tars |= {"classes": "classes.txt", "sha256": "sums.txt"}
    config = {
        "models": {"demo": clone.config["models"]["demo"]},
        "datasets": {"tars": {"webdataset": tars, **common}, "files": {"manifest": "files.csv", **common}},
        "texts": {"t": {"file": "texts.txt"}},
        "seeds": [0],
        "shards": 1,
        "threads": 2,
        "evaluation": {"methods": ["components"]},
    }
    (clone.directory / "config" / "study.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return ["--configfile", "config/study.yaml"]


def test_tar_files_give_the_same_as_the_pictures_in_a_folder(clone, address):
    """Every stored number, byte for byte, from tars that lie here and tars that are fetched; then what is noticed."""
    options = write_study(clone, *address)
    targets = [f"{RUN}.parquet".format(name) for name in ("tars", "files")]
    result = clone.snakemake(*targets, *options)
    assert result.returncode == 0, result.stdout
    results = {name: clone.directory / "results" / "data" / name for name in ("tars", "files")}
    images = {name: pd.read_csv(folder / "seed-0" / "images.csv") for name, folder in results.items()}
    assert list(images["tars"]["image"][:2]) == ["tars/train-0.tar/train-00.jpg", "tars/train-0.tar/train-01.jpg"]
    assert images["tars"].drop(columns="image").equals(images["files"].drop(columns="image"))
    for path in (ACTIVATIONS, f"{RUN}.safetensors"):
        tars, files = (load_file(clone.directory / path.format(name)) for name in ("tars", "files"))
        assert tars.keys() == files.keys()
        for name, array in tars.items():
            np.testing.assert_array_equal(array, files[name], err_msg=f"{path}: {name}")
    tables = [pd.read_parquet(clone.directory / target).drop(columns="dataset", errors="ignore") for target in targets]
    pd.testing.assert_frame_equal(*tables)
    assert (clone.directory / "results/data/archives/tars/test-1.tar").read_bytes() == (
        address[0] / "test-1.tar"
    ).read_bytes()
    # Results can be moved with the tars beside them: nothing in them names a folder of this machine.
    assert not [
        path
        for path in results["tars"].rglob("*")
        if path.is_file() and str(clone.directory).encode() in path.read_bytes()
    ]

    with TarWriter(str(clone.directory / "train-1.tar")) as writer:  # noticed, and what depends on it
        writer.write({"__key__": "other", "txt": "no picture"})
    behind = {"list_tars", "choose_images", "extract_activations", "explain_heads"}
    assert set(planned(clone, *targets, *options)) == behind
    (clone.directory / "train-1.tar").unlink()
    result = clone.snakemake("results/data/tars/manifest.csv", *options)
    assert "Error: datasets.tars: 1 of the 4 tar files are not there, the first train-1.tar." in result.stdout


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"shards": "{0..3.tar"}, "webdataset.shards: '{0..3.tar' has braces that do not close"),
        ({"shards": "0.tar", "sha256": {"1.tar": "0" * 64}}, "webdataset.sha256: there is no digest of 0.tar"),
        ({"shards": "0.tar", "columns": {"label": "x"}}, "webdataset.columns"),
    ],
)
def test_wrong_entries_are_named_before_anything_runs(clone, source, words):
    clone.configure(
        datasets={"digits": {"webdataset": source, "roles": {"eval": {"per_class": 1}}}},
        interventions={},
        queries={},
        neighbours={},
    )
    result = clone.snakemake("--dry-run", "results/data/digits/manifest.csv")
    assert result.returncode != 0
    assert f"Config, datasets.digits.{words}" in result.stdout, result.stdout
