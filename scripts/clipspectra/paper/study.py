"""A study in one small dict: what was run, on what and with what. The paper and the report read it."""

import hashlib
from importlib.metadata import version

from clipspectra import InputError
from clipspectra.arrays import load_table, table_chunks
from clipspectra.on_disk import database, pieces_of

# What results depend on, beside the code. Versions of torch and open_clip are those that the extractions used.
PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "matplotlib", "snakemake", "typst")
EXTRACTED_WITH = ("torch", "open_clip_torch")


def read_table(path, columns, numbers=()):
    """A table of results. Raises InputError if it lacks one of the columns, or of the numbers, which may be blank."""
    table = load_table(path, numbers)
    missing = [column for column in (*columns, *numbers) if column not in table]
    if missing:
        raise InputError(
            f"{path} has no column '{missing[0]}', which the paper needs. Was it edited by hand? Delete the file, and "
            "run again to make it anew."
        )
    return table


def describe_dataset(source, paths):
    """What a dataset is. source: its name, kind, factors and masks; paths: the tables of images of its seeds.

    roles: {role: most images that a seed has of it, and their split}
    """
    roles, classes, groups = {}, set(), set()
    with database("images (row INTEGER, digest TEXT, seed INTEGER)") as images:
        for seed, path in enumerate(paths):
            of_seed = {}
            for chunk in table_chunks(path):
                rows = zip(chunk["row"].tolist(), chunk["image_sha256"])
                images.executemany(f"INSERT INTO images VALUES (?, ?, {seed})", rows)
                classes |= set(chunk["class"])
                groups |= set(chunk["group"])
                for role, part in chunk.groupby("role", sort=False):
                    count, splits = of_seed.get(role, (0, set()))
                    of_seed[role] = count + len(part), splits | set(part["split"])
            for role, (count, splits) in of_seed.items():
                count = max(count, roles.get(role, {"images": 0})["images"])
                roles[role] = {"images": count, "split": "+".join(sorted(splits - {""}))}
        count, digest = 0, hashlib.sha256()  # of all images, once each
        query = "SELECT digest, MIN(seed) FROM images GROUP BY row ORDER BY digest"
        for digests, _ in pieces_of(images.execute(query)):
            digest.update("".join(digests).encode())
            count += len(digests)
    sizes = {"images": count, "classes": len(classes - {""}), "groups": len(groups - {""})}
    roles = {role: roles[role] for role in ("fit", "eval", "validation", "pair") if role in roles}
    return source | sizes | {"roles": roles, "sha256": digest.hexdigest()}


def describe_models(loaded, sources):
    """What each model is: its row of the table of loaded models, and where its weights come from."""
    rows = loaded.astype(str).set_index("model").to_dict("index")
    return [{"name": name, **rows[name], **source} for name, source in sources.items()]


def describe_texts(table):
    """Name and size of each text pool; the sizes are the same for all models."""
    return table.drop_duplicates("texts")[["texts", "count"]].rename(columns={"texts": "name"}).to_dict("records")


def package_versions(exactness):
    """{package: version}; of the packages that an extraction used, those that are in its files."""
    versions = {name: ", ".join(sorted(set(exactness[name].astype(str)))) for name in EXTRACTED_WITH if len(exactness)}
    return versions | {name: version(name) for name in PACKAGES}


def published_beside(published, models, datasets):
    """The published figures that may stand beside ours: the same model, data and split. Rows with our names for these.

    published: table of published figures; models: {name: its tag and pretrained in the config}; datasets: described
    """
    rows = []
    for row in published.to_dict("records"):
        for name, model in models.items():
            if (model["tag"], model["pretrained"]) != (row["architecture"], row["pretrained"]):
                continue
            for dataset in datasets:
                split = dataset["roles"].get("eval", {}).get("split")
                if (dataset["kind"], split) == (row["dataset"], row["split"]):
                    rows.append(row | {"model": name, "dataset": dataset["name"]})
    return rows
