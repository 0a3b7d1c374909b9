"""Texts in CLIP's joint space: their embeddings, and zero-shot classifiers from prompts."""

import re
import unicodedata
from collections import Counter
from itertools import chain

import torch
import torch.nn.functional as F

from clipspectra import InputError
from clipspectra.jobs import progress


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

    manifest: its pieces. For one without class names, and "imagenet" as names: ImageNet's 1,000 names.
    """
    keys, counts = ["label", "class"] if column == "class" else [column], Counter()
    for piece in manifest:
        if column in piece.columns:
            counts.update(zip(*(piece[key] for key in keys)))
    if not counts:
        raise InputError(f"The config has prompts for '{column}', but the manifest has no such column.")
    values = {value for *_, value in counts}
    if column == "class" and names == "imagenet" and not any(values):
        from open_clip import IMAGENET_CLASSNAMES

        return IMAGENET_CLASSNAMES
    blank = sum(count for (*_, value), count in counts.items() if value == "")
    if blank:
        raise InputError(
            f"The manifest's column '{column}' is blank in {blank} rows; its prompts need a value in every row."
        )
    if len(values) < 2:
        raise InputError(
            f"The manifest's column '{column}' has only one value; zero-shot needs two or more. Leave prompts "
            "out of the dataset's entry to explain its pictures without it."
        )
    if column != "class":
        return sorted(values)
    return [name for _, name in sorted(counts)]


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
