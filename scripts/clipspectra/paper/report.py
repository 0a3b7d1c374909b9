"""Snakemake's report, completed: with a first page of what was run and found, and captions that name each other.

Snakemake's own way to a first page, --report-metadata, shows texts as docutils' pseudo-XML, between encodings and
versions (9.27), and takes some for code; so what stands in that place is written here, all texts of users escaped.
"""

import html
import json
import re
import zipfile
from collections import defaultdict
from urllib.parse import quote

from clipspectra import InputError
from clipspectra.arrays import atomic_write

PAGE = "report/report.html"
# The page's data: each is one line of JSON in a script element.
DATA = re.compile(r"^    var (\w+) = (.*);$", re.M)
VIEWS = {"image/png": "img", "text/html": "html", "application/pdf": "pdf"}  # what the page shows; others it downloads


def read_data(page):
    """{name: value} of the page's data."""
    data = {}
    for name, value in DATA.findall(page):
        try:
            data[name] = json.loads(value)
        except ValueError:
            continue  # a line of a library
    if not {"results", "categories", "metadata"} <= set(data):
        raise InputError(
            "This Snakemake writes its report in another form than clipspectra knows; take the version of "
            "envs/requirements.txt."
        )
    return data


def write_data(page, data):
    """The page with these data, in which no text of a user can end the script element: Snakemake does not mask them."""

    def line(match):
        name = match[1]
        return f"    var {name} = {json.dumps(data[name])};".replace("<", "\\u003c") if name in data else match[0]

    return DATA.sub(line, page)


def text(value):
    """A value as text in HTML."""
    return html.escape(str(value))


def link(view, words):
    """A link that changes what the page shows, as its own buttons do."""
    call = quote(f"app.setView({json.dumps(view)})", safe="")
    return f'<a href="javascript:{call}">{text(words)}</a>'


def result_link(path, result, words):
    """A link to a result: its caption, and the result itself where the page can show it."""
    view = {"navbarMode": "resultinfo", "resultPath": path}
    if result["mime_type"] in VIEWS:
        view |= {"content": VIEWS[result["mime_type"]], "contentPath": result["data_uri"]}
    return link(view, words)


def category_link(category, categories):
    """A link to a category, as its folder in the menu is; its name without the number."""
    view = {"navbarMode": "category", "category": category}
    if len(categories[category]) == 1:
        view |= {"navbarMode": "subcategory", "subcategory": next(iter(categories[category]))}
    return link(view, re.sub(r"^\d+ ", "", category))


def wildcards(result):
    """{name: value} of a result's wildcards; no name or value of the config has a comma or an equals sign."""
    listed = result["job_properties"]["wildcards"]
    return dict(pair.split("=", 1) for pair in listed.split(", ")) if listed else {}


def related(path, results, groups):
    """{rule: {path: wildcards}} of the results that belong with one of them, in the groups' order."""
    own = results[path]
    rule, values = own["job_properties"]["rule"], wildcards(own)
    rules = dict.fromkeys(name for group in groups if rule in group for name in group if name != rule)
    by_rule = defaultdict(dict)
    for name in rules:
        for other, result in results.items():
            others = wildcards(result)
            agree = all(values.get(key, value) == value for key, value in others.items())
            if result["job_properties"]["rule"] == name and agree:
                by_rule[name][other] = others
    return by_rule


def differences(named):
    """{path: the values of those wildcards that are not the same for all, in words}."""
    keys = [key for key in next(iter(named.values())) if len({values[key] for values in named.values()}) > 1]
    return {path: ", ".join(values[key] for key in keys) for path, values in named.items()}


def title(result):
    """The first of a result's labels, which says what it is; of a table with this word."""
    kind, words = next(iter(result["labels"].items()))
    return f"{words} (table)" if kind == "table" else words


def see_also(path, results, groups):
    """HTML of the links to the results that belong with a result; empty if there are none."""
    items = []
    for named in related(path, results, groups).values():
        if len(named) == 1:
            items += [result_link(other, results[other], title(results[other])) for other in named]
        else:
            links = (result_link(other, results[other], words) for other, words in differences(named).items())
            items.append(f"{text(title(results[next(iter(named))]))}: {' · '.join(links)}")
    return f"<p>See also</p><ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>" if items else ""


def table(header, rows):
    """An HTML table of values, as text."""
    head = "".join(f"<th>{text(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{text(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def findings(study, folders, categories):
    """An HTML list of the findings, each with a link to its chapter."""
    items = []
    for finding in study["findings"]:
        folder = folders.get(finding["chapter"])
        chapter = category_link(folder, categories) if folder in categories else text(finding["chapter"])
        items.append(f"<li>{chapter}: {text(finding['sentence'])}</li>")
    return f"<ol>{''.join(items)}</ol>" if items else ""


def images(dataset, sample):
    """How many images of a dataset have each role, and from which split, in words; sample: see what_was_run."""
    parts = []
    for role, about in dataset["roles"].items():
        kept, split = kept_images(dataset, role, sample), f" (split {about['split']})" if about["split"] else ""
        parts.append(f"{role}: {f'{kept} of ' if kept < about['images'] else ''}{about['images']}{split}")
    return ", ".join(parts)


def kept_images(dataset, role, sample):
    """How many images of a role are kept whole; of a dataset that is not explained, segmentation uses all."""
    count = dataset["roles"][role]["images"]
    if sample is None or "fit" not in dataset["roles"]:
        return count
    return min(count, sample - sample % 2 if role == "pair" else sample)


def what_was_run(study):
    """HTML of the models, datasets, texts, seeds and version of a study.

    Its sample: most images of a role that are kept whole, where of all others only moments are; else None.
    """
    keys = ["name", "architecture", "pretrained", "layers", "heads"]
    models = [[model.get(key, "") for key in keys] for model in study["models"]]
    datasets = [
        [dataset["name"], dataset.get("classes", ""), images(dataset, study["sample"])] for dataset in study["datasets"]
    ]
    seeds = ", ".join(map(str, study["seeds"]))
    commit = f", commit {study['commit']}" if study["commit"] else ""
    kept = ""
    if any(
        kept_images(dataset, role, study["sample"]) < about["images"]
        for dataset in study["datasets"]
        for role, about in dataset["roles"].items()
    ):
        fitted = "fit and eval" if study["protocol"] == "same" else "fit"
        kept = " Cards, scores (but of segmentation), pictures and neighbours are of a sample, "
        kept += f"means and components of all {fitted} images."
    return (
        table(["model", "architecture", "weights", "layers", "heads per layer"], models)
        + table(["dataset", "classes", "images"], datasets)
        + table(["texts", "number"], [[pool["name"], pool["count"]] for pool in study["texts"]])
        + f"<p>Seeds: {text(seeds)}. Protocol: {text(study['protocol'])}.{text(kept)} "
        + f"Made by clipspectra {text(study['version'])}{text(commit)}.</p>"
    )


FIRST = {
    "results/paper.pdf": "the paper, which tells it in order",
    "results/explorer/index.html": "the explorer, to look around in",
}


def how_to_read(results):
    """HTML of how to find one's way, with links to the paper and the explorer where they are there."""
    opened = [result_link(path, results[path], words) for path, words in FIRST.items() if path in results]
    sentences = [
        *([f"Read first: {'; '.join(opened)}."] if opened else []),
        "The folders on the left are the chapters. The eye opens a figure or saves a table; the i says what it shows, "
        "and what belongs with it.",
        "Where the figures of a folder differ in one thing, such as the model, a switch above them changes it.",
        "Components and means come from the fit images, every score from the eval images. A figure of one seed is of "
        "the first; tables are over all seeds.",
        "Workflow shows how the results were made, and Statistics how long it took.",
    ]
    return f"<ul>{''.join(f'<li>{sentence}</li>' for sentence in sentences)}</ul>"


def first_page(study, data, folders):
    """{heading: HTML} of the report's first page."""
    parts = {
        "Main findings": findings(study, folders, data["categories"]),
        "What was run": what_was_run(study),
        "How to read this report": how_to_read(data["results"]),
    }
    shown = {heading: part for heading, part in parts.items() if part}
    return {heading: f'<div class="page prose prose-sm max-w-lg">{part}</div>' for heading, part in shown.items()}


def completed_page(page, study, folders, groups, places):
    """The report's page, completed: a first page, and captions that name each other.

    study: the description of the study; folders: {chapter: its category}; groups: rules whose results belong together
    places: folders of this machine that paths begin with, which are left out
    """
    for place in places:
        page = page.replace(json.dumps(f"{place}/")[1:-1], "")
    data = read_data(page)
    results = data["results"]
    data["metadata"] = first_page(study, data, folders)
    for path, result in results.items():
        result["caption"] += see_also(path, results, groups)
    page = page.replace("<title>Snakemake Report</title>", "<title>clipspectra</title>")
    return write_data(page, data)


def complete_report(bare, target, complete):
    """Copy a report's zip file with its page completed; a half-made copy never takes the target's place."""
    with atomic_write(target) as part, zipfile.ZipFile(bare) as report, zipfile.ZipFile(part, "w") as copy:
        for entry in report.infolist():
            content = report.read(entry)
            copy.writestr(entry, complete(content.decode()).encode() if entry.filename == PAGE else content)
