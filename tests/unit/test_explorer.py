"""The parts of the explorer's page, against brute force, and the page's own files."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from browser_visit import part_of
from PIL import Image
from towers_small import pictures, small

from clipspectra import InputError
from clipspectra.arrays import load_table, save_table
from clipspectra.contributions import contributions
from clipspectra.evaluation.accuracy import eta_squared, extreme_values
from clipspectra.explorer import overview
from clipspectra.explorer.entries import edited_unit
from clipspectra.explorer.gathering import above_chance, own_classes
from clipspectra.explorer.heads import matches, scores_part
from clipspectra.explorer.maps import save_strip, signed_layer
from clipspectra.explorer.parts import VERSION, require_columns, rounded, write_part
from clipspectra.explorer.pictures import (
    SIDE,
    Strongest,
    common_folder,
    neighbours,
    picture_list,
    save_sheets,
    short_name,
    shown_pictures,
)
from clipspectra.segmentation.maps import component_maps
from clipspectra.towers.families import adapt

PAGE = Path(__file__).parents[2] / "explorer"


def test_a_part_is_one_call_whatever_it_holds(tmp_path):
    value = {
        "text": "</script>\u2028\"'\\ é 🦆",
        "numbers": rounded([1 / 3, 1e-7, 12345.6, 2.0, np.nan, np.inf]),
        "array": np.array([1, 2]),
        "bytes": "lost\udcff",  # a name of a file that is no UTF-8
    }
    write_part(tmp_path, "runs/a b/é/1", value)
    key, read = part_of(tmp_path / "runs" / "a b" / "é" / "1.js")
    assert key == "runs/a b/é/1"
    assert read["text"] == value["text"]
    assert read["numbers"] == [0.333, 1e-7, 12300, 2, None, None]
    assert read["array"] == [1, 2]
    assert read["bytes"] == "lost?"
    with pytest.raises(ValueError, match="JSON compliant"):
        write_part(tmp_path, "nan", [float("nan")])


def test_the_units_of_every_kind_of_edit_are_shown(tmp_path):
    """As tables hold them: of MLPs alone, of all heads of a layer, of components after both."""
    rows = [{"do": "remove", "chosen": "yes", "mlps": "all"}]
    every = [*rows, {"do": "remove", "chosen": "yes", "layer": 1, "head": "all"}]
    every.append({"do": "invert", "chosen": "no", "layer": 2, "head": 3, "component": 4})
    for table, expected in (
        (rows, [("", "all MLPs")]),
        (every, [("", "all MLPs"), ("", "layer 1, all heads"), ("2.3", None)]),
    ):
        save_table(tmp_path / "units.csv", pd.DataFrame(table))
        units = load_table(tmp_path / "units.csv", ["layer", "head", "component"]).to_dict("records")
        assert [(unit["unit"], unit.get("words")) for unit in map(edited_unit, units)] == expected


def test_the_pictures_of_a_component_are_those_of_its_scores():
    scores = np.random.default_rng(0).normal(size=(60, 3))
    shown = np.arange(0, 60, 2)
    part, ranks = scores_part(scores, shown)
    for component in range(3):
        own = scores[shown, component]
        order = np.argsort(-own)
        top, top_scores = part["top"][component]
        bottom, _ = part["bottom"][component]
        assert list(top) == [row for row in order if own[row] > 0][:12]
        assert list(bottom) == [row for row in order[::-1] if own[row] < 0][:12]
        assert top_scores == rounded(own[top])
        deciles = own[part["deciles"][component]]
        assert deciles == pytest.approx(np.quantile(own, np.arange(1, 10) / 10), abs=0.5)
        assert (np.diff(deciles) > 0).all()  # the lowest first
        low, high = scores[:, component].min(), scores[:, component].max()
        expected, _ = np.histogram(scores[:, component], bins=24, range=(low, high))
        assert list(part["histogram"][component]) == list(expected)
        assert ranks[:, component] == pytest.approx([100 * (own < score).sum() / 29 for score in own])


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (5, 0)])
def test_few_pictures_and_no_component(shape):
    part, ranks = scores_part(np.ones(shape), np.arange(shape[0]))
    assert len(part["top"]) == len(part["deciles"]) == len(part["histogram"]) == shape[1]
    assert ranks.shape == shape
    assert matches(np.ones((shape[1], 4)), []) == {"component": [], "cosine": []}


def test_the_strongest_components_of_each_picture_are_kept_while_heads_stream_by():
    rng = np.random.default_rng(1)
    heads = [rng.normal(size=(7, count)) for count in (3, 1, 20, 5)]
    strongest = Strongest(7, count=4)
    for unit, scores in enumerate(heads):
        strongest.add(unit, scores, np.full(scores.shape, 50.0))
    for picture, rows in enumerate(strongest.rows({(2, 3, "top"): 9})):
        every = [(abs(s), unit, c, s) for unit, head in enumerate(heads) for c, s in enumerate(head[picture])]
        expected = sorted(every, reverse=True)[:4]
        assert [row[:2] for row in rows] == [[unit, component] for _, unit, component, _ in expected]
        assert [row[2] for row in rows] == [rounded(score) for *_, score in expected]
        assert all((row[4] == 9) == (row[:2] == [2, 3] and row[2] >= 0) for row in rows)


def test_neighbours_leave_the_picture_itself_out():
    embeddings = np.random.default_rng(2).normal(size=(9, 5))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    numbers = np.arange(9) + 100
    cosines = embeddings @ embeddings.T - 9 * np.eye(9)
    for row, nearest in zip(cosines, neighbours(embeddings, embeddings, numbers, same=True, count=3)):
        assert [number - 100 for number, _ in nearest] == list(np.argsort(-row)[:3])
    assert neighbours(embeddings[:1], embeddings, numbers, same=False, count=1) == [[[100, 1]]]


def test_every_text_is_found_at_its_poles_and_nowhere_else():
    units = overview.units_of(range(2, 4), 2)
    assert units[-1] == (-1, -1)
    rng = np.random.default_rng(3)
    rows = [
        {"layer": layer, "head": head, "component": c, "pole": pole, "naming": naming, "place": place, "text": text}
        for layer, head in units
        for c in range(3)
        for pole in ("top", "bottom")
        for naming in ("says", "fires_on")
        for place, text in enumerate(rng.choice(40, 2, replace=False))
    ]
    table = pd.DataFrame(rows)
    width, codes = overview.text_index(table, units, 50)
    size, parts = overview.search_parts(codes)
    for text in range(50):
        expected = {
            (units.index((r["layer"], r["head"])), r["component"], r["pole"] == "bottom", r["naming"] == "fires_on")
            for r in rows
            if r["text"] == text
        }
        of_text = parts[text // size][text % size]
        found = {(c // 4 // width, c // 4 % width, bool(c >> 1 & 1), bool(c & 1)) for c in of_text}
        assert found == expected
        assert len(of_text) == len(expected)


def test_pictures_are_spread_over_all_and_each_counts_once():
    seeds = [
        pd.DataFrame({"row": rows, "role": roles, "image": [f"{row}.png" for row in rows]})
        for rows, roles in (
            ([0, 1, 2, 3], ["fit", "eval", "eval", "eval"]),
            ([2, 3, 5, 9], ["eval", "fit", "eval", "pair"]),
        )
    ]
    assert list(shown_pictures(seeds, "held_out", 100)[0]["row"]) == [1, 2, 3, 5]
    few, total = shown_pictures(seeds, "held_out", 2)
    assert (list(few["row"]), total) == ([1, 3], 4)
    assert list(shown_pictures(seeds, "same", 100)[0]["row"]) == [0, 1, 2, 3, 5]


def test_sheets_hold_each_picture_in_its_place(tmp_path):
    colours = [(n, 255 - n, n // 2) for n in range(0, 250, 2)]  # 125, on two sheets
    for number, colour in enumerate(colours):
        Image.new("RGB", (40, 20), colour).save(tmp_path / f"{number}.png")
    (tmp_path / "7.png").write_bytes(b"broken")
    readable = save_sheets(tmp_path / "sheets", [tmp_path / f"{number}.png" for number in range(125)], threads=2)
    first, second = (Image.open(tmp_path / "sheets" / f"sheet-{number}.webp") for number in range(2))
    assert first.size == (10 * SIDE, 10 * SIDE)
    assert second.size == (10 * SIDE, 3 * SIDE)
    assert list(np.flatnonzero(~readable)) == [7]
    for number in (0, 19, 99, 100, 124):
        sheet, place = (first, number) if number < 100 else (second, number - 100)
        centre = SIDE * (place % 10) + SIDE // 2, SIDE * (place // 10) + SIDE // 2
        assert sheet.getpixel(centre) == pytest.approx(colours[number], abs=6)  # WebP is lossy
    table = pd.DataFrame({"image": ["a", "b"], "class": ["", ""], "group": ["x", ""], "wing": ["red", "007"]})
    listed = picture_list(table, ["wing"], np.array([True, False]), 9, sheets="s", common="")
    assert list(listed["factors"]) == ["group", "wing"]
    assert listed["factors"]["wing"]["values"][listed["factors"]["wing"]["codes"][1]] == "007"
    assert list(listed["unreadable"]) == [1]


def test_names_leave_the_folder_of_this_machine_out():
    seeds = [pd.DataFrame({"image": [f"/home/me/p/{name}" for name in names]}) for names in (["a/1.png"], ["b/2.png"])]
    assert common_folder(seeds) == "/home/me/p"
    assert short_name("/home/me/p/a/1.png", "/home/me/p") == "a/1.png"
    relative = [pd.DataFrame({"image": ["images/1.png", "/elsewhere/2.png"]})]
    assert common_folder(relative) == ""
    assert short_name("images/1.png", "") == "images/1.png"


@pytest.mark.parametrize("family", ["ViT", "CoCa", "SigLIP", "EVA02, norms last", "timm, average", "ResNet"])
def test_maps_add_up_to_the_components_scores(family):
    """The map of a component is the projection of each patch's contribution, less the constants, equal for all."""
    model = small(family)
    images, tower = pictures(model, 2), adapt(model.visual)
    last = len(tower.layers) - 1
    by_token = contributions(model, images, per_token=True).heads  # [image, layer, pos, head, d_embed]
    components = torch.linalg.qr(torch.randn(by_token.shape[-1], 2, dtype=torch.float64))[0].T
    maps = component_maps(model, images, {(last, 1): components}, tower=tower)[last, 1]
    expected = torch.as_tensor(by_token)[:, last, tower.prefix :, 1] @ components.T  # [image, patch, component]
    difference = expected.transpose(1, 2) - maps
    assert (difference - difference[..., :1]).abs().max() < 1e-12
    layer = np.asarray(signed_layer(maps[0, 0].unflatten(-1, tower.grid).numpy()))
    assert layer[..., 3].max() > 100


def test_a_strip_has_the_picture_first(tmp_path):
    picture = np.zeros((8, 8, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    save_strip(tmp_path / "strip.webp", picture, [signed_layer(np.eye(4))])
    strip = Image.open(tmp_path / "strip.webp").convert("RGBA")
    assert strip.width == 2 * strip.height
    assert strip.getpixel((strip.height // 2, strip.height // 2))[0] > 240


def test_classes_are_a_factor_unless_they_are_one_already():
    images = pd.DataFrame({"class": ["a", "b", "a"], "digit": ["1", "2", "1"], "size": ["s", "s", "l"]})
    assert own_classes(images, ["digit", "size"]) is None
    assert list(own_classes(images, ["size"])) == ["a", "b", "a"]
    assert own_classes(images.assign(**{"class": "a"}), []) is None


def test_many_classes_explain_nothing_of_random_scores():
    rng = np.random.default_rng(5)
    scores, classes = rng.normal(size=(2000, 40)), rng.integers(0, 400, 2000)
    eta2 = eta_squared(scores, classes)
    assert eta2.mean() > 0.15
    assert above_chance(eta2, 2000, 400).mean() < 0.02
    assert above_chance(np.array([1.0]), 2000, 400) == 1
    assert above_chance(np.array([0.9]), 5, 5) == 0


def test_factors_by_group_means_are_those_by_brute_force():
    rng = np.random.default_rng(4)
    scores, values = rng.normal(size=(50, 3)), rng.choice(["x", "y", "z"], 50)
    means = {name: scores[values == name].mean(0) for name in "xyz"}
    between = sum((values == name).sum() * (means[name] - scores.mean(0)) ** 2 for name in "xyz")
    assert eta_squared(scores, values) == pytest.approx(between / ((scores - scores.mean(0)) ** 2).sum(0))
    high, low = extreme_values(scores, values)
    assert list(high) == [max("xyz", key=lambda name: means[name][c]) for c in range(3)]
    assert list(low) == [min("xyz", key=lambda name: means[name][c]) for c in range(3)]


def test_a_table_of_an_older_version_is_named():
    with pytest.raises(InputError, match="results/old.csv was written by an older version .*column naming; remove it"):
        require_columns(pd.DataFrame({"text": []}), ["text", "naming"], "results/old.csv")


def test_the_page_reads_the_version_that_is_written():
    assert re.search(r"const VERSION = (\d+)", (PAGE / "app" / "data.js").read_text())[1] == str(VERSION)


def test_the_page_loads_every_file_of_its_own_and_no_other():
    html = (PAGE / "index.html").read_text()
    loaded = re.findall(r'(?:src|href)="([^"]+)"', html)
    own = {f"app/{path.name}" for path in (PAGE / "app").glob("*.js")}
    assert {path for path in loaded if path.startswith("app/")} == own
    assert set(loaded) - own == {"data:,", "style.css", "vendor/ui.js"}


def test_vendored_files_are_what_was_built_and_name_no_host():
    sums = dict(reversed(line.split()) for line in (PAGE / "vendor" / "SHA256SUMS").read_text().splitlines())
    assert set(sums) == {"ui.js", "plot.js"}
    for name, digest in sums.items():
        content = (PAGE / "vendor" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        hosts = set(re.findall(rb"https?://[\w.-]+", content))
        assert hosts <= {b"http://www.w3.org"}  # namespaces of XML
    lock = (PAGE / "package-lock.json").read_text()
    assert "://" not in lock
    pinned = json.loads((PAGE / "package.json").read_text())["devDependencies"]
    licences = (PAGE / "vendor" / "LICENSES.txt").read_text()
    assert all(f"{name} {version}" in licences for name, version in pinned.items() if name != "esbuild")
