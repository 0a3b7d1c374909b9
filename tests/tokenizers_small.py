"""Small tokenizers of the kinds that open_clip's models have on the hub, and a hub cache that holds them."""

import io
import json

import sentencepiece

WORDS = ["a photo of a cat", "the sky is blue", "two dogs on a lawn", "a red digit", "wooden table and fur"] * 4


def piece_model():
    """A small sentencepiece model, as its trainer writes it."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


def tokenizer_files(name):
    """The tokenizer files of a hub repository, of the same kinds as the real ones, at small size."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "a": 5, "photo": 6, "of": 7, "cat": 8}
    letters = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4} | {c: 5 + n for n, c in enumerate("Ġacfhopt")}
    pieces = {
        "mt5": ("spiece.model", "T5Tokenizer", "mt5"),
        "nllb": ("sentencepiece.bpe.model", "NllbTokenizer", "m2m_100"),
    }
    pieces |= {"xlm": ("sentencepiece.bpe.model", "XLMRobertaTokenizer", "xlm-roberta")}
    pieces |= {"SigLIP2": ("tokenizer.model", "GemmaTokenizer", None), "SigLIP": ("spiece.model", "T5Tokenizer", None)}
    if "bert-base-uncased" in name:
        return {"vocab.txt": "\n".join(vocabulary), "config.json": {"model_type": "bert"}}
    for family, (file, tokenizer_class, model_type) in pieces.items():
        if family in name:
            config = {"config.json": {"model_type": model_type}} if model_type else {}
            return config | {file: piece_model(), "tokenizer_config.json": {"tokenizer_class": tokenizer_class}}
    merges = {"vocab.json": letters, "merges.txt": "#version: 0.2\n"}
    return merges | {"config.json": {"model_type": "roberta"}}


def cached(cache, name, files):
    """Put a repository into a hub cache."""
    snapshot = cache / f"models--{name.replace('/', '--')}" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    for file, content in files.items():
        content = json.dumps(content) if isinstance(content, dict) else content
        (snapshot / file).write_bytes(content if isinstance(content, bytes) else content.encode())
