# What jobs read of the user's own files, and of what is fetched: pictures, tar files, archives, pools; no rules here.
ARCHIVE_KINDS = (
    *("imagenet", "imagenet_segmentation", "pascal_voc", "waterbirds"),
    *("cifar10", "cifar100"),
)
SOURCE_KINDS = ("demo", "folder", "manifest", "webdataset", *ARCHIVE_KINDS)


def archive_entries(dataset):
    """(kind of source, {name: its entry in the config}) of a dataset that comes in archives."""
    kind = next(kind for kind in ARCHIVE_KINDS if kind in DATASETS[dataset])
    return kind, DATASETS[dataset][kind]


def expected_digest(entry):
    """The digest that an archive, or a text pool, must have: {"md5": hex}, {"sha256": hex} or {}."""
    return {kind: entry[kind] for kind in ("md5", "sha256") if kind in entry}


# What is fetched, by the name it is kept under.
DOWNLOADS = {
    entry["url"].rsplit("/", 1)[-1]: entry
    for dataset in ARCHIVED_DATASETS
    for entry in archive_entries(dataset)[1].values()
    if "path" not in entry
}


def archive_files(wildcards):
    """The archives of a dataset: what is fetched, and the user's own files as far as they are there."""
    entries = archive_entries(wildcards.dataset)[1]
    own = {name: locate(entry["path"]) for name, entry in entries.items() if "path" in entry}
    fetched = {
        name: local(f"results/data/archives/{entry['url'].rsplit('/', 1)[-1]}")
        for name, entry in entries.items()
        if name not in own
    }
    return fetched | {name: path for name, path in own.items() if Path(path).exists()}


def missing_archives(wildcards):
    """{key of the config: path} of the user's archives that are not there: reported by the job, so that dry runs still work."""
    kind, entries = archive_entries(wildcards.dataset)
    return {
        f"datasets.{wildcards.dataset}.{kind}.{name}.path": entry["path"]
        for name, entry in entries.items()
        if "path" in entry and not Path(locate(entry["path"])).exists()
    }


# {dataset: {name: tar file}}, checked before anything runs.
TARS = {}
for name in TAR_DATASETS:
    try:
        TARS[name] = {tar.name: tar for tar in tar_files(DATASETS[name]["webdataset"]["shards"])}
    except InputError as error:
        raise WorkflowError(f"Config, datasets.{name}.webdataset.shards: {error}.") from None


@functools.cache
def tar_digests(dataset):
    """{name of a tar file: the digest it must have, see expected_digest}, from the config or the file that it names."""
    sums, key = DATASETS[dataset]["webdataset"].get("sha256", {}), f"datasets.{dataset}.webdataset.sha256"
    try:
        sums = sums if isinstance(sums, dict) else read_sums(existing(sums, key))
        return {name: expected_sum(tar, sums) for name, tar in TARS[dataset].items()}
    except InputError as error:
        raise WorkflowError(f"Config, {key}: {error}.") from None


@functools.cache
def located_tars(dataset):
    """The tar files of a dataset, in order, with the paths where they are, or will be once they are fetched."""
    folder = f"results/data/archives/{dataset}"
    return [
        tar._replace(place=f"{folder}/{tar.name}" if tar.is_remote else str(locate(tar.place)))
        for tar in TARS[dataset].values()
    ]


def tar_inputs(wildcards):
    """The tar files of a dataset that are fetched, and the file of its classes. The user's own may not be there yet."""
    tars = zip(TARS[wildcards.dataset].values(), located_tars(wildcards.dataset))
    files = {"fetched": [local(located.place) for tar, located in tars if tar.is_remote]}
    if classes := DATASETS[wildcards.dataset]["webdataset"].get("classes"):
        files["classes"] = existing(classes, f"datasets.{wildcards.dataset}.webdataset.classes")
    return files


def sample_options(wildcards):
    """Which files of a sample are its picture and mask, and what is read of its .json."""
    source = DATASETS[wildcards.dataset]["webdataset"]
    return {key: source[key] for key in ("image", "mask", "columns") if key in source}


def own_manifest_file(wildcards):
    """The user's manifest as an input: an edit is noticed."""
    manifest = DATASETS[wildcards.dataset].get("manifest")
    key = f"datasets.{wildcards.dataset}.manifest"
    return {"own": existing(manifest, key)} if manifest else {}


def files_in(folder):
    """The files of a dataset's folder; empty if it cannot be read, which the job that reads it reports."""
    try:
        return visible_files(folder)
    except OSError:
        return []


def folder_digest(wildcards):
    """Digest of the names in a dataset's folder: an added or removed picture is noticed."""
    folder = DATASETS[wildcards.dataset].get("folder")
    names = map(os.fsencode, files_in(folder)) if folder else []
    return hashlib.sha256(b"\n".join(names)).hexdigest()[:12]


@functools.cache
def pictures_stamp(dataset, column="image"):
    """Stamp of the images, or masks, of a dataset of one's own: one that is replaced under its old name is noticed."""
    source = DATASETS[dataset]
    if "webdataset" in source:
        return stamp(tar.place for tar in located_tars(dataset) if not tar.place.startswith("results/"))
    if "folder" in source:
        return stamp(files_in(source["folder"]) if column == "image" else [])
    return stamp(manifest_files(locate(source["manifest"]), column) if "manifest" in source else [])


def pool_file(wildcards):
    """The file of a text pool, the user's or downloaded; the demo's pool has none."""
    pool = TEXTS[wildcards.texts]
    if "url" in pool:
        return {"pool": local(f"results/data/texts/{wildcards.texts}.txt")}
    key = f"texts.{wildcards.texts}"
    if "generated" in pool:
        words = "config/words.yaml" if pool["generated"] is True else pool["generated"]
        return {"words": existing(words, f"{key}.generated")}
    return {"pool": existing(pool["file"], f"{key}.file")} if "file" in pool else {}
