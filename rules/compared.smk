# What comparisons and transfers read: of two models on one dataset, and of one model on two datasets; no rules here.
def compared_files(wildcards):
    """What a comparison is computed from: the files of the first model, and with other_ in front of the second."""
    entry, files = COMPARISONS[wildcards.comparison], {}
    for prefix, model in zip(("", "other_"), entry["models"]):
        own, folder = component_files(entry, model, wildcards.seed), f"results/evaluation/{model}/{entry['dataset']}"
        own["factors"] = f"{folder}/seed-{wildcards.seed}/{entry['texts']}/factors.csv"
        if entry["dataset"] in CLASSED_DATASETS:
            own["effects"] = f"{folder}/seed-{wildcards.seed}/effects.csv"
        files |= {f"{prefix}{name}": path for name, path in own.items()}
    return files


def compared_cards(wildcards):
    """What the cards of a comparison show, of the first seed."""
    entry, seed = COMPARISONS[wildcards.comparison], SEEDS[0]
    dataset, texts = entry["dataset"], entry["texts"]
    files = {
        "images": IMAGES.format(dataset=dataset, seed=seed),
        "manifest": local(f"results/data/{dataset}/manifest.csv"),
    }
    for prefix, model in zip(("", "other_"), entry["models"]):
        files[f"{prefix}names"] = component_files(entry, model, seed)["names"]
        pole_images = f"results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/pole-images.parquet"
        files[f"{prefix}pole_images"] = pole_images
    return files


def transfer_files(wildcards):
    """What a transfer is computed from: the files of the dataset that is scored, and those of the basis that travels."""
    entry, model, seed = TRANSFERS[wildcards.transfer], wildcards.model, wildcards.seed
    own, travelled = ({"dataset": entry[end], "texts": entry["texts"]} for end in ("to", "from"))
    own, travelled = (component_files(about, model, seed) for about in (own, travelled))
    files = {name: own[name] for name in ("shards", "basis", "images", "texts")} | {"own": own["components"]}
    files |= {f"travelled_{name}": travelled[name] for name in ("shards", "images")}
    for prefix, end in (("", "to"), ("travelled_", "from")):
        source = {"model": model, "dataset": entry[end], "seed": seed}
        paths = {"moments": MOMENTS, "poles": POLES, "all_images": ALL_IMAGES}
        files |= if_moments(**{f"{prefix}{name}": path.format(**source) for name, path in paths.items()})
    files["travelled"] = travelled["components"]
    files["weights"] = travelled["components"].replace("components.safetensors", "weights.safetensors")
    if entry["to"] in CLASSED_DATASETS:
        files["classes"] = f"results/text/{model}/classes-{entry['to']}.safetensors"
    return files


def transfer_datasets(wildcards):
    """What the outcome of a transfer depends on beside its files: not its other models."""
    entry = TRANSFERS[wildcards.transfer]
    return {key: entry[key] for key in ("from", "to", "texts")}


def transfers_by_model(pattern, **wildcards):
    """A pattern's files for every transfer and each of its models."""
    return [
        path
        for name, entry in TRANSFERS.items()
        for path in expand(pattern, transfer=name, model=entry["models"], **wildcards)
    ]
