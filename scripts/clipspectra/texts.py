"""Texts in CLIP's joint space: pools of candidate texts, and classifiers from prompts."""

import string
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml

from clipspectra import InputError
from clipspectra.jobs import progress


def read_pool(path):
    """(texts, what was dropped) of a UTF-8 file with one text a line; blank lines and doubles are dropped."""
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"The text file {path} is not UTF-8: {error}.") from error
    return clean_pool(lines, path)


def generated_pool(path):
    """(texts, what was dropped) of every template of a YAML file, filled with every word of the lists it names.

    The file has `templates`, texts with {name}, and `words`, a list for each name.
    """
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        templates, words = found["templates"], {name: [*map(str, of)] for name, of in found["words"].items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read as templates and lists of words: {error}.") from error
    texts = []
    for template in templates:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name]
        unknown = sorted(set(names) - set(words))
        if unknown:
            raise InputError(
                f"The template '{template}' of {path} needs the words '{unknown[0]}', which are not there."
            )
        texts += [template.format(**dict(zip(names, chosen))) for chosen in product(*(words[name] for name in names))]
    return clean_pool(texts, path)


def clean_pool(lines, name):
    """(texts, {"blank": n, "double": n}) of a list of lines, first occurrences kept in order."""
    filled = [line for line in lines if line]
    texts = list(dict.fromkeys(filled))
    if len(texts) < 2:
        raise InputError(f"The text pool {name} has {len(texts)} different texts; it needs two or more.")
    return texts, {"blank": len(lines) - len(filled), "double": len(filled) - len(texts)}


@torch.no_grad()
def embed(loaded, texts, *, batch=256, bar=True):
    """Normalised embeddings of texts, float32 [text, d_embed]. loaded: models.LoadedModel."""
    batches = [texts[start : start + batch] for start in range(0, len(texts), batch)]
    parts = []
    for part in progress(batches, "texts", unit="batch", leave=False) if bar and len(batches) > 4 else batches:
        tokens = loaded.tokenizer(part).to(loaded.device)
        parts.append(loaded.model.encode_text(tokens, normalize=True).float().cpu())
    return torch.cat(parts)


def too_long(loaded, texts):
    """Those of the texts that do not fit the model's context: their end is cut off."""
    context = loaded.tokenizer.context_length
    pad = int(loaded.tokenizer([texts[0][:1]], context_length=context)[0, -1])
    wide = [
        loaded.tokenizer(texts[start : start + 1000], context_length=context + 2)
        for start in range(0, len(texts), 1000)
    ]
    beyond = (torch.cat(wide)[:, context:] != pad).any(1)
    return [text for text, cut in zip(texts, beyond) if cut]


def unknown_words(loaded, texts):
    """Parts of the texts that the model has never learnt: tokens whose embedding is zero, as they are written.

    The demo's models know the words of their captions only. Empty where the tokens' embedding is not open_clip's own.
    """
    tower = getattr(loaded.model, "text", loaded.model)
    embedding = getattr(tower, "token_embedding", None)
    if embedding is None or not hasattr(loaded.tokenizer, "decode"):
        return []
    known = embedding.weight.abs().sum(1).cpu() > 0
    tokens = loaded.tokenizer(texts).unique()
    return [loaded.tokenizer.decode([int(token)]).strip() for token in tokens if token and not known[token]]


def zero_shot_classifier(loaded, names, templates):
    """Zero-shot weights [d_embed, class]: the mean embedding of a class's prompts, normalised (Radford et al. 2021).

    names: for each class its phrase, or a list of phrases; templates: texts with {} for the phrase.
    """
    for template in templates:
        if "{}" not in template:
            raise InputError(f"The prompt template '{template}' lacks {{}}, the place of the class name.")
    weights = []
    for phrases in names:
        phrases = [phrases] if isinstance(phrases, str) else phrases
        prompts = [template.replace("{}", phrase) for template in templates for phrase in phrases]
        weights.append(F.normalize(embed(loaded, prompts, bar=False).mean(0), dim=0))
    return torch.stack(weights, dim=1)


def values_of(manifest, column, names):
    """The values of a manifest's column in the order of a classifier's columns; classes by their labels.

    Of a manifest that names no classes, with "imagenet" as names: ImageNet's 1,000 names.
    """
    if column not in manifest.columns:
        raise InputError(f"The config has prompts for '{column}', but the manifest has no such column.")
    if column == "class" and names == "imagenet" and not manifest["class"].any():
        from open_clip import IMAGENET_CLASSNAMES

        return IMAGENET_CLASSNAMES
    if manifest[column].nunique() < 2:
        raise InputError(f"The manifest's column '{column}' has one value only; zero-shot needs two or more.")
    if column != "class":
        return sorted(manifest[column].astype(str).unique())
    return manifest[["label", "class"]].drop_duplicates().sort_values("label")["class"].astype(str).tolist()


def phrases_of(values, names, column):
    """How each value is said in a prompt: by `names` (value -> phrase or phrases), else as it is written.

    "imagenet" as names: the values are the 1,000 wnids in sorted order, said by open_clip's class names.
    """
    if names == "imagenet":
        from open_clip import IMAGENET_CLASSNAMES

        if len(values) != len(IMAGENET_CLASSNAMES):
            raise InputError(
                f"prompts.{column}.names is 'imagenet', which has 1000 classes, but the manifest has {len(values)}."
            )
        return IMAGENET_CLASSNAMES
    unknown = set(names) - set(values)
    if unknown:
        raise InputError(
            f"The config names '{sorted(unknown)[0]}' under prompts.{column}.names, but the manifest has no such value."
        )
    return [names.get(value, value.replace("_", " ")) for value in values]


def templates_of(templates):
    """Prompt templates as a list; "openai" stands for the 80 ImageNet templates that open_clip carries."""
    if templates != "openai":
        return templates
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
