"""The explorer of a large study: time, memory and disk to make it, and how fast it opens and answers in a browser.

Stored results of random numbers, as one model with one dataset, seed and text pool leaves them; the page is made from
them by the rules' own scripts, and measured from disk in headless Chromium (`pip install playwright`, and a `chromium`
on the PATH) on two cores. A "!" marks what misses its promise.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from clipspectra.arrays import ROWS, ArrayStream, save_arrays, save_table
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.data.store import picture_ids
from clipspectra.explanations.head import HeadExplanation, save_explanations

ROOT = Path(__file__).parents[1]
RUN = {"model": "model", "dataset": "photos", "seed": 0, "texts": "pool"}
FIT, CLASSES, CARDS, PLACES = 200, 1000, 12, 5
FACTORS = {"light": ["day", "dusk", "night", "inside"], "view": ["close", "far", "from above", "aerial", "macro"]}
WORDS = """\
red old wooden bright small foggy busy empty golden striped broken tall round rusty snowy quiet
bridge dog castle bicycle harbour kitchen flower airplane violin market horse tower lemon train owl statue piano truck \
beach mountain clock rabbit window garden boat guitar lamp church tiger sofa"""
ADJECTIVES, THINGS = (line.split() for line in WORDS.splitlines())
WHERE = ["at night", "in the rain", "by the sea", "on a table", "in the snow", "seen from above", "near a river"]
WHERE += ["at sunset", "in black and white", "behind a fence", "on a city street", "in a museum", "with people"]
TEXT = "{} {} {} {}"
KINDS = ["a photo of a", "a painting of a", "a close-up of a", "an image of a", "a drawing of a"]
QUERY = "red bridge"
SCRIPT = """
import json, runpy, sys
from types import SimpleNamespace
class Named(dict):
    __getattr__ = dict.__getitem__
description, script = json.loads(sys.argv[1]), sys.argv[2]
for key in ("input", "params", "wildcards"):
    description[key] = Named(description[key])
runpy.run_path(script, {"snakemake": SimpleNamespace(**description)}, "__main__")
"""
# In the page: the time of the first complete map since navigation began, tasks of 50 ms and more, and waiting.
INSIDE = """
window.tasks = [];
new PerformanceObserver((list) => tasks.push(...list.getEntries().map((task) => task.duration)))
  .observe({ type: "longtask", buffered: true });
window.frame = () => new Promise(requestAnimationFrame);
window.until = async (holds) => { while (!holds()) await frame(); };
window.wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
window.longest = async () => { await wait(300); return Math.max(0, ...tasks.splice(0)); };
window.first = until(() => document.querySelectorAll(".cell").length === CELLS).then(() => performance.now());
"""
OPEN_HEAD = """async (unit) => {
  location.hash = "";
  await until(() => document.querySelector(".cell"));
  await frame();
  const start = performance.now();
  location.hash = `v=head&h=${unit}`;
  await until(() => document.querySelector(".card"));
  await frame();
  return performance.now() - start;
}"""
TYPE = """async (query) => {
  const input = document.querySelector("#search");
  const times = [];
  for (let end = 1; end <= query.length; end++) {
    const start = performance.now();
    input.value = query.slice(0, end);
    input.dispatchEvent(new Event("input", { bubbles: true }));
    await frame();
    await frame();
    times.push(performance.now() - start);
    await wait(end % 3 ? 100 : 350); // after 250 ms the address follows
  }
  return times;
}"""
SCROLL = """async () => {
  for (let end = -1; end !== scrollY; ) { end = scrollY; scrollBy(0, 80); await frame(); }
}"""


def units_of(options):
    """(layer, head) of each head and of the whole embedding."""
    heads = [(layer, head) for layer in range(options.layers) for head in range(options.heads)]
    return [*heads, (EMBEDDING, EMBEDDING)]


def random_texts(count, rng):
    """So many different texts, of about 35 characters."""
    parts = (KINDS, ADJECTIVES, THINGS, WHERE)
    numbers = rng.permutation(np.prod([len(part) for part in parts]))
    if count > len(numbers):
        raise SystemExit(f"There are only {len(numbers):,} different texts.")
    columns = np.unravel_index(numbers[:count], [len(part) for part in parts])
    return [TEXT.format(*(part[n] for part, n in zip(parts, row))) for row in zip(*columns)]


def draw_pictures(root, names, rng):
    """Files of 128 pixels a side: smooth colours with texture, about as large as photographs."""
    for name in names:
        layers = [(4, 60), (16, 22), (64, 8)]  # size of the noise, its strength
        picture = 128
        for size, strength in layers:
            noise = np.clip(rng.normal(128, strength, (size, size, 3)), 0, 255).astype(np.uint8)
            resized = Image.fromarray(noise).resize((128, 128), Image.Resampling.BICUBIC)
            picture = picture + np.asarray(resized, np.int16) - 128
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(root / name, quality=90)


def store_images(folder, options, rng):
    """Pictures, the seed's table of them, a shard of their activations, and the basis."""
    (folder / "images").mkdir()
    stream, count = ArrayStream(folder), options.pictures + FIT
    digests, classes = [f"{row:064x}" for row in range(count)], rng.integers(0, CLASSES, count)
    table = pd.DataFrame({"row": range(count), "image": [f"images/val_{row:08d}.jpg" for row in range(count)]})
    table = table.assign(label=classes, split="val", group="", role=np.where(table["row"] < FIT, "fit", "eval"))
    table["class"] = [f"{ADJECTIVES[n % 16]} {THINGS[n // 16 % 30]} {n // 480}" for n in classes]
    for name, values in FACTORS.items():
        table[name] = rng.choice(values, count)
    save_table(folder / "images.csv", table.assign(image_sha256=digests))
    draw_pictures(folder, table["image"][FIT:], rng)
    for start in range(0, count, ROWS):
        rows = np.arange(start, min(start + ROWS, count))
        z = rng.standard_normal((len(rows), options.layers, options.heads, 64), np.float32).astype(np.float16)
        arrays = {"z": z, "row": rows, "picture_id": picture_ids(digests[start : start + ROWS])}
        arrays |= {"embedding": rng.standard_normal((len(rows), options.width), np.float32)}
        arrays |= {"scalars": np.ones((len(rows), 3), np.float32), "mlps": np.zeros((len(rows), 1, 1), np.float16)}
        stream.append(arrays)
    stream.save(folder / "shard.safetensors", {})
    basis = rng.standard_normal((options.layers, options.heads, options.width, 67), np.float32)
    save_arrays(folder / "basis.safetensors", {"basis": basis}, {"sha256": "0" * 64})


def store_explanations(folder, options, texts, rng):
    """Files of the methods components and textspan, and of the text pool."""
    units, count = units_of(options), options.components
    explanations = {}
    for unit in units:
        frame = np.linalg.qr(rng.normal(size=(options.width, count)))[0].T
        explanations[unit] = HeadExplanation(np.zeros(options.width), count, frame, np.arange(count), None, frame)
    save_explanations(folder / "components.safetensors", explanations, {})
    axes = [units, range(count), ("top", "bottom"), ("says", "fires_on"), range(PLACES)]
    names = pd.MultiIndex.from_product(axes, names=["unit", "component", "pole", "naming", "place"]).to_frame(False)
    names["layer"], names["head"] = zip(*names.pop("unit"))
    rows, texts = len(names), np.array(texts)
    names["score"] = rng.uniform(0.1, 0.6, rows) * np.where(
        (names["naming"] == "says") & (names["pole"] == "bottom"), -1, 1
    )
    names["text"] = texts[(len(texts) * rng.random(rows) ** 2).astype(int)]  # some much more often than others
    names["projection"], names["named"] = rng.normal(0, 0.3, rows), np.repeat(rng.random(rows // PLACES) < 0.6, PLACES)
    names = names.assign(singular_value=1 / (1 + names["component"]), strength=1 / count, score_by_chance_95=0.42891)
    names.to_parquet(folder / "components.parquet", index=False)
    spans = pd.MultiIndex.from_product([units, range(count)], names=["unit", "place"]).to_frame(False)
    spans["layer"], spans["head"] = zip(*spans.pop("unit"))
    spans = spans.assign(text=rng.choice(texts, len(spans)), variance=rng.uniform(0, 30, len(spans)))
    spans.to_parquet(folder / "textspan.parquet", index=False)
    features = {"features": rng.standard_normal((len(texts), options.width), np.float32)}
    save_arrays(folder / "texts.safetensors", features, {"texts": texts.tolist()})


def store_tables(folder, options, rng):
    """The tables of evaluation and of the whole study that the explorer reads."""
    units, count = np.array(units_of(options)), options.components

    def with_intervals(table, *columns):
        for column in columns:
            middle, half = rng.normal(0, 1, (2, len(next(iter(table.values())))))
            table |= {column: middle, f"{column}_low": middle - abs(half), f"{column}_high": middle + abs(half)}
        return pd.DataFrame(table)

    layers, heads = units[:-1].T
    effects = with_intervals(
        {"kind": ["head"] * len(layers), "layer": layers, "head": heads}, "norm", "margin_share", "accuracy_lost"
    )
    save_table(folder / "effects.csv", effects)
    layers, heads = np.repeat(units, count, axis=0).T
    factors = {"layer": layers, "head": heads, "component": np.tile(range(count), len(units)), "share": 1 / count}
    for name, values in FACTORS.items():
        eta2 = rng.random(len(layers)) ** 4
        factors |= {f"eta2_{name}": eta2, f"high_{name}": rng.choice(values, len(layers))}
        factors |= {f"low_{name}": rng.choice(values, len(layers))}
    top, bottom = rng.uniform(0.2, 0.6, (2, len(layers)))
    factors |= {"monosemanticity_top": top, "monosemanticity_bottom": bottom, "monosemanticity_by_chance": 0.21}
    factors = pd.DataFrame(factors).assign(similarity="embeddings")
    save_table(folder / "factors.csv", factors)
    clearest = factors[factors["layer"] >= 0].sample(CARDS, random_state=0)
    save_table(folder / "clearest.csv", clearest.assign(sureness=1.3, factor="light", eta2=0.8))
    layers, heads = units.T
    stability = pd.DataFrame({"layer": layers, "head": heads, "compared": "disjoint halves of the fit images"})
    stability = stability.assign(which="seed 0", cosine=rng.random(len(units)), same_text=100 * rng.random(len(units)))
    save_table(folder / "stability.csv", stability)
    recovery = {"method": np.repeat(["components", "textspan"], 9), "budget": np.tile(range(0, 90, 10), 2)}
    recovery = with_intervals(recovery, "top1", "explained_variance").assign(draws=1, images=options.pictures)
    save_table(folder / "recovery.csv", recovery.assign(given="fit images, texts", layers="all", mlps="mean"))
    exactness = {**RUN, "shard": "shard-0-of-1", "images": options.pictures, "skipped": 0, "precision": "fp32"}
    exactness |= dict.fromkeys(["largest_sum_error", "largest_stored_sum_error", "largest_model_error"], 1e-7)
    exactness |= dict.fromkeys(["dtype", "sha256", "torch", "open_clip_torch"], "-")
    save_table(folder / "exactness.csv", pd.DataFrame([exactness]))
    columns = ["model", "dataset", "seed", "image", "reason"]
    save_table(folder / "skipped.csv", pd.DataFrame(columns=columns))
    save_table(folder / "loaded.csv", pd.DataFrame([{"model": "model", "architecture": "ViT-H-14"}]))


def store_study(folder, options):
    rng = np.random.default_rng(0)
    store_images(folder, options, rng)
    store_tables(folder, options, rng)
    store_explanations(folder, options, random_texts(options.texts, rng), rng)


def jobs(folder, options):
    """{script: what Snakemake would hand it} of the three rules."""
    paths = {path.stem: str(path) for path in folder.glob("*.csv")} | {"texts": str(folder / "texts.safetensors")}
    methods, factors = ["components", "textspan"], list(FACTORS)
    run, pictures = str(folder / "run"), str(folder / "thumbnails")
    common = {"protocol": "held_out", "code": "-", "naming": "says", "factors": factors, "pictures": options.pictures}
    explored = paths | {"all_images": [paths["images"]], "tables": [str(folder / f"{m}.parquet") for m in methods]}
    explored |= {name: str(folder / f"{name}.safetensors") for name in ("basis", "components")}
    explored["shards"] = [str(folder / "shard.safetensors")]
    page = {"runs": [run], "pictures": [pictures], "texts": [paths["texts"]], "entries": []}
    page_params = {"page": str(ROOT / "explorer"), "runs": [RUN], "missing": [], "methods": methods, "entries": []}
    return {
        "explore_components": (explored, common | {"methods": methods, "own_maps": True}, run),
        "draw_thumbnails": ({"images": [paths["images"]], "manifest": str(folder / "manifest.csv")}, common, pictures),
        "make_explorer": (paths | page, common | page_params, str(folder / "explorer")),
    }


def run_script(folder, name, inputs, params, output):
    """(wall seconds, CPU seconds, peak memory in MiB) of a rule's script in a process of its own."""
    wildcards = RUN | {"seed": str(RUN["seed"])}
    description = {"input": inputs, "params": params, "wildcards": wildcards, "output": [output], "threads": 2}
    description |= {"log": [str(folder / f"{name}.log")], "resources": {}}
    command = [sys.executable, "-c", SCRIPT, json.dumps(description), str(ROOT / "scripts" / f"{name}.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    start = os.times().elapsed
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{name} failed:\n{(folder / f'{name}.log').read_text()}")
    return os.times().elapsed - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**10


def megabytes(root, pattern="**/*"):
    return sum(path.stat().st_size for path in root.glob(pattern) if path.is_file()) / 1e6


def row(what, measured, promise=None, unit="", digits=0):
    """Print a row of the table; promise: the most that it may be."""
    missed = promise is not None and measured > promise
    kept = "" if promise is None else f"{'!' if missed else ''} {promise:g} {unit}"
    print(f"| {what} | {measured:,.{digits}f} {unit} | {kept.strip()} |", flush=True)


def build(folder, options):
    """Make the page, and print what it takes; its folder."""
    total, results = 0, {name: run_script(folder, name, *job) for name, job in jobs(folder, options).items()}
    print("| what | measured | promise |\n|---|---|---|")
    for name, (wall, cpu, memory) in results.items():
        total += wall
        print(f"| {name} | {wall:.1f} s, CPU {cpu:.1f} s, {memory:,.0f} MiB | |")
    row("all three, wall time", total, 60, "s", 1)
    page, run = folder / "explorer", "runs/*/*/*/*"
    for what, pattern in {
        "heads": f"{run}/heads/*", "search": f"{run}/search/*", "pictures of the run": f"{run}/pictures/*",
        "thumbnails": "pictures/*/*.webp", "list of pictures": "pictures/*/list.js", "overview": f"{run}/overview.js",
        "texts": "texts/*", "vendor": "vendor/*",
    }.items():  # fmt: skip
        row(f"disk: {what}", megabytes(page, pattern), unit="MB", digits=2)
    row("disk: the folder", megabytes(page), 60, "MB", 1)
    return page


def first_view(browser, address, cells, repeats):
    """(page, milliseconds of each first view, longest task of each, paths of the files that one loads)."""
    times, tasks = [], []
    for repeat in range(repeats):
        page, files = browser.new_page(viewport={"width": 1280, "height": 800}), {}
        page.set_default_timeout(60_000)
        page.on("request", lambda request, files=files: files.setdefault(request.url))
        page.add_init_script(INSIDE.replace("CELLS", str(cells)))
        page.goto(address)
        times.append(page.evaluate("first"))
        page.wait_for_load_state("networkidle")
        tasks.append(page.evaluate("longest()"))
        if repeat + 1 < repeats:
            page.close()
    return page, times, tasks, [Path(url.removeprefix("file://")) for url in files if url.startswith("file://")]


def smooth(page, what, then):
    """Print the longest task while `then` is done; 0 if none took 50 ms."""
    page.evaluate("longest()")
    then()
    row(f"longest task: {what}", page.evaluate("longest()"), 100, "ms")


def press(page, key, count=60):
    for _ in range(count):
        page.keyboard.press(key)


def visit(page, address, selector):
    page.evaluate("(hash) => { location.hash = hash; }", address)
    page.wait_for_selector(selector)


def browse(folder, options, browser):
    """Open the page, and print how fast it answers."""
    cells, rng = options.layers * options.heads + 1, np.random.default_rng(1)
    page, times, tasks, files = first_view(browser, (folder / "index.html").as_uri(), cells, 5)
    sizes = {"pictures": 0, "data": 0, "page": 0}
    for path in files:
        parts = path.relative_to(folder).parts
        kind = "page" if parts[0] in ("index.html", "style.css", "app", "vendor") else "data"
        sizes["pictures" if path.suffix == ".webp" else kind] += path.stat().st_size / 1e3
    for kind, size in sizes.items():
        row(f"first view: {kind}", size, unit="kB")
    row(f"first view: all {len(files)} files", sum(sizes.values()), 250, "kB")
    row("first view: time, median of 5", statistics.median(times), 1000, "ms")
    row("first view: time, worst of 5", max(times), 1000, "ms")
    row("longest task: first view, worst of 5", max(tasks), 100, "ms")

    numbers = rng.choice(cells - 1, min(20, cells - 1), replace=False)
    units = [f"{n // options.heads}.{n % options.heads}" for n in numbers.tolist()]
    first, *others = [page.evaluate(OPEN_HEAD, unit) for unit in units]
    row("opening the first head, with the texts", first, unit="ms")
    row(f"opening a head, median of {len(others)}", statistics.median(others), 150, "ms")
    row(f"opening a head, worst of {len(others)}", max(others), 150, "ms")
    row("longest task: opening heads", page.evaluate("longest()"), 100, "ms")

    visit(page, "v=search", "#search")
    row(f"search: a key of “{QUERY}”, worst", max(page.evaluate(TYPE, QUERY)), 100, "ms")
    row("longest task: search", page.evaluate("longest()"), 100, "ms")

    visit(page, "", ".cell")
    page.focus(".cell")
    smooth(page, "arrow keys on the map", lambda: [press(page, key, 15) for key in ("ArrowRight", "ArrowDown") * 2])
    visit(page, f"v=head&h={units[-1]}", ".card")
    page.focus(".bars a")
    smooth(page, "j on a head", lambda: press(page, "j"))
    smooth(page, "scrolling a head", lambda: page.evaluate(SCROLL))
    visit(page, "v=picture", ".picture")
    smooth(page, "scrolling the pictures", lambda: page.evaluate(SCROLL))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, count in (("layers", 32), ("heads", 16), ("components", 64), ("texts", 15000), ("pictures", 5000)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--width", type=int, default=128, help="d_embed")
    parser.add_argument("--folder", type=Path, help="where the study and the page are kept; a study there is used")
    options = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("The browser is driven by playwright: pip install playwright")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "texts.safetensors").exists():
            # In a process of its own: a script that is started counts this one's memory as its peak.
            storing = multiprocessing.Process(target=store_study, args=(folder, options))
            storing.start()
            storing.join()
            if storing.exitcode:
                sys.exit("The study could not be stored.")
        for made in ("run", "thumbnails", "explorer"):
            shutil.rmtree(folder / made, ignore_errors=True)
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # of all processes that follow
        page = build(folder, options)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            browse(page, options, browser)
            browser.close()


if __name__ == "__main__":
    main()
