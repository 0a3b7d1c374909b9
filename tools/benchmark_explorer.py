"""The explorer of a large study: time, memory and disk to make it, and how fast it opens and answers in a browser.

Stored results of random numbers, as one model with one dataset, seed and text pool leaves them; the page is made from
them by the rules' own scripts, and measured from disk in headless Chromium (`pip install playwright`, and a `chromium`
on the PATH) on two cores. A "!" marks what misses its promise; a longest task of 0 ms is one below 50 ms.
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
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
from PIL import Image

from clipspectra.arrays import ROWS, ArrayStream, save_arrays, save_table
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.data.store import picture_ids
from clipspectra.explanations.head import HeadExplanation, save_explanations

ROOT = Path(__file__).parents[1]
RUN = {"model": "model", "dataset": "photos", "seed": 0, "texts": "pool"}
SIZES = {"layers": 32, "heads": 16, "components": 64, "texts": 15000, "pictures": 5000, "width": 128}
FIT, CLASSES, CARDS, PLACES, HEADS_OPENED, REPEATS = 200, 1000, 12, 5, 20, 5
METHODS = ["components", "textspan"]
FACTORS = {"light": ["day", "dusk", "night", "inside"], "view": ["close", "far", "from above", "aerial", "macro"]}
QUERY, ARROWS = "red bridge", (["ArrowRight"] * 15 + ["ArrowDown"] * 15) * 2
WORDS = """\
a photo of a,a painting of a,a close-up of a,an image of a,a drawing of a
red,old,wooden,bright,small,foggy,busy,empty,golden,striped,broken,tall,round,rusty,snowy,quiet
bridge,dog,castle,bicycle,harbour,kitchen,flower,airplane,violin,market,horse,tower,lemon,train,owl,statue,piano,truck,\
beach,mountain,clock,rabbit,window,garden,boat,guitar,lamp,church,tiger,sofa
at night,in the rain,by the sea,on a table,in the snow,seen from above,near a river,at sunset,in black and white,\
behind a fence,on a city street,in a museum,with people"""
WORDS = [line.split(",") for line in WORDS.splitlines()]
DISK = {name: f"runs/*/*/*/*/{name}/*" for name in ("heads", "search", "pictures")}
DISK |= {
    "overview": "runs/*/*/*/*/overview.js",
    "thumbnails": "pictures/*/*.webp",
    "list of pictures": "pictures/*/*.js",
}
DISK |= {"texts": "texts/*", "vendor": "vendor/*"}
SCRIPT = """
import json, runpy, sys
from types import SimpleNamespace
class Named(dict):
    __getattr__ = dict.__getitem__
given = json.loads(sys.argv[2])
given |= {key: Named(given[key]) for key in ("input", "params", "wildcards")}
runpy.run_path(sys.argv[1], {"snakemake": SimpleNamespace(**given)}, "__main__")
"""
# In the page, before its own scripts: waiting, tasks of 50 ms and more, the time of the whole map since navigation.
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
  const [input, times] = [document.querySelector("#search"), []];
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
SCROLL = "async () => { for (let end = -1; end !== scrollY; ) { end = scrollY; scrollBy(0, 80); await frame(); } }"


def random_texts(count, rng):
    """So many different texts, of about 35 characters."""
    sizes = [len(words) for words in WORDS]
    rows = zip(*np.unravel_index(rng.permutation(np.prod(sizes))[:count], sizes))
    return [" ".join(words[number] for words, number in zip(WORDS, row)) for row in rows]


def draw_picture(path, rng):
    """A file of 128 pixels a side: smooth colours with texture; its thumbnail is about as large as a photograph's."""
    picture = 128
    for size, strength in ((4, 60), (16, 22), (64, 8)):
        noise = Image.fromarray(np.clip(rng.normal(128, strength, (size, size, 3)), 0, 255).astype(np.uint8))
        picture = picture + np.asarray(noise.resize((128, 128), Image.Resampling.BICUBIC), np.int16) - 128
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(path, quality=90)


def store_images(folder, options, rng):
    """Pictures, the seed's table of them, a shard of their activations, and the basis."""
    (folder / "images").mkdir()
    stream, count = ArrayStream(folder), options.pictures + FIT
    digests, classes = [f"{row:064x}" for row in range(count)], rng.integers(0, CLASSES, count)
    table = pd.DataFrame({"row": range(count), "image": [f"images/val_{row:08d}.jpg" for row in range(count)]})
    table = table.assign(label=classes, split="val", group="", role=np.where(table["row"] < FIT, "fit", "eval"))
    table["class"] = [f"{WORDS[1][n % 16]} {WORDS[2][n // 16 % 30]} {n // 480}" for n in classes]
    table = table.assign(image_sha256=digests, **{name: rng.choice(values, count) for name, values in FACTORS.items()})
    save_table(folder / "images.csv", table)
    for name in table["image"][FIT:]:
        draw_picture(folder / name, rng)
    for start in range(0, count, ROWS):
        rows = np.arange(start, min(start + ROWS, count))
        z = rng.standard_normal((len(rows), options.layers, options.heads, 64), np.float32).astype(np.float16)
        arrays = {"z": z, "row": rows, "picture_id": picture_ids(digests[start : start + ROWS])}
        arrays |= {"embedding": rng.standard_normal((len(rows), options.width), np.float32)}
        arrays |= {"scalars": np.ones((len(rows), 3), np.float32), "mlps": np.zeros((len(rows), 1, 1), np.float16)}
        stream.append(arrays)
    stream.save(folder / "shard.safetensors", {"sha256": "0" * 64})
    basis = 0.02 * rng.standard_normal((options.layers, options.heads, options.width, 67), np.float32)
    save_arrays(folder / "basis.safetensors", {"basis": basis}, {"sha256": "0" * 64})


def store_explanations(folder, units, options, rng):
    """Files of the methods components and textspan, and of the text pool."""
    count, texts, explanations = options.components, np.array(random_texts(options.texts, rng)), {}
    for unit in units:
        frame = np.linalg.qr(rng.normal(size=(options.width, count)))[0].T
        explanations[unit] = HeadExplanation(np.zeros(options.width), count, frame, np.arange(count), None, frame)
    save_explanations(folder / "components.safetensors", explanations, {})
    axes = {"unit": units, "component": range(count), "pole": ["top", "bottom"], "naming": ["says", "fires_on"]}
    names = pd.MultiIndex.from_product([*axes.values(), range(PLACES)], names=[*axes, "place"]).to_frame(False)
    names["layer"], names["head"] = zip(*names.pop("unit"))
    rows, below = len(names), (names["naming"] == "says") & (names["pole"] == "bottom")
    names["score"], names["projection"] = rng.uniform(0.1, 0.6, rows) * np.where(below, -1, 1), rng.normal(0, 0.3, rows)
    names["text"] = texts[(len(texts) * rng.random(rows) ** 2).astype(int)]  # some much more often than others
    names["named"] = np.repeat(rng.random(rows // PLACES) < 0.6, PLACES)
    names = names.assign(singular_value=1 / (1 + names["component"]), strength=1 / count, score_by_chance_95=0.42891)
    save_table(folder / "components.parquet", names)
    spans = names[["layer", "head", "component"]].drop_duplicates().rename(columns={"component": "place"})
    spans = spans.assign(text=rng.choice(texts, len(spans)), variance=rng.uniform(0, 30, len(spans)))
    save_table(folder / "textspan.parquet", spans)
    features = {"features": rng.standard_normal((len(texts), options.width), np.float32)}
    save_arrays(folder / "texts.safetensors", features, {"texts": texts.tolist()})


def with_intervals(table, rng, *columns):
    """The table with random columns and their intervals."""
    for column in columns:
        middle, half = rng.normal(0, 1, (2, len(table)))
        table = table.assign(
            **{column: middle, f"{column}_low": middle - abs(half), f"{column}_high": middle + abs(half)}
        )
    return table


def store_tables(folder, units, options, rng):
    """The tables of evaluation and of the whole study that the explorer reads."""
    heads = pd.DataFrame(units, columns=["layer", "head"])
    effects = with_intervals(heads[:-1].assign(kind="head"), rng, "norm", "margin_share", "accuracy_lost")
    save_table(folder / "effects.csv", effects)
    factors = heads.loc[heads.index.repeat(options.components)].reset_index(drop=True)
    rows, factors["component"] = len(factors), np.tile(range(options.components), len(units))
    factors["share"] = rng.uniform(0, 2 / options.components, rows)
    for name, values in FACTORS.items():
        columns = {f"high_{name}": rng.choice(values, rows), f"low_{name}": rng.choice(values, rows)}
        factors = factors.assign(**{f"eta2_{name}": rng.random(rows) ** 4}, **columns)
    factors["monosemanticity_top"], factors["monosemanticity_bottom"] = rng.uniform(0.2, 0.6, (2, rows))
    factors = factors.assign(monosemanticity_by_chance=0.21, similarity="embeddings")
    save_table(folder / "factors.csv", factors)
    clearest = factors[factors["layer"] >= 0].sample(CARDS, random_state=0)
    save_table(folder / "clearest.csv", clearest.assign(sureness=1.3, factor="light", eta2=0.8))
    stability = heads.assign(compared="halves of the images", which="seed 0", cosine=rng.random(len(heads)))
    save_table(folder / "stability.csv", stability.assign(same_text=100 * rng.random(len(heads))))
    recovery = pd.DataFrame({"method": np.repeat(METHODS, 9), "budget": np.tile(range(0, 90, 10), 2)})
    recovery = with_intervals(recovery, rng, "top1", "explained_variance").assign(draws=1, images=options.pictures)
    save_table(folder / "recovery.csv", recovery.assign(given="fit images, texts", layers="all", mlps="mean"))
    exactness = {**RUN, "shard": "shard-0-of-1", "images": options.pictures, "skipped": 0, "precision": "fp32"}
    exactness |= dict.fromkeys(["largest_sum_error", "largest_stored_sum_error", "largest_model_error"], 1e-7)
    exactness |= dict.fromkeys(["dtype", "sha256", "torch", "open_clip_torch"], "-")
    save_table(folder / "exactness.csv", pd.DataFrame([exactness]))
    save_table(folder / "skipped.csv", pd.DataFrame(columns=["model", "dataset", "seed", "image", "reason"]))
    save_table(folder / "loaded.csv", pd.DataFrame([{"model": "model", "architecture": "-"}]))


def store_study(folder, options):
    """All that the explorer's rules read."""
    heads = [(layer, head) for layer in range(options.layers) for head in range(options.heads)]
    units, rng = [*heads, (EMBEDDING, EMBEDDING)], np.random.default_rng(0)
    store_images(folder, options, rng)
    store_tables(folder, units, options, rng)
    store_explanations(folder, units, options, rng)


def jobs(folder, options):
    """{script: (inputs, parameters, output)} of the three rules, as Snakemake hands them over."""
    paths = {path.stem: str(path) for path in folder.glob("*.csv")} | {"texts": str(folder / "texts.safetensors")}
    run, pictures, page = (str(folder / name) for name in ("run", "thumbnails", "explorer"))
    explored = {name: str(folder / f"{name}.safetensors") for name in ("basis", "components")}
    explored["manifest"] = str(folder / "manifest.csv")
    explored |= {"shards": [str(folder / "shard.safetensors")], "all_images": [paths["images"]]}
    explored |= {"tables": [str(folder / f"{name}.parquet") for name in METHODS]}
    drawn = {"images": [paths["images"]], "manifest": explored["manifest"]}
    made = drawn | {"runs": [run], "pictures": [pictures], "texts": [paths["texts"]], "entries": []}
    common = {"protocol": "held_out", "code": "-", "naming": "says", "methods": METHODS, "factors": list(FACTORS)}
    common |= {"pictures": options.pictures, "own_maps": True}
    of_page = common | {"runs": [RUN], "missing": [], "entries": []}
    of_page |= {"images": [[RUN["dataset"], RUN["seed"]]], "pools": [RUN["texts"]]}
    return {
        "explore_components": (paths | explored, common, run),
        "draw_thumbnails": (paths | drawn, common, pictures),
        "make_explorer": (paths | made | {"page": [str(ROOT / "explorer" / "index.html")]}, of_page, page),
    }


def run_script(folder, name, inputs, params, output):
    """(wall seconds, CPU seconds, peak memory in MiB) of a rule's script in a process of its own."""
    shutil.rmtree(output, ignore_errors=True)
    given = {"input": inputs, "params": params, "wildcards": RUN | {"seed": str(RUN["seed"])}, "output": [output]}
    threads = 2 if name == "draw_thumbnails" else 1
    given |= {"log": [str(folder / f"{name}.log")], "threads": threads}
    command = [sys.executable, "-c", SCRIPT, str(ROOT / "scripts" / f"{name}.py"), json.dumps(given)]
    start, environment = time.perf_counter(), os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    environment |= dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], str(threads))
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{name} failed:\n{Path(given['log'][0]).read_text()}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**10


def row(what, measured, unit, promise=None, digits=0):
    """Print a row of the table; promise: the most that it may be."""
    kept = "" if promise is None else f"{'! ' if measured > promise else ''}{promise:g} {unit}"
    print(f"| {what} | {measured:,.{digits}f} {unit} | {kept} |", flush=True)


def build(folder, options):
    """Make the page, and print what it takes."""
    total, page = 0, folder / "explorer"
    for name, job in jobs(folder, options).items():
        wall, cpu, memory = run_script(folder, name, *job)
        total += wall
        print(f"| {name} | {wall:.1f} s, CPU {cpu:.1f} s, {memory:,.0f} MiB | |", flush=True)
    row("all three, wall time", total, "s", 60, digits=1)
    for what, pattern in (DISK | {"the folder": "**/*"}).items():
        size = sum(path.stat().st_size for path in page.glob(pattern) if path.is_file()) / 1e6
        row(f"disk: {what}", size, "MB", 60 if what == "the folder" else None, digits=2)


def first_view(browser, root, cells):
    """Open the page several times, and print what its first view takes; the last one's tab."""
    times, tasks = [], []
    for _ in range(REPEATS):
        page, files = browser.new_page(viewport={"width": 1280, "height": 800}), {}
        page.on("request", lambda request, files=files: files.setdefault(unquote(request.url)))
        page.add_init_script(INSIDE.replace("CELLS", str(cells)))
        page.goto((root / "index.html").as_uri())
        times.append(page.evaluate("first"))
        page.wait_for_load_state("networkidle")
        tasks.append(page.evaluate("longest()"))
    files = [Path(url.removeprefix("file://")) for url in files if url.startswith("file://")]
    sizes = {"pictures": 0, "data": 0, "page": 0}
    for path in files:
        own = path.relative_to(root).parts[0] in ("index.html", "style.css", "app", "vendor")
        sizes["pictures" if path.suffix == ".webp" else "page" if own else "data"] += path.stat().st_size / 1e3
    for kind, size in sizes.items():
        row(f"first view: {kind}", size, "kB")
    row(f"first view: all {len(files)} files", sum(sizes.values()), "kB", 250)
    row(f"first view: time, median of {REPEATS}", statistics.median(times), "ms", 1000)
    row(f"first view: time, worst of {REPEATS}", max(times), "ms", 1000)
    row(f"longest task: first view, worst of {REPEATS}", max(tasks), "ms", 100)
    return page


def browse(browser, root, options):
    """Print how fast the page opens and answers."""
    cells = options.layers * options.heads + 1
    page = first_view(browser, root, cells)
    numbers = np.random.default_rng(1).permutation(cells - 1)[:HEADS_OPENED].tolist()
    units = [f"{number // options.heads}.{number % options.heads}" for number in numbers]
    first, *others = [page.evaluate(OPEN_HEAD, unit) for unit in units]
    row("opening the first head, with the texts", first, "ms")
    row(f"opening a head, median of {len(others)}", statistics.median(others), "ms", 150)
    row(f"opening a head, worst of {len(others)}", max(others), "ms", 150)
    row("longest task: opening heads", page.evaluate("longest()"), "ms", 100)
    press = page.keyboard.press
    for what, address, focus, then in (
        ("search", "v=search", "#search", lambda: page.evaluate(TYPE, QUERY)),
        ("60 arrow keys on the map", "", ".cell", lambda: [press(key) for key in ARROWS]),
        ("60 times j on a head", f"v=head&h={units[-1]}", ".bars a", lambda: [press("j") for _ in range(60)]),
        ("scrolling a head", f"v=head&h={units[0]}", ".card a", lambda: page.evaluate(SCROLL)),
        ("scrolling the pictures", "v=picture", ".picture", lambda: page.evaluate(SCROLL)),
    ):
        page.evaluate("(hash) => { location.hash = hash; }", address)
        page.focus(focus)
        page.evaluate("longest()")
        result = then()
        if what == "search":
            row(f"search: a key of “{QUERY}”, worst", max(result), "ms", 100)
        row(f"longest task: {what}", page.evaluate("longest()"), "ms", 100)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size, help="d_embed" if name == "width" else None)
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
            # In a process of its own: what starts a script counts in the script's peak memory.
            storing = multiprocessing.Process(target=store_study, args=(folder, options))
            storing.start()
            storing.join()
            if storing.exitcode:
                sys.exit("The study could not be stored.")
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # of all processes that follow
        print("| what | measured | promise |\n|---|---|---|")
        build(folder, options)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            browse(browser, folder / "explorer", options)
            browser.close()


if __name__ == "__main__":
    main()
