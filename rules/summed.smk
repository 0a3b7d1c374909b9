# The tree that sums over images are merged over, where an extraction keeps moments; no rules here.
MERGED = 8  # files that one job merges


def parts_of(kind):
    """The sums of one shard, by seed: leaves of the tree; temporary."""
    path = f"results/activations/{{model}}/{{dataset}}/seed-{{seed}}-{kind}/0-{{shard}}-of-{{shards}}.safetensors"
    return temp(expand(path, seed=SEEDS, allow_missing=True))


def merged_parts(level, number):
    """The files below a node of the tree, {level}-{number}, and whether there is one node on this level only."""
    count = config["shards"]
    for _ in range(level - 1):
        count = -(-count // MERGED)
    return range(number * MERGED, min((number + 1) * MERGED, count)), count <= MERGED


def node_files(wildcards, level, number):
    """Paths of the files that a node of the tree is merged from."""
    folder = "results/activations/{model}/{dataset}/seed-{seed}-{kind}/".format(**wildcards)
    numbers, _ = merged_parts(level, number)
    return [f"{folder}{level - 1}-{part}-of-{config['shards']}.safetensors" for part in numbers]


def root_files(wildcards):
    """Paths of the files that the root of the tree is merged from: of the first level that few enough are on."""
    level = 1
    while not merged_parts(level, 0)[1]:
        level += 1
    return node_files(wildcards, level, 0)
