"""Which names are right: names of all poles by every method, naming and control, before the judges."""

import json

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.arrays import load_arrays, load_table, save_table, split_names, with_source
from clipspectra.contributions.kept import open_stored
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.data.datasets import class_labels
from clipspectra.data.pairs import pair_halves
from clipspectra.evaluation.judges import PairedChanges, Removal
from clipspectra.evaluation.labels import Vocabulary, factor_vocabulary
from clipspectra.evaluation.names import Study, confounded, name_set
from clipspectra.evaluation.verdicts import judged_rows, recovered_rows, rows_over_seeds
from clipspectra.explanations.catalogue import GIVEN
from clipspectra.explanations.head import load_explanations
from clipspectra.explanations.naming import TextPool
from clipspectra.jobs import job, warn

OWN_COMPONENTS = ("components", "weights")  # the other methods name those of `components`


def load_pool(path, stored):
    """(TextPool, its texts) of a file of texts."""
    arrays, metadata = load_arrays(path, "features")
    return TextPool(arrays["features"], *stored.fit_moments(EMBEDDING)), json.loads(metadata["texts"])


def other_model(inputs, stored, protocol):
    """(embeddings of the same images, TextPool) of the other model; None if it has not all of the images."""
    other = open_stored(inputs, protocol, of="other_")
    embeddings = other.embeddings_of(stored.images["row"])
    return None if embeddings is None else (embeddings, load_pool(inputs.other_texts, other)[0])


def fit_choices(stored, embeddings, factors, rng):
    """({control: bool [image]} of the fit images that names come from, "" for all; the factors that one confounds)."""
    fit, images = stored.fit, stored.images
    choices, confusable = {"": fit}, ()
    if fit.sum() >= 4:
        half = rng.permutation(np.flatnonzero(fit))[::2]
        choices["half of the images"] = np.isin(np.arange(len(fit)), half)
    if of_confounded := confounded(images, embeddings, fit, factors, rng) if factors else None:
        inside, chance, confusable = of_confounded
        choices["images where one factor tells another"] = inside
        choices["as many images at random"] = chance
    return choices, confusable


def prepare(inputs, params, seed, log):
    """(Study, texts of its pool) of a job."""
    stored = open_stored(inputs, params.protocol)
    pool, texts = load_pool(inputs.texts, stored)
    embeddings = np.concatenate(list(stored.embeddings()))
    other = other_model(inputs, stored, params.protocol) if params.other else None
    vocabulary = first = second = None
    if params.factors:
        vocabulary = Vocabulary(factor_vocabulary(stored.images, params.factors), texts)
    if params.pairs:
        paired = stored.images[stored.paired]
        whole = paired[paired.groupby("pair")["pair"].transform("size") == 2]  # a skipped picture takes its pair along
        if whole.empty:
            raise InputError(
                "Every pair of images has a picture that could not be read, so names cannot be judged by pairs; see "
                "results/tables/skipped-images.csv, or set pairs: false."
            )
        if lost := paired["pair"].nunique() - len(whole) // 2:
            warn(log, f"Pairs of images that are left out, because a picture of theirs could not be read: {lost}.")
        numbers = pd.Series(stored.images.index, stored.images["row"])
        first, second = (half["row"].map(numbers).to_numpy() for half in pair_halves(whole))
    choices, confusable = fit_choices(stored, embeddings, list(params.factors), np.random.default_rng(seed))
    removal = Removal(embeddings[stored.scored], pool)
    judged_by = {"vocabulary": vocabulary, "first": first, "second": second, "removal": removal}
    return Study(stored, embeddings, pool, choices, other, confusable=confusable, **judged_by), texts


def sparse_tables(inputs, methods, texts):
    """{method: its table of texts, as numbers in the pool} of the methods that name others' components."""
    numbers = {text: number for number, text in enumerate(texts)}
    tables = {method: load_table(path) for method, path in zip(methods, inputs.tables) if method not in OWN_COMPONENTS}
    return {method: table.assign(text=table["text"].map(numbers)) for method, table in tables.items()}


if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        inputs, params, wildcards = snakemake.input, snakemake.params, snakemake.wildcards
        study, texts = prepare(inputs, params, int(wildcards.seed), log)
        stored, vocabulary, tables = study.stored, study.vocabulary, []
        log(f"factors of which one tells the other in a control: {', '.join(study.confusable) or 'none'}")
        for number, method in enumerate(params.methods):
            explanations = load_explanations(inputs.directions[number])
            explanations = {unit: value for unit, value in explanations.items() if unit[0] != EMBEDDING}
            if method in OWN_COMPONENTS:
                rng = np.random.default_rng(int(wildcards.seed))
                sums = sparse_tables(inputs, params.methods, texts) if method == "components" else {}
                names, truth, moves = name_set(study, explanations, method, sums, rng)
                paired = None
                if moves is not None:
                    halves = [stored.images.iloc[rows] for rows in (study.first, study.second)]
                    changed = np.array([vocabulary.factors.index(factor) for factor in halves[0]["changed"]])
                    paired = PairedChanges(moves, changed, *map(vocabulary.one_hot, halves), vocabulary)
                    log(f"{method}: {len(changed)} pairs")
                rows = judged_rows(names, truth, paired, vocabulary, study.confusable, rng)
                if "classes" in inputs.keys():
                    layers = stored.layers[-params.last_layers :]
                    classifier, labels = class_labels(inputs.classes, stored.images, wildcards.dataset)
                    rows += recovered_rows(names, explanations, stored, layers, classifier, labels)
                tables.append(pd.DataFrame(rows))
            if "seed_tables" in inputs.keys():
                other = load_explanations(inputs.seed_directions[number])
                of_seeds = load_table(inputs.tables[number]), load_table(inputs.seed_tables[number])
                tables.append(pd.DataFrame(rows_over_seeds(method, explanations, other, *of_seeds)))
        table = pd.concat(tables, ignore_index=True)
        if wildcards.model != params.model:
            table = table[table["control"] == ""].assign(control="shuffled weights")
        table.insert(1, "given", table["method"].map(GIVEN))
        source = {"model": params.model} | {key: wildcards[key] for key in ("dataset", "seed", "texts")}
        source |= {"split": split_names(stored.images[stored.scored]), "images": int(stored.scored.sum())}
        source["pairs"] = 0 if study.first is None else len(study.first)
        if stored.is_sample:  # the controls draw among the images that are kept
            source["names_from"] = np.where(table["control"].isin(["", "shuffled weights"]), "all fit images", "sample")
        save_table(snakemake.output[0], with_source(table, source))
