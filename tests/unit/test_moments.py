"""Extractions that keep moments: as the stored run on the same images, for any shards; mixing is refused."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from clipspectra import InputError
from clipspectra.arrays import load_metadata, load_table, save_arrays, save_table, table_chunks
from clipspectra.concepts.carriers import concept_shares
from clipspectra.contributions.exact import contributions, head_basis, value_grams
from clipspectra.contributions.extraction import extract
from clipspectra.contributions.joint import JointMoments, merge_sums, save_sums
from clipspectra.contributions.kept import StoredMoments, open_stored
from clipspectra.contributions.moments import Moments
from clipspectra.contributions.shards import ERRORS, file_digest, images_of_shard, images_to_stream, shard_numbers
from clipspectra.contributions.stored import EMBEDDING, StoredActivations
from clipspectra.contributions.streaming import extract_moments, extract_poles, on_cpu, run_identity
from clipspectra.data.datasets import with_digests
from clipspectra.data.samples import sample_images
from clipspectra.explanations.naming import TextPool
from clipspectra.explanations.spectral import principal_components
from clipspectra.figures.drawing import images_by_role, is_sample, provenance
from clipspectra.paper.report import images as images_in_words
from clipspectra.towers import models
from clipspectra.towers.families import adapt
from explain_heads import explain_layers
from fix_components import directions_of

MODEL = ("tests/golden/model_config.json", "tests/golden/model.safetensors")
IMAGES, SEEDS = 31, ("0", "1")
OPTIONS = {"batch_size": 4, "workers": 0}
METHODS = {method: {"texts_per_pole": 3} for method in ("components", "weights")}
METHODS |= {"sparse": {"texts_per_component": 4}, "textspan": {}}
NAMES = {"model": "small", "dataset": "noise", "model_digest": "1", "code": "2"}


@pytest.fixture(scope="module")
def loaded(request):
    return models.load(*(request.config.rootpath / part for part in MODEL))


@pytest.fixture(scope="module")
def root(tmp_path_factory, loaded):
    """A folder with pictures, the tables of two seeds and the model's basis."""
    root, rng = tmp_path_factory.mktemp("moments"), np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(root / f"{number:02d}.png")
    table = pd.DataFrame({"image": [f"{number:02d}.png" for number in range(IMAGES)], "label": 0, "class": "a"})
    table = with_digests(table.assign(row=np.arange(IMAGES), split="", group=""), root)
    for seed in SEEDS:
        order = rng.permutation(IMAGES)
        roles = np.where(np.arange(IMAGES) < 20, "fit", "eval")
        save_table(root / f"images-{seed}.csv", table.iloc[order].assign(role=roles).sort_values(["role", "row"]))
    tower = adapt(loaded.model.visual)
    bases = {"basis": head_basis(tower).numpy(), "value_gram": value_grams(tower).numpy()}
    identity = run_identity(loaded, "", 0)
    save_arrays(root / "basis.safetensors", bases, {name: identity[name] for name in ("sha256", "weights")})
    return root


def stored_whole(loaded, root, seed, protocol="held_out", **options):
    """StoredActivations of a seed's images, all of them kept."""
    images = images_of_shard([root / f"images-{seed}.csv"], 0, 1)
    stream, proof = extract(loaded, images, root, root, **OPTIONS, **options)
    stream.save(root / f"whole-{seed}.safetensors", proof | {"sha256": loaded.sha256 or ""})
    return StoredActivations(
        [root / f"whole-{seed}.safetensors"], root / "basis.safetensors", root / f"images-{seed}.csv", protocol
    )


def moments_run(loaded, root, folder, *, shards=1, size=8, protocol="held_out", layers="all", names=NAMES, **further):
    """{seed: StoredMoments} of both seeds, made as the workflow's scripts make them."""
    folder.mkdir(exist_ok=True)
    tables, samples = ({seed: root / f"{name}-{seed}.csv" for seed in SEEDS} for name in ("images", f"sample{size}"))
    for seed in SEEDS:
        save_table(samples[seed], sample_images(table_chunks(tables[seed], 7), seed, size))
    identity = names | run_identity(loaded, protocol, shards)
    parts, paths, options = {}, [], {"layers": layers, **further, **OPTIONS}

    def save(kind, seed, shard, sums, proof, images, **further):
        numbers = shard_numbers(images, proof["skipped"], seed, shard)
        of_seed = {"kind": kind, "seed": seed, "images": file_digest(tables[seed]), "first_layer": proof["first_layer"]}
        parts.setdefault((kind, seed), []).append(folder / f"{kind}-{seed}-{shard}.safetensors")
        save_sums(parts[kind, seed][-1], on_cpu(sums[seed]), identity | of_seed | further, numbers)

    def merge(kind, seed):
        """In groups of two, and these together."""
        level = parts[kind, seed]
        while len(level) > 1:
            groups = [level[start : start + 2] for start in range(0, len(level), 2)]
            level = []
            for group in groups:
                sums, metadata = merge_sums(group)
                numbers = {key: metadata.pop(key) for key in ("covers", "counts", "skipped")}
                del metadata["count"]
                level.append(group[0].with_name(f"m{group[0].name}"))
                save_sums(level[-1], sums, metadata, numbers)
        return level[0]

    for shard in range(shards):
        images, fits = images_to_stream(tables, samples, shard, shards, protocol)
        stream, moments, proof = extract_moments(loaded, images, root, folder, fits, **options)
        paths.append(folder / f"sample-{shard}-of-{shards}.safetensors")
        stream.append({name: images[name].to_numpy()[:0] for name in ("row", "picture_id")})
        digests = {seed: file_digest(path) for seed, path in tables.items()}
        of_sample = {"images": digests, "samples": {seed: file_digest(path) for seed, path in samples.items()}}
        stream.save(paths[-1], identity | proof | of_sample, order_by="row")
        for seed in SEEDS:
            save("moments", seed, shard, moments, proof, images)
    merged, directions, centres = {seed: merge("moments", seed) for seed in SEEDS}, {}, {}
    files = {"shards": paths, "basis": root / "basis.safetensors", "protocol": protocol}
    for seed in SEEDS:
        stored = StoredMoments(**files, images=samples[seed], moments=merged[seed])
        directions[seed] = {"embedding": principal_components(*stored.fit_moments(EMBEDDING))[1]}
        for kind, of in (("components", stored.fit_moments), ("weights", stored.weight_moments)):
            directions[seed][kind] = np.stack([directions_of(stored, layer, of(layer)) for layer in stored.layers])
        centres[seed] = merge_sums([merged[seed]])[0]
    for shard in range(shards):
        images, fits = images_to_stream(tables, samples, shard, shards, protocol)
        sums, proof = extract_poles(loaded, images, root, fits, directions, centres, **options)
        for seed in SEEDS:
            save("poles", seed, shard, sums, proof, images, directions="3")
    return {
        seed: StoredMoments(
            **files, images=samples[seed], moments=merged[seed], poles=merge("poles", seed), all_images=tables[seed]
        )
        for seed in SEEDS
    }


@pytest.fixture(scope="module")
def pool_features(loaded):
    features = np.random.default_rng(1).normal(size=(50, loaded.model.visual.output_dim))
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def explained(stored, features):
    """{(method, layer, head): HeadExplanation} of all heads and the embedding."""
    pool = TextPool(features, *stored.fit_moments(EMBEDDING))
    layers = dict.fromkeys(METHODS, stored.layers)
    return {key[:3]: key[3] for key in explain_layers(stored, layers, pool, METHODS)}


@pytest.mark.parametrize(("protocol", "layers"), [("held_out", "all"), ("same", 2)])
def test_explanations_are_those_of_the_stored_run(loaded, root, tmp_path, pool_features, protocol, layers):
    """Components, texts of every method, names and weights of poles, though 8 images of a role are kept."""
    streamed = moments_run(loaded, root, tmp_path / "run", shards=3, protocol=protocol, layers=layers)["0"]
    stored = stored_whole(loaded, root, "0", protocol, layers=layers)
    assert (len(streamed.images), streamed.fit_count) == (16, stored.fit.sum())
    assert sorted(streamed.fit_digests()) == sorted(stored.fit_digests())
    assert {role: streamed.images_by_role()[role] for role in streamed.fitted} == {
        role: stored.images_by_role()[role] for role in streamed.fitted
    }
    expected, given = explained(stored, pool_features), explained(streamed, pool_features)
    assert given.keys() == expected.keys()
    for key, explanation in expected.items():
        assert given[key].rank == explanation.rank
        for name in ("mean", "steps", "components"):
            if (array := getattr(explanation, name)) is not None:
                np.testing.assert_allclose(getattr(given[key], name), array, atol=1e-9)
        pd.testing.assert_frame_equal(given[key].table, explanation.table, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(streamed.fit_means(), stored.fit_means(), atol=1e-7)  # of float32 parts
    layer = stored.layers[-1]
    np.testing.assert_allclose(streamed.fit_coordinates(layer), stored.fit_coordinates(layer), rtol=1e-9)


def test_shares_of_concepts_are_those_of_the_stored_run(loaded, root, tmp_path, pool_features):
    streamed, stored = moments_run(loaded, root, tmp_path / "run")["1"], stored_whole(loaded, root, "1")
    explanations = {
        (*key[1:],): value for key, value in explained(stored, pool_features).items() if key[0] == "components"
    }
    directions, classifier = pool_features[:2] - pool_features[:2].mean(0), pool_features[2:6].T
    for ranking in ("evidence", "sway"):
        tables = [
            concept_shares(pd.DataFrame(), images, explanations, directions, classifier, ranking)
            for images in (streamed, stored)
        ]
        pd.testing.assert_frame_equal(*tables, rtol=1e-9, atol=1e-12)


def test_any_shards_give_the_same_sample_and_moments(loaded, root, tmp_path):
    counts = (1, 3, 34)  # some of the last without images
    runs = [moments_run(loaded, root, tmp_path / str(shards), shards=shards) for shards in counts]
    for seed in SEEDS:
        first, *others = (run[seed] for run in runs)
        arrays = load_file(first.moments_path) | {f"p{name}": of for name, of in load_file(first.poles_path).items()}
        for other in others:
            assert sorted(other.images["row"]) == sorted(first.images["row"])
            again = load_file(other.moments_path) | {f"p{name}": of for name, of in load_file(other.poles_path).items()}
            for name, array in arrays.items():
                scale = np.abs(array).max(initial=1e-300)
                limit = 1e-9 if name.startswith("p") else 1e-12  # components turn a little with rounding
                assert np.abs(again[name] - array).max(initial=0) <= limit * scale, name


def test_moments_by_brute_force(loaded, root, tmp_path):
    """Against the contributions themselves; errors over all images, whole or not."""
    streamed = moments_run(loaded, root, tmp_path / "run", shards=2)["0"]
    table = load_table(root / "images-0.csv")
    pictures = [loaded.preprocess(Image.open(root / name)) for name in table["image"][table["role"] == "fit"]]
    exact = contributions(loaded.model, torch.stack(pictures))
    moments = streamed.fit_moments(1)[2]
    heads = exact.heads[:, 1, 2].double().numpy()
    np.testing.assert_allclose(moments.embedded_mean(), heads.mean(0), atol=1e-6)
    covariance = moments.basis @ moments.covariance @ moments.basis.T
    np.testing.assert_allclose(covariance, np.cov(heads.T, ddof=0), atol=1e-7)
    e = (exact.embedding / exact.norm[:, None]).double().numpy()
    cross = moments.basis @ load_file(streamed.moments_path)["cross"][1, 2]
    np.testing.assert_allclose(cross, (heads - heads.mean(0)).T @ (e - e.mean(0)) / len(e), atol=1e-7)
    joint = JointMoments()
    rows = np.random.default_rng(0).normal(size=(12, 3, 2, 5))
    for part in np.split(rows, [1, 5]):
        centred = part - part.mean(0)
        covariances = np.einsum("ilhk,ilhm->lhkm", centred, centred) / len(part)
        flat = part[:, 0, 0]
        joint.add(
            JointMoments(
                len(part),
                part.mean(0),
                covariances,
                np.einsum("ilhk,ie->lhke", centred, flat - flat.mean(0)) / len(part),
                flat.mean(0),
                np.cov(flat.T, ddof=0),
                part[:, :, 0].mean(0),
            )
        )
    np.testing.assert_allclose(joint.covariance[2, 1], np.cov(rows[:, 2, 1].T, ddof=0), atol=1e-14)
    np.testing.assert_allclose(joint.cross[0, 0], joint.embedding_covariance, atol=1e-14)
    np.testing.assert_allclose(joint.mlps, rows[:, :, 0].mean(0), atol=1e-15)
    assert Moments.from_data(rows[:, 0, 0]).count == joint.count == 12


def test_a_sample_of_all_images_is_the_stored_run(loaded, root, tmp_path):
    streamed, stored = moments_run(loaded, root, tmp_path / "run", size=100)["0"], stored_whole(loaded, root, "0")
    pd.testing.assert_frame_equal(streamed.images.drop(columns="of_role"), stored.images)
    arrays, whole = load_file(streamed.chunks[0].paths[0]), load_file(root / "whole-0.safetensors")
    kept = np.isin(arrays["row"], whole["row"])
    for name in ("z", "embedding", "mlps", *ERRORS[:2]):
        assert np.array_equal(arrays[name][kept], whole[name]), name


def test_samples_are_the_same_in_any_order_and_keep_pairs_together():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"image": [f"{number}.png" for number in range(300)], "role": ["fit", "eval", "pair"] * 100})
    table["row"] = np.arange(300)
    pairs = np.where(table["role"] == "pair", np.arange(300) // 6, "")
    table = table.assign(pair=pairs.astype(str), image_sha256=[f"digest {number}" for number in range(300)])
    shuffled = table.sample(frac=1, random_state=1)
    samples = [
        sample_images([part for _, part in of.groupby(rng.integers(0, parts, len(of)))], "0", 7)
        for of, parts in ((table, 1), (table, 9), (shuffled, 4))
    ]
    sets = [set(sample["image"]) for sample in samples]
    assert sets[0] == sets[1] == sets[2]
    assert samples[0]["role"].value_counts().to_dict() == {"fit": 7, "eval": 7, "pair": 6}
    assert (samples[0].query("role == 'pair'")["pair"].value_counts() == 2).all()
    assert set(samples[0]["of_role"]) == {100}
    twice = pd.concat([table, table.assign(row=table["row"] + 300)]).assign(image_sha256="the same")
    assert (sample_images([twice], "0", 7)["role"].value_counts()[["fit", "eval"]] == 7).all()
    assert set(sample_images([table], "1", 7)["image"]) != sets[0]
    assert set(sample_images([table.assign(image="/elsewhere/" + table["image"])], "0", 7)["row"]) == set(
        samples[0]["row"]
    )
    unread = table.assign(image_sha256=table["image_sha256"].where(table["row"] > 30, ""))
    assert (sample_images([unread], "0", 7)["row"] > 30).all()
    assert samples[0]["image"].tolist() == [name for name in table["image"] if name in sets[0]]


def test_bad_images_are_skipped_in_both_passes(loaded, root, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(root, tmp_path / "root")
    fitted = load_table(root / "images-0.csv").query("role == 'fit'")["image"]
    (tmp_path / "root" / fitted.iloc[3]).write_bytes(b"no picture")
    for path in (tmp_path / "root").glob("images-*.csv"):
        save_table(path, with_digests(load_table(path), path.parent))
    with pytest.raises(InputError, match="cannot be read"):
        moments_run(loaded, tmp_path / "root", folder)
    streamed = moments_run(loaded, tmp_path / "root", folder, on_bad_image="skip")["0"]
    assert (streamed.fit_count, streamed.images_by_role()["fit"], streamed.metadata["skipped"]) == (19, 19, 1)
    exactness = json.loads(load_metadata(streamed.chunks[0].paths[0])["exactness"])["0"]
    assert exactness["skipped"] == [fitted.iloc[3]]
    assert 27 <= exactness["images"] + 1 <= 28  # 20 fit images and 8 eval images
    sums, metadata = merge_sums([streamed.poles_path])
    numbers = {name: metadata.pop(name) for name in ("covers", "counts", "skipped", "count")}
    sums.count += 1
    del numbers["count"]
    save_sums(streamed.poles_path, sums, metadata, numbers)
    files = {
        "shards": [streamed.chunks[0].paths[0]],
        "basis": root / "basis.safetensors",
        "images": root / "sample8-0.csv",
    }
    with pytest.raises(InputError, match="is of 19 images, .* of 20: a picture was changed"):
        open_stored(files | {"moments": streamed.moments_path, "poles": streamed.poles_path}, "held_out")


def test_small_print_says_what_is_a_sample(loaded, root):
    sample = sample_images(table_chunks(root / "images-0.csv"), "0", 8)
    line = "8 of 20 fit images · 8 of 11 eval images · means and components of all fit images"
    assert provenance({}, sample) == line
    roles = {"fit": {"images": 59, "split": "train"}, "eval": {"images": 11, "split": ""}}
    roles["pair"] = {"images": 20, "split": ""}
    assert images_in_words({"roles": roles}, 15) == "fit: 15 of 59 (split train), eval: 11, pair: 14 of 20"
    assert images_in_words({"roles": roles}, None) == "fit: 59 (split train), eval: 11, pair: 20"
    assert images_in_words({"roles": {"eval": roles["fit"]}}, 15) == "eval: 59 (split train)"  # segmentation has all
    of_both = "16 of 31 fit and eval images · means and components of all fit and eval images"
    assert provenance({}, sample, "same") == of_both
    assert provenance({}, sample[sample["role"] == "eval"]) == "8 of 11 eval images"  # nothing is fitted
    pairs = sample.assign(role=sample["role"].replace("eval", "pair"))
    assert images_by_role(pairs, pairs=True)[0] == "8 of 11 pair images"
    assert is_sample(pairs)
    assert not is_sample(sample.drop(columns="of_role"))
    assert (
        provenance({}, sample_images(table_chunks(root / "images-0.csv"), "0", 20)) == "20 fit images · 11 eval images"
    )


def test_what_is_not_of_one_run_is_refused(loaded, root, tmp_path):
    streamed = moments_run(loaded, root, tmp_path / "run", shards=2)["0"]
    path = tmp_path / "run" / "moments-0-1.safetensors"
    first = tmp_path / "run" / "moments-0-0.safetensors"
    for key, value, words in (
        ("model", "other", r"the model \(small, other\)"),
        ("sha256", "f00", r"the weights \(\w+, f00\)"),
        ("code", "9", r"the version of the code \(2, 9\)"),
        ("images", "7", "the table of images"),
        ("seed", "1", r"the seed \(0, 1\)"),
    ):
        sums, metadata = merge_sums([path])
        numbers = {name: metadata.pop(name) for name in ("covers", "counts", "skipped")}
        del metadata["count"]
        changed = tmp_path / "changed.safetensors"
        save_sums(changed, sums, metadata | {key: value}, numbers)
        with pytest.raises(InputError, match=f"not of one run and must not be mixed: they differ in {words}"):
            merge_sums([first, changed])
    with pytest.raises(InputError, match="Shards 0 to 0 are merged, and .* begins with shard 0, not 1"):
        merge_sums([str(first), str(first)])  # as Snakemake gives them
    files = {"shards": streamed.chunks[0].paths, "basis": root / "basis.safetensors"}
    files |= {"images": root / "sample8-0.csv", "moments": first}
    with pytest.raises(InputError, match="is of shards 0 to 0 of 2; remove it"):
        open_stored(files, "held_out")
    files["moments"] = streamed.moments_path
    with pytest.raises(InputError, match="is of another protocol"):
        open_stored(files, "same")
    with pytest.raises(InputError, match="differ in the seed"):
        open_stored(
            files | {"poles": moments_run(loaded, root, tmp_path / "run", shards=2)["1"].poles_path}, "held_out"
        )
    other = moments_run(loaded, root, tmp_path / "other", shards=2, names=NAMES | {"model": "another"})["0"]
    with pytest.raises(InputError, match=r"differ in the model \(small, another\)"):
        open_stored(files | {"shards": other.chunks[0].paths}, "held_out")
    turned = principal_components(streamed.fit_moments(1)[0])[1][::-1]
    with pytest.raises(InputError, match="made with other components of layer 1, head 0"):
        streamed.pole_sums(1, 0, turned)
