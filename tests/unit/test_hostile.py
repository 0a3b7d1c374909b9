"""Damaged files and hostile texts: never a traceback, a silent wrong number, a hang, a crash, or a write elsewhere."""

import csv
import json
import re
from collections import Counter
from itertools import pairwise

import damage
import damage_kinds
import numpy as np
import pandas as pd
import pytest
from browser_visit import read_part

from clipspectra import InputError, checked
from clipspectra.arrays import ArrayStream, load_arrays, load_table, save_arrays, save_latex, save_table
from clipspectra.checked import open_arrays
from clipspectra.data import pools, strict_yaml
from clipspectra.explorer.parts import write_part
from clipspectra.figures import drawing

HOSTILE = [
    *("<script>alert(1)</script>", "</script><!--", "'\"><img src=x onerror=alert(1)>", "&lt;", "#panic(1)"),
    *("$x^2$", "\\input{/etc/passwd}", "\\end{tabular}\\write18{id}", "100 % _a_ ^b^ ~c~ {d}", "*a* _b_ `c`", "@b <c>"),
    *("=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0", "\t=1", "$(touch escaped)", "; touch escaped", "`id`"),
    *("a\nb", "a\r\nb", "a,b", 'a"b', "\u202eright to left", "a\u200bb", "\u2028", "\x1b[2J", "\x07", "NA", "null"),
    *(
        "{0.__class__}",
        "%s%n",
        "../../etc/passwd",
        "a" * 3000,
        "ä\u0301" * 40,
        "🙂",
        "שלום",
        "' OR 1=1 --",
        "{{ 7*7 }}",
    ),
    *("007", "a|b", '#eval("1")', "${jndi:x}"),
]


def test_damaged_files(tmp_path):
    """A share of `make test-damage`, whose table is in docs/hostile.md."""
    results = damage.damage(tmp_path, list(damage_kinds.KINDS), 50)
    bad = [result for result in results if result["outcome"] not in damage.GOOD]
    assert not bad, "\n".join(f"{one['kind']} {one['number']}: {one['outcome']}\n{one['note']}" for one in bad[:5])
    assert set(Counter(result["kind"] for result in results).values()) == {50}
    refused = {result["note"] for result in results if result["outcome"] == "refused"}
    assert not [note for note in refused if len(note) > 1000 or "Traceback" in note]


def test_a_flipped_bit_is_noticed_where_it_is_read(tmp_path):
    """Of arrays larger than a piece: rows that are not read are not checked, and no more than once."""
    stream, path, rng = ArrayStream(tmp_path), tmp_path / "a.safetensors", np.random.default_rng(0)
    rows = rng.normal(size=(3000, 200))
    for start in range(0, 3000, 700):
        stream.append({"z": rows[start : start + 700], "row": np.arange(start, min(start + 700, 3000))})
    stream.save(path, {"about": ["ü", '"digests": "00"']})
    content = bytearray(path.read_bytes())
    assert len(content) > 4 * checked.PIECE
    assert load_arrays(path)[1] == {"about": '["\\u00fc", "\\"digests\\": \\"00\\""]'}
    assert np.array_equal(load_arrays(path, "z")[0]["z"], rows)
    content[-100_000] ^= 1
    path.write_bytes(content)
    with open_arrays(path) as file:
        assert np.array_equal(file.get_slice("z")[:500, 3], rows[:500, 3])
        assert file.get_slice("row")[2999] == 2999
        for read in (lambda: file.get_slice("z")[2900:], lambda: file.get_tensor("z")):
            with pytest.raises(InputError, match="a.safetensors is damaged, or of an older version; remove it"):
                read()


@pytest.mark.parametrize("suffix", ["safetensors", "parquet"])
def test_every_flipped_bit_of_a_small_file_is_noticed(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        save_table(path, pd.DataFrame({"text": ["a", "b"], "score": [0.5, 1.0]}))
    else:
        save_arrays(path, {"x": np.arange(3)}, {"model": "m"})
    content, read = path.read_bytes(), load_table if suffix == "parquet" else load_arrays
    read(path)
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        checked._CHECKED.clear()  # two writes within one tick of the clock look like one
        with pytest.raises(InputError, match="remove it, and run again"):
            read(path)


def test_hostile_texts_stay_texts_in_tables(tmp_path):
    """CSV and Parquet hold them as they are: tables are data, and docs/hostile.md tells of spreadsheets."""
    table = pd.DataFrame({"text": HOSTILE, "score": np.arange(len(HOSTILE)) / 4})
    for suffix in ("csv", "parquet"):
        save_table(tmp_path / f"t.{suffix}", table)
        assert load_table(tmp_path / f"t.{suffix}").equals(table)
    with open(tmp_path / "t.csv", newline="") as file:
        assert [row[0] for row in csv.reader(file)][1:] == HOSTILE


def test_hostile_texts_stay_texts_in_latex(tmp_path):
    save_latex(tmp_path / "t.tex", pd.DataFrame({"text": HOSTILE, "text_2": 1.0}))
    written = (tmp_path / "t.tex").read_text()
    body = written.split("\\midrule")[1].split("\\bottomrule")[0]
    assert len(re.findall(r"\\\\$", body, re.M)) == len(HOSTILE)  # rows
    commands = {"textbackslash", "textasciitilde", "textasciicircum", "space", "{", "}", "$", "%", "_", "&", "#", "\\"}
    assert set(re.findall(r"\\([a-z]+[0-9]*|.)", body)) <= commands
    assert all(character.isprintable() or character == "\n" for character in body)


def test_hostile_texts_stay_texts_in_the_explorers_files(tmp_path):
    write_part(tmp_path, "texts/hostile", {text: text for text in HOSTILE})
    assert read_part(tmp_path / "texts" / "hostile.js") == {text: text for text in HOSTILE}


def test_hostile_texts_stay_texts_in_figures(tmp_path):
    figure = drawing.new_figure(4, title=HOSTILE[5], footer=HOSTILE[0])
    for number, text in enumerate(HOSTILE):
        figure.text(0.1, number / len(HOSTILE), text)
    drawing.save(figure, *(tmp_path / f"a.{suffix}" for suffix in ("pdf", "png", "json")))
    json.loads((tmp_path / "a.json").read_text())


def test_hostile_texts_stay_texts_in_pools(tmp_path):
    (tmp_path / "pool.txt").write_text("\n".join(HOSTILE), encoding="utf-8", newline="")
    texts, _ = pools.read_pool(tmp_path / "pool.txt")
    assert {"=1+1", "007", "{0.__class__}", "../../etc/passwd"} <= set(texts)


def aliases(levels, each):
    """YAML whose last list stands for each ** levels others."""
    names = [f"a{number}" for number in range(levels + 1)]
    lines = [f"{name}: &{name} [{', '.join([f'*{before}'] * each)}]" for before, name in pairwise(names)]
    return "\n".join(["a0: &a0 x", *lines])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (aliases(6, 20), "stands for more than 1,000,000 values by its aliases"),
        ("a: " + "[" * 5000 + "]" * 5000, "its brackets are nested too deeply"),
        ("a: &a [*a]", "recursive"),
        ("a: " + "x" * 10_000_001, "has more than 10,000,000 bytes"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
    ],
)
def test_yaml_that_grows(tmp_path, content, sentence):
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(InputError, match=sentence):
        strict_yaml.load(tmp_path / "a.yaml")


def test_pools_that_grow(tmp_path):
    words = ", ".join(f"w{number}" for number in range(100))
    for template, sentence in (
        ("{a} {b} {c} {d}", "makes 100,000,000 texts"),
        ("{a:>9999999999}", "write {name} alone"),
    ):
        lists = "\n".join(f"  {name}: [{words}]" for name in "abcd")
        (tmp_path / "a.yaml").write_text(f'templates: ["{template}"]\nwords:\n{lists}\n')
        with pytest.raises(InputError, match=sentence):
            pools.generated_pool(tmp_path / "a.yaml")
    (tmp_path / "a.txt").write_text("a cat\n" + "x" * 10_001)
    with pytest.raises(InputError, match="has a text of 10,001 characters, 'xxx"):
        pools.read_pool(tmp_path / "a.txt")
