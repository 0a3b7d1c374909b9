"""The results of a run of the workflow, opened by the names of a model and a dataset."""

import json
import warnings
from functools import cached_property
from pathlib import Path

import numpy as np

from clipspectra import InputError
from clipspectra.arrays import load_arrays, load_metadata, load_table
from clipspectra.concepts.carriers import component_table, concept_carriers, units_of
from clipspectra.concepts.neighbours import component_ends, name_table, picture_neighbours, picture_row, select_view
from clipspectra.concepts.outcomes import group_changes, matched_units
from clipspectra.concepts.retrieval import (
    Components,
    View,
    best_texts,
    centred_queries,
    images_along,
    trace,
    trace_table,
)
from clipspectra.contributions.kept import open_stored
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.data.datasets import class_indices
from clipspectra.data.pictures import open_rgb
from clipspectra.data.tars import is_file
from clipspectra.explanations.head import load_explanations

__all__ = ["Results"]

warnings.filterwarnings("ignore", message="IProgress not found")  # of a package that the hub's client brings

CLONE = Path(__file__).parents[2]  # whose config/demo holds the demo's files; an installed package has none


class Results:
    """What the latest run of the workflow left for one model on one dataset. Each part is read when it is first used.

    model, dataset: names of the config; seed, texts: a seed and a text pool of the config, by default the first
    folder: of the results; by default `results` here, or else one folder up, where notebooks/ has it

    images: table of the scored images; stored: StoredActivations; explanations: {(layer, head): HeadExplanation}
    components: Components of all heads; names: table of their names, by layer, head and component
    scores: table of the components' variance, and of the share of it that each of `factors` explains
    pool: the texts of the pool, and pool_features: their embeddings [text, d_embed]
    classes: names of the classes; classifier: [d_embed, class]; labels: index of the class of each stored image
    loaded: the LoadedModel, with the weights that the results were computed with
    Raises InputError for names that the run did not have, and for what it did not make.
    """

    def __init__(self, model, dataset, *, seed=None, texts=None, folder=None):
        self.folder = Path(folder or ("results" if Path("results").is_dir() else "../results"))
        self.config = json.loads(self._made("config.json").read_text(encoding="utf-8"))
        self.model, self.dataset = model, dataset
        self.seed = self.config["seeds"][0] if seed is None else seed
        self.texts = self.config["texts"][0] if texts is None else texts
        for key, name in {"models": model, "datasets": dataset, "seeds": self.seed, "texts": self.texts}.items():
            if name not in self.config[key]:
                known = ", ".join(map(str, self.config[key]))
                raise InputError(f"The latest run had no {name!r} among its {key}; it had {known}.")

    def __repr__(self):
        return f"Results of {self.title}, texts {self.texts}, in {self.folder}"

    @property
    def title(self):
        """The model, dataset and seed in words, for the small print of figures."""
        return f"{self.model} on {self.dataset}, seed {self.seed}"

    # --- Files

    def path(self, pattern):
        """A result's path; pattern: below the folder of results, with {model}, {dataset}, {seed} and {texts}."""
        return self._made(pattern.format(model=self.model, dataset=self.dataset, seed=self.seed, texts=self.texts))

    def _made(self, name):
        path = self.folder / name
        if not path.exists():
            raise InputError(f"{path} is not there; make it first: snakemake --cores all results/{name}")
        return path

    def tables(self):
        """The names of the tables."""
        return sorted(path.stem for path in (self.folder / "tables").glob("*.csv"))

    def table(self, name):
        """The rows about this model and dataset of a table of results/tables."""
        table = load_table(self._made(f"tables/{name}.csv"))
        for column in ("model", "dataset"):
            if column in table:
                table = table[table[column] == getattr(self, column)].drop(columns=column)
        return table.reset_index(drop=True)

    def picture_path(self, name):
        """Path of a picture: an image of the dataset as its manifest names it, or a file of one's own."""
        places = self.folder / "data" / self.dataset, Path(), self.folder.parent, CLONE
        paths = [place / name for place in places if is_file(place / name)]
        if not paths:
            raise InputError(f"The picture {name} is not there, and {self.dataset} has no image of that name.")
        return paths[0]

    def pictures(self, names):
        """The pictures of these names, in a list."""
        return [open_rgb(self.picture_path(name)) for name in names]

    # --- What was stored

    @cached_property
    def stored(self):
        shards = range(self.config["shards"])
        folder, keeps_moments = "activations/{model}/{dataset}/", self.config.get("keep") == "moments"
        kept, table = ("sample", "sample") if keeps_moments else ("shard", "images")
        files = {
            "shards": [self.path(f"{folder}{kept}-{shard}-of-{len(shards)}.safetensors") for shard in shards],
            "basis": self.path("activations/{model}/basis.safetensors"),
            "images": self.path("data/{dataset}/seed-{seed}/" + f"{table}.csv"),
        }
        if keeps_moments:
            files["moments"] = self.path(folder + "seed-{seed}-moments.safetensors")
        return open_stored(files, self.config["protocol"])

    @property
    def images(self):
        return self.stored.images[self.stored.scored]

    @cached_property
    def explanations(self):
        return load_explanations(self._explained("components.safetensors"))

    @cached_property
    def components(self):
        return Components.load(self._explained("components.safetensors"))

    @cached_property
    def names(self):
        return best_texts(self._explained("components.parquet"), self.config["naming"])

    def _explained(self, name):
        return self.path("explanations/{model}/{dataset}/seed-{seed}/{texts}/" + name)

    @cached_property
    def scores(self):
        return load_table(self.path("evaluation/{model}/{dataset}/seed-{seed}/{texts}/factors.csv"))

    @property
    def factors(self):
        return [name.removeprefix("eta2_") for name in self.scores if name.startswith("eta2_")]

    @cached_property
    def pool(self):
        return json.loads(load_metadata(self._pool_path)["texts"])

    @cached_property
    def pool_features(self):
        return load_arrays(self._pool_path, "features")[0]["features"].astype(np.float64)

    @property
    def _pool_path(self):
        return self.path("text/{model}/{texts}.safetensors")

    @cached_property
    def classes(self):
        return json.loads(load_metadata(self._classes_path)["values"])["class"]

    @cached_property
    def classifier(self):
        return load_arrays(self._classes_path, "class")[0]["class"].astype(np.float64)

    @property
    def _classes_path(self):
        return self.path("text/{model}/classes-{dataset}.safetensors")

    @property
    def labels(self):
        return class_indices(self.stored.images, "class", self.classes, self.dataset)

    @cached_property
    def loaded(self):
        from clipspectra.towers import load
        from clipspectra.towers.model_files import weights_in

        arguments = self.config["models"][self.model] | {key: self.config[key] for key in ("cache", "device")}
        arguments |= {key: self._located(arguments[key]) for key in ("architecture", "pretrained")}
        if arguments["pretrained"] and Path(arguments["pretrained"]).is_dir():
            arguments["pretrained"] = str(weights_in(arguments["pretrained"]))
        return load(**arguments | {"sha256": self.stored.sha256 or None})

    def _located(self, name):
        """A file or folder that the config names, where the workflow finds it; names of open_clip stay as they are."""
        places = [root / Path(name or "").expanduser() for root in (self.folder.parent, CLONE)]
        return next((str(path) for path in places if name and path.exists()), name)

    # --- Questions

    def embed(self, texts):
        """Embeddings of texts of one's own, [text, d_embed]. Warns of words that the model has never learnt."""
        from clipspectra.data.texts import embed_texts

        self._warn_of_words(texts)
        return embed_texts(self.loaded, texts, bar=False).numpy()

    def _warn_of_words(self, texts):
        from clipspectra.data.texts import too_long, unknown_words

        for text in too_long(self.loaded, texts):
            warnings.warn(f"'{text[:60]} …' is longer than the model's context; its end is cut off.", stacklevel=3)
        if unknown := unknown_words(self.loaded, texts):
            words = ", ".join(map(repr, unknown))
            warnings.warn(
                f"The model has never learnt {words}; texts with these words mean little to it.", stacklevel=3
            )

    def trace(self, text):
        """What carries a text: (table of components as results/queries has it, table of the images along their sum)."""
        mean = self.explanations[EMBEDDING, EMBEDDING].mean
        query = centred_queries({"features": self.embed([text])}, self.pool_features, mean)[0]
        traced = trace(query, self.components, rng=np.random.default_rng(self.seed))
        components = self.components.select(traced.order)
        view = View(self.stored, EMBEDDING, EMBEDDING, mean)
        images = images_along(view, traced.score @ components.directions).rename(columns={"image": "name"})
        return trace_table(traced, components, self.names), images.assign(kind="image")

    def neighbours(self, picture, layer=None, head=None, component=None, *, count=8):
        """The images and texts nearest to a picture, by the whole embedding, a head or a component: a table.

        picture: as in `picture_path`; count: of images and of texts
        """
        from clipspectra.contributions.extraction import extract_picture

        view, direction = select_view(self.stored, self.explanations, layer, head, component)
        path = self.picture_path(picture)
        row = picture_row(view, extract_picture(self.loaded, path))
        itself = np.array([self.picture_path(name).resolve() == path.resolve() for name in self.images["image"]])
        options = {"name": str(picture), "itself": itself, "count": count}
        return picture_neighbours(view, direction, row, *self._images_and_texts(), **options)

    def ends(self, layer, head, component, *, count=8):
        """The images and texts with the highest, spread and lowest scores on a component: a table."""
        view, direction = select_view(self.stored, self.explanations, layer, head, component)
        return component_ends(view, direction, *self._images_and_texts(), count=count)

    def shown(self, table, kind):
        """{end: (pictures or texts, scores)} of the rows of a kind, image or text, as figures.concepts takes them."""
        ends = {}
        for end, rows in table[table["kind"] == kind].groupby("end", sort=False):
            ends[end] = self.pictures(rows["name"]) if kind == "image" else list(rows["name"]), list(rows["score"])
        return ends

    def _images_and_texts(self):
        """(table of the scored images, table of the pool, its features less their mean)."""
        images = self.images.rename(columns={"image": "name"})
        return images, name_table(self.pool), self.pool_features - self.pool_features.mean(0)

    def evidence(self, picture, texts, minus=None):
        """Where in a picture the evidence for texts is: ([text, layer, head, row, column], what the model sees of it).

        picture: as in `picture_path`; texts, minus: as in segmentation.text_evidence
        """
        from clipspectra.data.geometry import model_view
        from clipspectra.segmentation.maps import text_evidence

        path = self.picture_path(picture)
        self._warn_of_words(texts)
        return text_evidence(self.loaded, path, texts, minus), model_view(path, self.loaded.preprocess)

    def carriers(self, texts, *, share=0.9):
        """The components that carry a concept given by texts, with their names; together they hold `share` of it."""
        mean = self.pool_features.mean(0)
        table = concept_carriers(self.embed(texts), mean, self.stored, self.explanations, self.classifier, share=share)
        return table.join(self.names[["top", "bottom"]], on=["layer", "head", "component"])

    def random_units(self, units, draw=0):
        """As many random components as `units`, each of about the variance of its counterpart: a control of an edit."""
        table = component_table(self.stored, self.explanations)
        variance = {unit: share for unit, share in zip(units_of(table), table["variance"]) if share > 0}
        return matched_units(units, variance, np.random.default_rng(draw))

    def changes(self, intervention, columns=("class",), meant=()):
        """Accuracy before and after an Intervention, of all scored images and of those with each value of some columns.

        columns: of the table of images, such as class, group or a factor; or {column: values} to choose among these
        meant: the values that the edit is about. The table is that of concepts.group_changes.
        """
        images, groups = self.stored.images, {("class", "all"): self.stored.scored}
        for column in columns:
            if column not in images:
                raise InputError(
                    f"The images of {self.dataset} have no column {column!r}; they have {', '.join(images)}."
                )
            for value in columns[column] if isinstance(columns, dict) else sorted(set(self.images[column])):
                groups[column, value] = self.stored.scored & (images[column] == value).to_numpy()
                if not groups[column, value].any():
                    raise InputError(f"No scored image of {self.dataset} has the {column} {value!r}.")
        model = self.stored, self.explanations, self.classifier, self.labels
        return group_changes(intervention, *model, groups, meant)
