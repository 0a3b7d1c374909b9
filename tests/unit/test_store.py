"""Results by image that are stored once for all seeds: what is kept, what is computed again, and what is refused."""

import multiprocessing
import time

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from stored_small import save_images, stored_small

from clipspectra import InputError
from clipspectra.arrays import ArrayStream, load_arrays, save_arrays, save_table
from clipspectra.contributions.shards import images_of_shard, previous_layouts, to_extract
from clipspectra.contributions.stored import StoredActivations, select_images
from clipspectra.data.store import ImageStore, images_of_seeds, locked, picture_ids

IDENTITY = {"model": "demo", "layers": 8, "precision": "fp32"}


def seed_table(rows, contents=None):
    """A seed's table of the images of some rows of a manifest; contents: of the files, by default the row's."""
    contents = rows if contents is None else contents
    digests = [f"{content:064x}" for content in contents]
    return pd.DataFrame({"row": rows, "image": [f"{row}.png" for row in rows], "image_sha256": digests})


def extend(path, images, identity=IDENTITY, **metadata):
    """Extend a store by all images it lacks; the value of an image is its content. Returns the rows computed."""
    store = ImageStore(path, identity)
    absent = images[np.isnan(store.values("value", images))]
    stream = ArrayStream(path.parent)
    content = np.array([int(digest, 16) for digest in absent["image_sha256"]], float)
    columns = {"row": absent["row"].to_numpy(), "picture_id": absent["picture_id"].to_numpy()}
    stream.append(columns | {"value": content, "vector": np.outer(content, [1, 2])})
    store.save(stream, images, identity | metadata)
    return absent["row"].tolist()


def test_a_seed_adds_what_is_not_stored_in_any_order(tmp_path):
    seeds = [seed_table([5, 1, 9]), seed_table([1, 2, 9, 12]), seed_table([3])]
    both, one = tmp_path / "both.safetensors", tmp_path / "one.safetensors"
    assert extend(both, images_of_seeds(seeds)) == [1, 2, 3, 5, 9, 12]
    assert extend(one, images_of_seeds(seeds[2:])) == [3]
    assert extend(one, images_of_seeds(seeds[1:])) == [1, 2, 9, 12]
    assert extend(one, images_of_seeds(seeds)) == [5]
    assert one.read_bytes() == both.read_bytes()
    assert extend(one, images_of_seeds(seeds[:1])) == []
    assert one.read_bytes() == both.read_bytes()  # what another seed used stays
    arrays, metadata = load_arrays(one)
    assert arrays["row"].tolist() == arrays["value"].tolist() == [1, 2, 3, 5, 9, 12]
    assert arrays["vector"][:, 1].tolist() == [2, 4, 6, 10, 18, 24]
    assert metadata["layers"] == "8"


def test_a_picture_is_known_by_its_content(tmp_path):
    path = tmp_path / "store.safetensors"
    extend(path, images_of_seeds([seed_table([0, 1, 2])]))
    moved = images_of_seeds([seed_table([0, 1, 2, 3], [7, 0, 1, 2])])  # a new picture before all others
    assert not ImageStore(path, IDENTITY).has(moved).any()
    assert extend(path, moved) == [0]
    assert ImageStore(path, IDENTITY).has(moved).all()
    assert load_file(path)["value"].tolist() == [7, 0, 1, 2]
    changed = images_of_seeds([seed_table([0, 1, 2, 3], [7, 0, 8, 2])])
    assert extend(path, changed) == [2]
    twice = images_of_seeds([seed_table([0, 1, 2, 3, 4], [7, 0, 8, 2, 8])])  # the same picture again
    assert extend(path, twice) == []
    assert load_file(path)["value"].tolist() == [7, 0, 8, 2, 8]
    assert picture_ids(["ab", ""])[1] == 0
    assert picture_ids(["ab"], ["c"]) != picture_ids(["ab"], ["d"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"precision": "bf16"}, "it was made with another precision"),
        ({"layers": "all", "model": "other"}, "it was made with another layers, model"),
    ],
)
def test_rows_of_another_model_are_never_mixed(tmp_path, change, words):
    path, images = tmp_path / "store.safetensors", images_of_seeds([seed_table([0, 1])])
    extend(path, images)
    assert ImageStore(path, IDENTITY | change).replaced == words
    assert extend(path, images, IDENTITY | change) == [0, 1]
    assert load_file(path)["row"].tolist() == [0, 1]


def test_files_of_other_layouts_are_replaced(tmp_path):
    path = tmp_path / "store.safetensors"
    for write in (lambda: save_file({"z": np.ones(3)}, path), lambda: path.write_bytes(b"cut off")):
        write()
        assert ImageStore(path, {}).replaced == "it is of an older version, or damaged"
    (tmp_path / "seed-1").mkdir()
    assert previous_layouts(tmp_path) == []
    (tmp_path / "seed-1" / "shard-0-of-1.safetensors").touch()
    assert previous_layouts(tmp_path) == [tmp_path / "seed-1"]
    assert previous_layouts(tmp_path / "absent") == []


def test_images_are_checked_for_each_seed(tmp_path):
    """The first of every seed and shard, also if they were stored for another seed."""
    paths = [tmp_path / "0.csv", tmp_path / "1.csv"]
    seeds = [seed_table(list(range(40))), seed_table(list(range(30, 60)))]
    for path, table in zip(paths, seeds):
        save_table(path, table.assign(label=0, split="", role="fit", **{"class": ""}))
    shard = images_of_shard(paths[:1], 1, 2)
    assert shard["row"].tolist() == list(range(1, 40, 2))
    assert shard["row"][shard["checked"]].tolist() == list(range(1, 17, 2))
    store, stream = ImageStore(tmp_path / "shard.safetensors", IDENTITY), ArrayStream(tmp_path)
    columns = {name: shard[name].to_numpy() for name in ("row", "picture_id")}
    errors = np.where(shard["checked"], 1e-7, np.nan)
    stream.append(columns | {"sum_error": np.zeros(len(shard)), "model_error": errors})
    store.save(stream, shard, IDENTITY)
    store = ImageStore(tmp_path / "shard.safetensors", IDENTITY)
    assert to_extract(store, shard).empty
    assert to_extract(store, images_of_shard(paths, 1, 2))["row"].tolist() == list(range(31, 60, 2))
    assert images_of_shard(paths[:1], 55, 100).empty


def small_shard(path, table, **metadata):
    """Write a shard that has a seed's images, of one layer and head."""
    count = len(table)
    arrays = {"z": np.ones((count, 1, 1, 2)), "scalars": np.ones((count, 3)), "mlps": np.ones((count, 2, 4))}
    arrays |= {"embedding": np.ones((count, 4)), "row": table["row"].to_numpy()}
    save_arrays(path, arrays | {"picture_id": picture_ids(table["image_sha256"])}, {"first_layer": 0} | metadata)


def test_shards_that_do_not_fit_the_images_are_refused(tmp_path):
    save_images(tmp_path / "images.csv", ["fit", "fit", "eval", "eval"])
    images = pd.read_csv(tmp_path / "images.csv", dtype={"image_sha256": str})
    shards = [tmp_path / f"shard-{number}-of-3.safetensors" for number in range(3)]
    small_shard(shards[0], images.iloc[[0, 2]])
    small_shard(shards[1], images.iloc[[1]], skipped=[{"image": "3.png", "reason": "cut off"}])
    none = images_of_seeds([images.iloc[:0]])
    ImageStore(shards[2], {}).save(ArrayStream(tmp_path), none, {"skipped": []})
    save_arrays(tmp_path / "basis.safetensors", {"basis": np.ones((1, 1, 4, 5))}, {})
    stored = StoredActivations(shards, tmp_path / "basis.safetensors", tmp_path / "images.csv")
    assert stored.images["row"].tolist() == [
        0,
        1,
        2,
    ]  # by row, whatever shard; 3.png could not be read, for whichever seed
    assert stored.fit.tolist() == [True, True, False]
    with pytest.raises(InputError, match=r"1 images are not in the shards of .*, the first 1\.png; remove the shards"):
        select_images(shards[:1], images.iloc[:3])
    other = images.assign(image_sha256=images["image_sha256"][::-1].to_numpy())
    with pytest.raises(InputError, match=r"shard-0-of-3.* holds another picture in the row of 0\.png; remove it"):
        select_images(shards, other)
    save_arrays(shards[0], {"row": images["row"].to_numpy(), "fit": np.ones(4)}, {})
    for damage in (lambda: None, lambda: shards[0].write_bytes(b"cut off")):
        damage()
        with pytest.raises(InputError, match="is damaged, or of an older version; remove it, and run again"):
            select_images(shards, images)


def _extend_slowly(path, images):
    with locked(path, print):
        time.sleep(0.2)
        extend(path, images)


def test_two_runs_at_once_lose_nothing(tmp_path):
    path = tmp_path / "store.safetensors"
    parts = [images_of_seeds([seed_table(list(range(start, start + 5)))]) for start in (0, 5, 10)]
    runs = [multiprocessing.get_context("spawn").Process(target=_extend_slowly, args=(path, part)) for part in parts]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert load_file(path)["row"].tolist() == list(range(15))


PLACES = np.arange(40)


@pytest.mark.parametrize(
    ("roles", "sentence"),
    [
        ({"fit": PLACES == 3, "eval": PLACES > 3}, "There is a single fit image, and components are how images differ"),
        ({"fit": PLACES < 3}, "no fit rows or no eval rows"),
    ],
)
def test_images_that_have_no_components_are_refused(tmp_path, roles, sentence):
    with pytest.raises(InputError, match=sentence):
        stored_small(tmp_path, roles=roles)
