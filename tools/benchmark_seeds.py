"""CPU time and disk of an extraction for three seeds, against one (`make benchmark`).

The demo's first dataset with every image used by every seed (roles `all`), and with each seed drawing a quarter.
"""

import argparse
import tempfile
from pathlib import Path

import yaml
from benchmark_demo import REPOSITORY, run_workflow


def extraction_seconds(config, seeds, per_class, cores):
    """CPU seconds of all extraction jobs of the demo's first dataset."""
    digits = config["datasets"]["digits"]
    roles = {role: rule | {"per_class": per_class} for role, rule in digits["roles"].items()}
    study = {"models": {"demo": config["models"]["demo"]}, "texts": config["texts"], "seeds": seeds, "shards": 1}
    study |= {"datasets": {"digits": digits | {"roles": roles}}, "threads": 1}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(study, file)
        jobs = run_workflow(REPOSITORY, cores, file.name, ["activations"])[2]
    return sum(seconds for seconds, _ in jobs["extract_activations"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--cores", type=int, default=1)
    arguments = parser.parse_args()
    config = yaml.safe_load(Path(REPOSITORY, "config", "config.yaml").read_text())
    config["datasets"]["digits"]["demo"]["images"] = arguments.images
    print("| each seed uses | extraction, CPU s, one seed | three seeds | ratio |\n|---|---|---|---|")
    for uses, per_class in (("all images", "all"), ("a quarter of the images", arguments.images // 80)):
        one, three = (extraction_seconds(config, seeds, per_class, arguments.cores) for seeds in ([0], [0, 1, 2]))
        print(f"| {uses} | {one:.1f} | {three:.1f} | {three / one:.2f} |", flush=True)


if __name__ == "__main__":
    main()
