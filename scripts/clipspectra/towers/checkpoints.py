"""Read tensors from checkpoints of many formats, recognised by content and not by name; no code is ever run."""

import argparse
import collections
import json
import pathlib
import pickle
import re
import struct
import zipfile
from dataclasses import dataclass

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from clipspectra import InputError
from clipspectra.towers.model_files import shards_of

# Wrappers that training leaves in the names of weights: DDP, torch.compile, FSDP, activation checkpointing.
WRAPPERS = re.compile(
    r"(?:(?<=\.)|^)(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
# Where a CLIP's image tower begins, in open_clip's and OpenAI's names and in those of transformers.
IMAGE_TOWER_NAME = re.compile(
    r"(?:(?<=\.)|^)(?:vision_model\.(?:embeddings|encoder|head|p(?:re|ost)_layr?e?r?norm)"
    r"|visual\.(?:conv\d|class_emb|positional|proj$|ln_|transformer|trunk|attn_?pool|layer\d|bn\d|head))"
)
# What OpenAI's own models keep beside their weights.
OPENAI_SIZES = {"input_resolution", "context_length", "vocab_size"}
# Plain data that training scripts keep beside the weights.
SAFE_GLOBALS = [
    *((np._core.multiarray.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((np._core.multiarray._reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type)),
    *(np.ndarray, np.dtype, argparse.Namespace, pathlib.PosixPath, pathlib.PurePosixPath),
    *(collections.defaultdict, dict, list, set, int, float, bool, str),
]  # fmt: skip

# Types of TorchScript's stored numbers.
STORAGES = {"FloatStorage": torch.float32, "HalfStorage": torch.float16, "DoubleStorage": torch.float64}
STORAGES |= {"BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32}
STORAGES |= {"ByteStorage": torch.uint8, "BoolStorage": torch.bool}


@dataclass
class Checkpoint:
    """Tensors of one model by name, on the CPU, as the file holds them: mapped, not read, where its format allows.

    openai: whether it has OpenAI's own layout, with the model's sizes among the weights
    left_out: what else the file holds: other sets of weights, weights outside the model
    """

    tensors: dict
    openai: bool
    left_out: list


def read_checkpoint(path, state_dict=None):
    """The Checkpoint in a file, or in the shards of an index.

    state_dict: which of the file's sets of weights, where it holds several (of a training run: "state_dict", "ema")

    Raises InputError, saying what the file is, for a file that is not a checkpoint, damaged, or more than plain data.
    """
    content = {}
    for shard in shards_of(path):
        shard_content = _read_content(shard)
        if not isinstance(shard_content, dict):
            raise InputError(f"{shard} holds a {type(shard_content).__name__}, not weights by name.")
        content |= shard_content
    weights, left_out = _choose_weights(content, state_dict, path)
    tensors = {}
    for key, tensor in weights.items():
        name = WRAPPERS.sub("", key)
        if name in tensors and not torch.equal(tensors[name], tensor):
            raise InputError(f"{path} holds {name} twice, once as {key}, and the two differ. Save a single model.")
        tensors[name] = tensor
    prefix, *copies = _prefixes(tensors, path)
    inside = {key for key in tensors if key.startswith(prefix) and not key.startswith(tuple(copies))}
    left_out += _abbreviate(key for key in tensors if key not in inside)
    tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key in inside}
    for key, tensor in tensors.items():
        _check_floats(key, tensor, path)
    return Checkpoint(tensors, set(tensors) >= OPENAI_SIZES, left_out)


def _prefixes(tensors, path):
    """The prefix of a model's names, then those of its copies with equal weights, such as a compiled one."""
    prefixes = sorted({key[: match.start()] for key in tensors if (match := IMAGE_TOWER_NAME.search(key))}, key=len)
    for prefix in prefixes[1:]:
        keys = [key for key in tensors if key.startswith(prefix) and IMAGE_TOWER_NAME.match(key[len(prefix) :])]
        originals = [prefixes[0] + key[len(prefix) :] for key in keys]
        if not all(name in tensors and torch.equal(tensors[name], tensors[key]) for name, key in zip(originals, keys)):
            listed = ", ".join(f"'{prefix}'" for prefix in prefixes)
            raise InputError(f"{path} holds several models, whose names begin with {listed}. Save only one of them.")
    return prefixes or [""]


def _abbreviate(names):
    """The names, with several that begin alike as one entry and their number."""
    groups = collections.defaultdict(list)
    for name in names:
        groups[name.split(".")[0]].append(name)
    return [members[0] if len(members) == 1 else f"{first}.* ({len(members)})" for first, members in groups.items()]


def _check_floats(name, tensor, path):
    is_float = tensor.is_floating_point()
    if (is_float and tensor.element_size() == 1) or (not is_float and name.endswith("weight") and tensor.ndim):
        raise InputError(f"{path} holds {name} as {tensor.dtype}: quantised weights are not exact. Save floats.")


def _read_content(path):
    """A checkpoint file's content, read as plain data. Raises InputError, saying what it is, for another file."""
    with open(path, "rb") as file:
        first_bytes = file.read(1024)
    if len(first_bytes) > 8 and first_bytes[8:9] == b"{" and struct.unpack("<Q", first_bytes[:8])[0] < 2**32:
        try:
            return load_file(path)
        except SafetensorError as error:
            raise InputError(f"{path} is damaged or cut off: {error}. Fetch it again.") from error
    if first_bytes[:4] == b"PK\x03\x04":
        return _read_zip(path)
    if first_bytes[:1] == b"\x80":
        return _read_pickle(path)
    raise InputError(f"{path} is not a checkpoint: {_identify(first_bytes)}.")


def _identify(first_bytes):
    """In words, what a file without weights is, by its first bytes, and what to do."""
    text = first_bytes.lstrip().lower()
    if not first_bytes.strip(b"\0"):
        return "it is empty or holds zeros; fetch it again"
    if first_bytes.startswith(b"version https://git-lfs") or b"/annex/objects/" in first_bytes[:200]:
        return "it is a pointer of Git LFS or git-annex that stands for the file; fetch the file itself (git lfs pull)"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "it is a web page, most likely of a download that needs a login; fetch the file itself"
    kinds = {b"\x89HDF": "HDF5, as Keras writes it", b"GGUF": "GGUF", b"\x1f\x8b": "a gzip archive; unpack it first"}
    kinds |= {b"BZh": "a bzip2 archive; unpack it first", b"\xfd7zXZ": "an xz archive; unpack it first"}
    for start, kind in kinds.items():
        if first_bytes.startswith(start):
            return f"it is {kind}"
    if first_bytes[257:262] == b"ustar":
        return "it is a tar archive; unpack it first"
    if text.startswith((b"{", b"[")):
        return "it is JSON; for sharded weights, give the file that ends in .index.json"
    printable = all(byte >= 32 or byte in b"\t\r\n" for byte in first_bytes)
    return "it is text" if printable else "its first bytes match no known format"


def _read_zip(path):
    """A file of torch.save, or OpenAI's TorchScript archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
                raise InputError(f"{path} is compressed, as torch never saves weights; it is not trusted.")
            damaged = archive.testzip()
    except InputError:
        raise
    except Exception as error:  # zipfile raises errors of many kinds
        raise InputError(f"{path} is damaged or cut off: {short_reason(error, 200)}. Fetch it again.") from error
    if damaged is not None:
        raise InputError(
            f"{path} is damaged: the check sum of {damaged} is wrong. Fetch it again; if it was saved without check "
            "sums (torch.serialization.set_crc32_options), save it again."
        )
    if any(name.endswith("/constants.pkl") for name in names):
        return _read_torchscript(path)
    if any(name.endswith("/data.pkl") for name in names):
        return _read_pickle(path, mmap=path.suffix != ".safetensors")  # torch goes by this ending, not by content
    raise InputError(f"{path} is a zip archive without weights of torch; unpack it first.")


def _read_pickle(path, mmap=False):
    """The content of a torch.save file: tensors, numbers, texts and numpy scalars; nothing else is unpickled.

    mmap: whether to map the tensors, which only zip archives allow
    """
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS), open(path, "rb") as file:
            return torch.load(path if mmap else file, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        classes = re.findall(r"(?:GLOBAL|class|function|global) [`']?([A-Za-z_][\w.]*\.[\w.]+)", str(error))
        objects = f" ({classes[0]})" if classes else ""
        if any(name.startswith("torch._utils.") for name in classes):
            raise InputError(f"{path} is a pickle of tensors; save them with torch.save instead.") from error
        raise InputError(
            f"{path} holds Python objects{objects} besides weights, and only plain data is read: loading them would "
            "run code. Save only its state_dict()."
        ) from error
    except Exception as error:  # damaged pickles raise errors of every kind
        raise InputError(f"{path} is damaged or cut off: {short_reason(error, 200)}. Fetch it again.") from error


class _TorchScriptUnpickler(pickle.Unpickler):
    """Reads the attributes of TorchScript modules as plain data; their code is neither compiled nor run."""

    def __init__(self, archive, root):
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.archive, self.root = archive, root

    class Module:
        def __setstate__(self, state):
            self.attributes = state

    def find_class(self, module, name):
        if module.startswith("__torch__"):
            return self.Module
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *rest: storage.as_strided(size, stride, offset)
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch.jit._pickle":  # lists with the type of their items
            return lambda value, *rest: value
        raise InputError(f"it holds Python objects ({module}.{name}) besides weights")

    def persistent_load(self, storage):
        _, dtype, key, _, count = storage
        raw = bytearray(self.archive.read(f"{self.root}/data/{key}"))
        return torch.frombuffer(raw, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)


def _read_torchscript(path):
    """The tensors of a TorchScript archive by name, as its state_dict() would give them."""

    def walk(module, prefix):
        for name, value in module.attributes.items():
            if isinstance(value, torch.Tensor):
                tensors[prefix + name] = value
            elif isinstance(value, _TorchScriptUnpickler.Module):
                walk(value, f"{prefix}{name}.")
            elif name in OPENAI_SIZES and isinstance(value, int):
                tensors[prefix + name] = torch.tensor(value)

    tensors = {}
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("/data.pkl")
            walk(_TorchScriptUnpickler(archive, root).load(), "")
            has_byte_order = f"{root}/byteorder" in archive.namelist()
            byte_order = archive.read(f"{root}/byteorder") if has_byte_order else b"little"
    except InputError as error:
        raise InputError(f"{path} is a TorchScript archive that cannot be read: {error}.") from error
    except Exception as error:  # damaged pickles raise errors of every kind
        reason = short_reason(error, 200)
        raise InputError(f"{path} is a TorchScript archive that is damaged: {reason}. Fetch it again.") from error
    if byte_order != b"little":
        raise InputError(f"{path} is a TorchScript archive from a machine with another byte order.")
    return tensors


def _choose_weights(content, state_dict, path):
    """(tensors of the chosen set of weights, names of the other sets) in a checkpoint's content."""
    sets, has_tower = dict(_weight_sets(content)), lambda key: IMAGE_TOWER_NAME.search(WRAPPERS.sub("", key))
    models = {name: keys for name, keys in sets.items() if any(map(has_tower, keys))}
    sets = sets if state_dict in sets else models or sets  # heads and optimizers are no models
    if not sets:
        keys = ", ".join(map(str, list(content)[:8])) or "none"
        raise InputError(f"{path} holds no weights of a CLIP model; its keys are {keys}.")
    if state_dict is None:
        averaged = {name for name in sets if {"ema", "swa", "averaged"} & set(re.split(r"[._]", name.lower()))}
        names = [name for name in sets if name not in averaged] or list(sets)
        if len(names) > 1:
            raise InputError(
                f"{path} holds several sets of weights: {', '.join(names)}. Set 'state_dict' in the config to one."
            )
        state_dict = names[0]
    elif state_dict not in sets:
        known = ", ".join(filter(None, sets)) or "no named set"
        raise InputError(f"{path} has no weights under '{state_dict}'; it has {known}.")
    return sets[state_dict], [name for name in sets if name != state_dict]


def _weight_sets(content, name=""):
    """(name, tensors) of each dict of weights inside nested dicts; optimizers have no keys like "…weight"."""
    arrays = {key: value for key, value in content.items() if isinstance(key, str)}
    arrays = {key: torch.tensor(value) if _is_numbers(value) else value for key, value in arrays.items()}
    tensors = {key: value for key, value in arrays.items() if isinstance(value, torch.Tensor)}
    if any(key.endswith("weight") and tensor.ndim > 1 for key, tensor in tensors.items()):
        yield name, tensors
        return
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _weight_sets(value, f"{name}.{key}" if name else str(key))


def _is_numbers(value):
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def short_reason(error, length=300):
    """An error's message in one line, cut off at a length; its type where it has no message."""
    return " ".join(str(error).split())[:length] or type(error).__name__


def read_json(path):
    """The dict in a JSON file. Raises InputError naming the file."""
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"The model config {path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"The model config {path} is not a JSON object.")
    return content
