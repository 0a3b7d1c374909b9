"""Texts in CLIP's joint space: pools of candidate texts, and zero-shot classifiers from prompts."""

import io
import json
import re
import string
import unicodedata
from itertools import chain, product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from clipspectra import InputError
from clipspectra.data import strict_yaml
from clipspectra.data.own_tables import INVISIBLE, decode_utf8, read_own_table
from clipspectra.jobs import progress


def read_pool(path, column=None):
    """(texts, {"blank": n, "double": n} dropped) of a UTF-8 file with one text per line.

    column: of a table (.csv, .tsv, .jsonl, .json, .parquet), the column that holds the texts; may be left out if the
    only column is one of TEXT_COLUMNS. Lines end at \\n, \\r\\n or \\r only, as in the reference.
    """
    kind = Path(path).suffix.lower()
    if kind in (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet"):
        lines = _read_column(path, kind, column)
    elif column is not None:
        tables = ".csv, .tsv, .jsonl, .json, .parquet"
        raise InputError(f"The text pool {path} has no columns; 'column' is only for tables ({tables}).")
    else:
        lines = io.StringIO(decode_utf8(Path(path).read_bytes(), path), newline=None).read().split("\n")
        if not lines[-1]:
            lines.pop()  # no line follows the last line end
    return clean_pool(lines, path)


# Headers by which the only column of a table is taken for its texts.
TEXT_COLUMNS = {"text", "texts", "caption", "captions", "title", "sentence", "description", "prompt", "word", "name"}


def _read_column(path, kind, column):
    """The texts of one column of a table file."""
    if kind in (".csv", ".tsv"):
        table = read_own_table(path, separator="\t" if kind == ".tsv" else ",")
    elif kind == ".parquet":
        try:
            table = pd.read_parquet(path)
        except Exception as error:
            raise InputError(f"The text pool {path} cannot be read as Parquet: {error}.") from error
    else:
        table = _read_json(path)
    if column is None and len(table.columns) == 1 and str(table.columns[0]).lower() in TEXT_COLUMNS:
        column = table.columns[0]
    if column not in table.columns:
        problem = f"has no column '{column}'" if column else "is a table"
        raise InputError(
            f"The text pool {path} {problem}; set 'column' in the config to the one that holds the texts: "
            f"{', '.join(map(str, table.columns))}. A list of texts without a header must be a .txt file."
        )
    values = table[column].tolist()
    for row, value in enumerate(values, 1):
        if isinstance(value, list | tuple | dict | bytes | np.ndarray):
            raise InputError(f"The text pool {path} holds a {type(value).__name__} in row {row}, not a text.")
    return ["" if pd.isna(value) else str(value) for value in values]


def _read_json(path):
    """A table from JSON lines or a JSON list, of objects or of texts."""
    text = io.StringIO(decode_utf8(Path(path).read_bytes(), path), newline=None).read()
    documents, rows = [text] if text.lstrip().startswith("[") else text.split("\n"), []
    for line, document in enumerate(documents):
        try:
            content = json.loads(document) if document.strip() else []
        except json.JSONDecodeError as error:
            raise InputError(f"The text pool {path}, line {line + error.lineno}, is not JSON: {error.msg}.") from error
        rows += content if isinstance(content, list) else [content]
    if all(isinstance(row, str) for row in rows):
        rows = [{"text": row} for row in rows]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"The text pool {path} is neither a list of texts nor lines of JSON objects.")
    return pd.DataFrame(rows, dtype=object)


def generated_pool(path):
    """(texts, {"blank": n, "double": n} dropped): a YAML file's templates, filled with all words of their lists.

    The file has `templates`, texts with {name}, and `words`, a list for each name.
    """
    content = strict_yaml.load(path, as_written=True)
    templates, words = (content.get(key) if isinstance(content, dict) else None for key in ("templates", "words"))
    lists = [templates, *words.values()] if isinstance(words, dict) else [None]
    if not all(isinstance(members, list) for members in lists):
        raise InputError(
            f"{path} cannot be read as templates and lists of words: it needs 'templates', a list, and 'words', a list "
            "for each name."
        )
    words, texts = {name: [*map(_check_text, members)] for name, members in words.items()}, []
    for template in map(_check_text, templates):
        try:
            fields = [name for _, name, *_ in string.Formatter().parse(template) if name is not None]
            if "" in fields:
                raise InputError(f"The template '{template}' of {path} has {{}} without a name; write {{name}}.")
            names = list(dict.fromkeys(fields))
            unknown = sorted(set(names) - set(words))
            if unknown:
                raise InputError(
                    f"The template '{template}' of {path} needs the words '{unknown[0]}', which the file lacks."
                )
            for combination in product(*(words[name] for name in names)):
                texts.append(template.format(**dict(zip(names, combination))))
        except InputError:
            raise
        except (ValueError, IndexError, KeyError, AttributeError) as error:
            raise InputError(f"The template '{template}' of {path} cannot be filled: {error}.") from error
    return clean_pool(texts, path)


def _check_text(value):
    """The value, a template or a word, if it is a text."""
    if not isinstance(value, str):
        raise InputError(f"Templates and words must be texts; {value!r} is not.")
    return value


def clean_pool(lines, name):
    """(texts, {"blank": n, "double": n}) of a list of lines, first occurrences kept in order."""
    filled = [line for line in (line.strip(INVISIBLE) for line in lines) if line]
    texts = list(dict.fromkeys(filled))
    if len(texts) < 2:
        raise InputError(f"The text pool {name} has {len(texts)} different texts; it needs two or more.")
    return texts, {"blank": len(lines) - len(filled), "double": len(filled) - len(texts)}


def _tokenize(loaded, texts, **options):
    """The tokens of texts, [text, context]."""
    return torch.cat([loaded.tokenizer(texts[start : start + 1000], **options) for start in range(0, len(texts), 1000)])


def distinct_texts(loaded, texts):
    """(texts, number dropped): the first of all texts that are the same tokens to a model."""
    first = {}
    for text, tokens in zip(texts, _tokenize(loaded, texts)):
        first.setdefault(tokens.numpy().tobytes(), text)
    return list(first.values()), len(texts) - len(first)


# Tokens in one forward pass of a text tower; at most 300 MB of activations in ViT-B-32's.
BATCH_TOKENS = 6144


@torch.no_grad()
def embed_texts(loaded, texts, *, bar=True):
    """Normalised embeddings of texts, float32 [text, d_embed]. loaded: LoadedModel; bar: show progress.

    Texts of about the same length are embedded together, without padding where it changes nothing. Raises InputError
    if the tokenizer yields tokens that the model lacks.
    """
    tokens, token_embedding = _tokenize(loaded, texts), _token_embedding(loaded)
    if token_embedding is not None and int(tokens.max()) >= token_embedding.num_embeddings:
        raise InputError(
            f"The tokenizer yields token {int(tokens.max())}, but the model has {token_embedding.num_embeddings} "
            "tokens: it needs the tokenizer that it was trained with (hf_tokenizer_name in its config)."
        )
    lengths = _needed_tokens(loaded.model, tokens)
    order = remaining = lengths.argsort(descending=True, stable=True)
    batches, embeddings = [], []
    while len(remaining):
        longest = int(lengths[remaining[0]])
        rows, remaining = remaining.tensor_split([max(1, BATCH_TOKENS // longest)])
        batches.append((rows, longest))
    encoder = _TextEncoder(loaded.model)
    for rows, longest in progress(batches, "texts", unit="batch", leave=False) if bar and len(batches) > 4 else batches:
        batch, context = tokens[rows, :longest].to(loaded.device), _cut_context(loaded.model, longest)
        embeddings.append(torch.func.functional_call(encoder, context, batch).float().cpu())
    return torch.cat(embeddings)[order.argsort()]


def _token_embedding(loaded):
    return getattr(getattr(loaded.model, "text", loaded.model), "token_embedding", None)


class _TextEncoder(torch.nn.Module):
    """A model's encode_text as a forward pass: tokens [text, pos] -> normalised embeddings [text, d_embed]."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return self.model.encode_text(tokens, normalize=True)


def _text_tower(model):
    """The module that holds the text tower of a model, None if it is not of open_clip's own classes."""
    from open_clip import CLIP, CoCa, CustomTextCLIP

    return model if type(model) is CLIP else model.text if type(model) in (CoCa, CustomTextCLIP) else None


# Text towers of transformers that mask padding in every attention and count no position by it.
MASK_PADDING = {"bert", "m2m_100", "mt5", "roberta", "xlm-roberta"}


def _needed_tokens(model, tokens):
    """How many of its first tokens settle each text's embedding, [text]; tokens: [text, context].

    All of the context, unless the tower is known to be blind to the rest: a causal one that pools a token of the text,
    or one of transformers that masks padding. CoCa's appended token attends to the first token of padding.
    """
    from open_clip import CLIP
    from open_clip.hf_model import ClsLastHiddenStatePooler, ClsPooler, HFTextEncoder, MeanPooler
    from open_clip.transformer import TextTransformer

    tower, context = _text_tower(model), tokens.shape[1]
    whole = torch.full((len(tokens),), context)

    def up_to_padding(pad):
        lengths = ((tokens != pad) * torch.arange(1, context + 1)).amax(1)
        return lengths.where(lengths > 0, whole)

    if type(tower) is HFTextEncoder and tower.config.model_type in MASK_PADDING:
        pools_text = type(tower.pooler) in (MeanPooler, ClsPooler, ClsLastHiddenStatePooler)
        return up_to_padding(tower.config.pad_token_id) if pools_text else whole
    if type(tower) not in (CLIP, TextTransformer) or tower.attn_mask is None:
        return whole
    if getattr(tower, "cls_emb", None) is not None:
        return (up_to_padding(tower.pad_id) + 1).clamp(max=context)
    names = ("text_pool_type", "text_eos_id") if type(tower) is CLIP else ("pool_type", "eos_id")
    pool_type, end = (getattr(tower, name) for name in names)
    if pool_type == "argmax":
        return tokens.argmax(1) + 1
    return (tokens == end).int().argmax(1) + 1 if pool_type == "eos" else whole


def _cut_context(model, length):
    """{name in _TextEncoder: tensor}: positions and mask of a causal tower of open_clip for its first tokens only.

    CoCa's appended token keeps its position, the last.
    """
    tower = _text_tower(model)
    if getattr(tower, "attn_mask", None) is None:
        return {}
    prefix, positions = "model." if tower is model else "model.text.", tower.positional_embedding[:length]
    if getattr(tower, "cls_emb", None) is not None:
        return {f"{prefix}positional_embedding": torch.cat([positions, tower.positional_embedding[-1:]])}
    return {f"{prefix}positional_embedding": positions, f"{prefix}attn_mask": tower.attn_mask[:length, :length]}


def too_long(loaded, texts):
    """The texts that do not fit the model's context: their end is cut off."""
    context = loaded.tokenizer.context_length
    pad = int(loaded.tokenizer([texts[0][:1]], context_length=context)[0, -1])
    is_cut = (_tokenize(loaded, texts, context_length=context + 2)[:, context:] != pad).any(1)
    return [text for text, cut in zip(texts, is_cut) if cut]


def unknown_words(loaded, texts):
    """The words, or parts of words, that the model has never learnt: tokens whose embedding is zero.

    The demo's models know only the words of their captions. Empty if the token embedding is not open_clip's own.
    """
    embedding = _token_embedding(loaded)
    if embedding is None or not hasattr(loaded.tokenizer, "decode"):
        return []
    known = embedding.weight.abs().sum(1).cpu() > 0
    tokens = loaded.tokenizer(texts).unique()
    return [loaded.tokenizer.decode([int(token)]).strip() for token in tokens if token and not known[token]]


def check_distinct(loaded, names):
    """Raise InputError if two classes' names, a phrase or a list of phrases each, are the same tokens to a model."""
    first = {}
    for phrases in names:
        phrases = [phrases] if isinstance(phrases, str) else phrases
        earlier = first.setdefault(frozenset(row.numpy().tobytes() for row in loaded.tokenizer(phrases)), phrases)
        if earlier is not phrases:
            raise InputError(
                f"{earlier[0]!r} and {phrases[0]!r} stand for two classes, but are the same tokens to the model; give "
                "them different phrases under 'names'."
            )


# Prompts, of many classes, that are embedded and held at a time.
BLOCK_PROMPTS = 2000


def zero_shot_classifier(loaded, names, templates):
    """Zero-shot weights [d_embed, class]: the mean embedding of a class's prompts, normalised (Radford et al. 2021).

    names: for each class its phrase, or a list of phrases; templates: texts with {} for the phrase.
    """
    for template in templates:
        if "{}" not in template:
            raise InputError(f"The prompt template '{template}' lacks {{}}, which the class name replaces.")
    prompts, weights = [], []
    for phrases in names:
        phrases = [phrases] if isinstance(phrases, str) else phrases
        prompts.append([template.replace("{}", phrase) for template in templates for phrase in phrases])
    classes = max(1, BLOCK_PROMPTS // max(map(len, prompts)))
    for start in range(0, len(prompts), classes):
        block = prompts[start : start + classes]
        embeddings = embed_texts(loaded, list(chain(*block)), bar=False).split([*map(len, block)])
        weights += [F.normalize(members.mean(0), dim=0) for members in embeddings]
    return torch.stack(weights, dim=1)


def classifier_values(manifest, column, names):
    """The values of a manifest's column in the order of the classifier's columns; classes in the order of their labels.

    For a manifest without class names, and "imagenet" as names: ImageNet's 1,000 names.
    """
    if column not in manifest.columns:
        raise InputError(f"The config has prompts for '{column}', but the manifest has no such column.")
    if column == "class" and names == "imagenet" and not manifest["class"].any():
        from open_clip import IMAGENET_CLASSNAMES

        return IMAGENET_CLASSNAMES
    blank = (manifest[column] == "").sum()
    if blank:
        raise InputError(
            f"The manifest's column '{column}' is blank in {blank} rows; its prompts need a value in every row."
        )
    if manifest[column].nunique() < 2:
        raise InputError(f"The manifest's column '{column}' has only one value; zero-shot needs two or more.")
    if column != "class":
        return sorted(manifest[column].astype(str).unique())
    return manifest[["label", "class"]].drop_duplicates().sort_values("label")["class"].astype(str).tolist()


def prompt_phrases(values, names, column):
    """The phrase or phrases of each value in prompts: from `names` (value -> phrase or phrases), else the value itself.

    "imagenet" as names: the values are the 1,000 wnids, which sorted have open_clip's class names.
    """
    if names == "imagenet":
        from open_clip import IMAGENET_CLASSNAMES

        if len(values) != len(IMAGENET_CLASSNAMES):
            raise InputError(
                f"prompts.{column}.names is 'imagenet', which has 1000 classes, but the manifest has {len(values)}."
            )
        if values is IMAGENET_CLASSNAMES:
            return values
        if not all(re.fullmatch(r"n\d{8}", value) for value in values):
            raise InputError(
                f"prompts.{column}.names is 'imagenet', but the manifest's values are not wnids such as n01440764."
            )
        phrases = dict(zip(sorted(values), IMAGENET_CLASSNAMES))
        return [phrases[value] for value in values]
    names = {unicodedata.normalize("NFC", value): phrases for value, phrases in names.items()}
    unknown = set(names) - set(values)
    if unknown:
        raise InputError(
            f"The config names '{sorted(unknown)[0]}' under prompts.{column}.names, but the manifest has no such value."
        )
    return [names.get(value, value.replace("_", " ")) for value in values]


def prompt_templates(templates):
    """Prompt templates as a list; "openai" stands for the 80 ImageNet templates in open_clip."""
    if templates != "openai":
        return templates
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
