"""The kinds of files that are damaged: a sound one of each, how the workflow reads it, and damage of its own structure.

is_checked: whether the format has check sums, so that whatever is read must be what was written; of the others, such as
JPEG and CSV, no reader can see a changed pixel or letter.
"""

import hashlib
import json
import pickle
import shutil
import struct
import tarfile
import zlib
from functools import cache

import archives_small
import numpy as np
import pandas as pd
import torch
from damage import mutate
from PIL import Image
from safetensors.torch import load_file, save_file
from stored_small import stored_small
from test_checkpoints import CONFIG, WEIGHTS, Nested

from clipspectra.arrays import load_arrays, load_table, save_arrays, save_table
from clipspectra.concepts.interventions import Factors, Intervention
from clipspectra.concepts.references import Reference, load_edit, save_edit
from clipspectra.concepts.retrieval import best_texts
from clipspectra.contributions.stored import StoredActivations
from clipspectra.data import archives, pools, strict_yaml
from clipspectra.data.datasets import own_manifest, read_manifest
from clipspectra.data.pictures import open_mask, open_rgb
from clipspectra.explanations.head import load_explanations, save_explanations
from clipspectra.towers.architectures import describe_json
from clipspectra.towers.checkpoints import read_checkpoint
from clipspectra.towers.model_files import shards_of

ABSOLUTE = "/tmp/clipspectra-damage-escaped"
KINDS = {}


class Kind:
    """A sound file at `path`; read() gives its content by the workflow's own reader."""

    is_checked, special = False, ()

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / self.file
        self.make()

    def __init_subclass__(cls):
        if cls.__doc__:
            KINDS[cls.__doc__] = cls


# --- Stored results


class Arrays(Kind):
    "arrays of the workflow"

    file, is_checked = "a.safetensors", True

    def make(self):
        rng = np.random.default_rng(0)
        arrays = {"z": rng.normal(size=(50, 3, 4)).astype(np.float16), "row": np.arange(50), "x": rng.normal(size=9)}
        save_arrays(self.path, arrays, {"model": "m", "texts": ["a", "ü"]})

    def read(self):
        return load_arrays(self.path)


class Shards(Kind):
    "stored activations"

    file, is_checked = "0.safetensors", True

    def make(self):
        stored_small(self.folder, store=np.float16)

    def read(self):
        files = [self.folder / f"{shard}.safetensors" for shard in (0, 1)]
        stored = StoredActivations(files, self.folder / "basis.safetensors", self.folder / "images.csv")
        moments = [moments.covariance for moments in stored.fit_moments(0)]
        return [stored.images, *moments, *stored.embeddings(), *stored.parts()]


class SeedTable(Shards):
    "table of a seed's images"

    file, is_checked = "images.csv", False


class Explanations(Kind):
    "explanations"

    file, is_checked = "e.safetensors", True

    def make(self):
        save_explanations(self.path, stored_small(self.folder).explanations, {"model": "m"})

    def read(self):
        return {unit: vars(explanation) for unit, explanation in load_explanations(self.path).items()}


class Edit(Kind):
    "edits"

    file, is_checked = "edit.safetensors", True

    def make(self):
        small, intervention = stored_small(self.folder), Intervention({(1, 0): Factors(1, {0: 0})}, 1, 0)
        small.stored.weights = "0" * 64
        save_edit(self.path, intervention, Reference.of(small.stored, small.explanations, intervention), {})

    def read(self):
        intervention, reference = load_edit(self.path)
        return [str(intervention), {str(key): value for key, value in vars(reference).items()}]


class Parquet(Kind):
    "tables in Parquet"

    file, is_checked = "t.parquet", True

    def make(self):
        rows = [
            {
                "layer": 0,
                "head": head,
                "component": 0,
                "pole": pole,
                "place": 0,
                "strength": 0.5,
                "text": f"{pole} {head}",
            }
            | {"naming": "says", "named": True}
            for head in range(40)
            for pole in ("top", "bottom")
        ]
        save_table(self.path, pd.DataFrame(rows))

    def read(self):
        return [load_table(self.path), best_texts(self.path, "says")]


class Csv(Kind):
    "tables in CSV"

    file = "t.csv"

    def make(self):
        table = pd.DataFrame(
            {"model": ["m", "n,o"], "accuracy": [0.5, 1.5], "accuracy_low": [0.1, None], "images": [1, 2]}
        )
        save_table(self.path, table)

    def read(self):
        return load_table(self.path)


# --- The user's tables and texts


class Manifest(Kind):
    "manifests"

    file = "manifest.csv"

    def make(self):
        for name in ("a.png", "b c.png", "ü.png"):
            (self.folder / name).touch()
        text = 'image,label,class,group,split,mask,place\na.png,0,cat,,train,,"here, or"\nb c.png,1,dog,,test,,there\n'
        self.path.write_text(text + "ü.png,1,dog,,test,,there\n", encoding="utf-8")

    def read(self):
        save_table(self.folder / "again.csv", own_manifest(self.path))
        return [read_manifest(self.path), load_table(self.folder / "again.csv")]


class Pool(Kind):
    "text pools"

    file = "pool.txt"

    def make(self):
        self.path.write_text(
            "".join(f"a photo of number {number}\n" for number in range(60)) + "ünï\n", encoding="utf-8"
        )

    def read(self):
        return pools.read_pool(self.path)


class PoolCsv(Pool):
    "text pools in CSV"

    file = "pool.csv"

    def make(self):
        self.path.write_text('n,text\n1,a cat\n2,"a, dog"\n3,"say ""hi"""\n', encoding="utf-8")

    def read(self):
        return pools.read_pool(self.path, "text")


class PoolJson(PoolCsv):
    "text pools in JSON"

    file = "pool.json"

    def make(self):
        self.path.write_text(json.dumps([{"text": f"text {number}", "n": number} for number in range(9)]))


class PoolLines(PoolCsv):
    "text pools in JSON lines"

    file = "pool.jsonl"

    def make(self):
        self.path.write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(9)))


class PoolParquet(PoolCsv):
    "text pools in Parquet"

    file = "pool.parquet"

    def make(self):
        pd.DataFrame({"text": [f"text {number}" for number in range(50)]}).to_parquet(self.path)


def yaml_bomb(content, rng):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    return content + "\n".join(lines).encode() + b"\n"


def yaml_loop(content, rng):
    return content + b"loop: &loop {again: *loop}\n"


def yaml_deep(content, rng):
    return content + b"deep: " + b"[" * 3000 + b"]" * 3000 + b"\n"


def yaml_merge(content, rng):
    return content + b"base: &base {a: 1}\nmerged: {<<: [*base, *base], <<: 3}\nbad: {? [a] : 1}\ntag: !!timestamp x\n"


class Yaml(Kind):
    "templates and words (YAML)"

    file = "words.yaml"
    special = (yaml_bomb, yaml_loop, yaml_deep, yaml_merge)

    def make(self):
        self.path.write_text(
            "templates:\n- a {colour} {thing}\n- the {thing}\nwords:\n  colour: [red, blue]\n  thing: [cat, dog]\n"
        )

    def read(self):
        return pools.generated_pool(self.path)


class Config(Yaml):
    "configs (YAML)"

    file = "config.yaml"

    def make(self):
        shutil.copy(CONFIG.parents[2] / "config/config.yaml", self.path)

    def read(self):
        content = strict_yaml.load(self.path)
        strict_yaml.line_of(self.path, ["models", "demo"])
        return content


class ModelConfig(Kind):
    "model configs (JSON)"

    file = "model.json"

    def make(self):
        shutil.copy(CONFIG, self.path)

    def read(self):
        return describe_json(str(self.path)).config


class Index(Kind):
    "indexes of weights (JSON)"

    file = "model.safetensors.index.json"

    def make(self):
        (self.folder / "one.safetensors").touch()
        self.path.write_text(json.dumps({"weight_map": {"a.weight": "one.safetensors", "b.weight": "one.safetensors"}}))

    def read(self):
        return list(map(str, shards_of(self.path)))


# --- Pictures


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_size(content, rng):
    """A picture that declares a size of its own, with right check sums."""
    if len(content) < 33:
        return content
    width, height = (int(rng.choice([0, 1, 17, 4000, 50_000, 2**31 - 1])) for _ in range(2))
    return content[:8] + png_chunk(b"IHDR", struct.pack(">II", width, height) + content[24:29]) + content[33:]


def png_bomb(content, rng):
    return content[:33] + long_text() + content[33:]


@cache
def long_text():
    return png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 2**27, 1))


class Png(Kind):
    "pictures (PNG)"

    file, is_checked, special = "p.png", True, (png_bomb,)

    def make(self):
        pixels = np.random.default_rng(0).integers(0, 60, (40, 30, 3), np.uint8)
        Image.fromarray(pixels).save(self.path)

    def read(self):
        return np.array(open_rgb(self.path))


class SizedPng(Png):
    "pictures (PNG, other sizes with right check sums)"

    is_checked, special = False, (png_size,) * 9


class Palette(Png):
    "pictures (PNG with a palette, transparency and EXIF)"

    def make(self):
        pixels = np.random.default_rng(0).integers(0, 9, (40, 30), np.uint8)
        picture, exif = Image.fromarray(pixels, "P"), Image.Exif()
        picture.putpalette(list(range(30)))
        exif[0x0112] = 6
        picture.save(self.path, transparency=3, exif=exif)


class Mask(Png):
    "masks (PNG)"

    file = "m.png"

    def make(self):
        mask = np.zeros((40, 30), np.uint8)
        mask[5:20, 8:20] = 1
        Image.fromarray(mask).save(self.path)

    def read(self):
        return np.array(open_mask(self.path))


def other_picture(suffix):
    class Picture(Png):
        file, is_checked, special = f"p.{suffix}", False, ()

        def make(self):
            exif = Image.Exif()
            exif[0x0112] = 6
            options = {"exif": exif} if suffix in ("jpg", "webp", "tif") else {}
            pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
            Image.fromarray(pixels).save(self.path, **options)

    KINDS[f"pictures ({suffix})"] = Picture


for suffix in ("jpg", "webp", "tif", "gif", "bmp", "ppm"):
    other_picture(suffix)


# --- Checkpoints


class Safetensors(Kind):
    "checkpoints (safetensors)"

    file = "w.safetensors"

    def make(self):
        weights = {
            name: tensor[:2] for name, tensor in load_file(WEIGHTS).items() if "text" not in name and tensor.ndim
        }
        self.save({name: tensor.contiguous() for name, tensor in weights.items()})

    def save(self, weights):
        save_file(weights, self.path)

    def read(self):
        checkpoint = read_checkpoint(self.path)
        return {name: tensor.numpy() for name, tensor in sorted(checkpoint.tensors.items())}


class Code:
    def __reduce__(self):
        return open, (ABSOLUTE, "w")


def pickle_code(content, rng):
    return pickle.dumps(Code(), protocol=int(rng.integers(2, 5)))


def pickle_bomb(content, rng):
    """A pickle that declares a text of 2^40 letters, nests, or has a memo of 2^31 entries."""
    bombs = [b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"abc.", b"\x80\x02N" + b"r\xff\xff\xff\x7f."]
    bombs.append(b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".")
    return bombs[rng.integers(len(bombs))]


class TorchZip(Safetensors):
    "checkpoints (torch.save)"

    file, is_checked, special = "w.pt", True, (pickle_code,)

    def save(self, weights):
        torch.save({"state_dict": weights, "epoch": 3}, self.path)


class TorchLegacy(Safetensors):
    "checkpoints (torch.save, before 1.6)"

    file, special = "w.pth", (pickle_code, pickle_bomb)

    def save(self, weights):
        torch.save(weights, self.path, _use_new_zipfile_serialization=False)


class TorchScript(Safetensors):
    "checkpoints (TorchScript)"

    file, is_checked = "w.ts", True

    def save(self, weights):
        torch.jit.script(Nested(weights)).save(str(self.path))


# --- Archives


def tar_entry(content, rng):
    """An archive with an entry more in front, that points elsewhere, is no file, or declares another size."""
    raw = plain(content)
    if raw is None:
        return content
    names = ["../escaped", "a/../../escaped", ABSOLUTE, "link/escaped", "x" * 300, "a\nb", "a\udcffb", "plain", "."]
    entry = tarfile.TarInfo(str(names[rng.integers(len(names))] + rng.choice(["", ".jpg", ".JPEG", "/metadata.csv"])))
    kinds = [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
    entry.type = kinds[rng.integers(len(kinds))]
    entry.linkname = str(rng.choice(["..", "/tmp", "/etc/passwd", "plain"]))
    entry.size = int(rng.choice([0, 0, 0, 2**20, 2**33, 2**42, 2**62, -512, -(2**20)]))
    raw = entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + raw
    return raw if plain(content) is content else compress_gzip(raw)


def plain(content):
    """What is inside a gzip file, None if it is damaged; another file as it is."""
    try:
        return zlib.decompress(content, 31) if content[:2] == b"\x1f\x8b" else content
    except zlib.error:
        return None


def compress_gzip(raw):
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(raw) + packer.flush()


def tar_bomb(content, rng):
    return gigabyte()


@cache
def gigabyte():
    """A tar.gz whose first file has a gigabyte of zeros, in a megabyte."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    entry = tarfile.TarInfo("zeros/metadata.csv")
    entry.size = 2**30
    parts = [packer.compress(entry.tobuf()), *(packer.compress(bytes(2**24)) for _ in range(64))]
    return b"".join(parts) + packer.flush()


def inside_gzip(content, rng):
    """Damage below a right check sum."""
    raw = plain(content)
    return content if raw is None else compress_gzip(mutate(raw, rng))


class Archive(Kind):
    """"""

    special = (tar_entry,)

    def read(self):
        out = self.folder / "unpacked" / "images"
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir()
        table = self.unpack(out)
        archives.check_complete(table, "data")
        save_table(out.parent / "manifest.csv", table)
        manifest = read_manifest(out.parent / "manifest.csv")
        names = [name for column in ("image", "mask") for name in manifest[column] if name]
        return [manifest, [hashlib.sha256((out.parent / name).read_bytes()).hexdigest() for name in names]]


class ImageNet(Archive):
    "archives (ImageNet, pictures)"

    file = "val.tar"

    def make(self):
        archives_small.imagenet(self.folder, count=6)

    def unpack(self, out):
        return archives.imagenet({"images": self.folder / "val.tar", "devkit": self.folder / "devkit.tar.gz"}, out)


class Devkit(ImageNet):
    "archives (ImageNet, devkit)"

    file, is_checked = "devkit.tar.gz", True


class DevkitInside(ImageNet):
    "archives (ImageNet, devkit, below its check sum: MAT)"

    file, special = "devkit.tar.gz", (inside_gzip,) * 9


class Segmentation(Archive):
    "archives (ImageNet-Segmentation, HDF5)"

    file, special = "gtsegs_ijcv.mat", ()

    def make(self):
        archives_small.segmentation(self.folder, count=2)

    def unpack(self, out):
        return archives.imagenet_segmentation({"archive": self.path}, out)


class Waterbirds(Archive):
    "archives (Waterbirds)"

    file, is_checked, special = "waterbirds.tar.gz", True, (tar_bomb,)

    def make(self):
        archives_small.waterbirds(self.folder, count=12)

    def unpack(self, out):
        return archives.waterbirds({"archive": self.path}, out)


class Inside:
    """Kinds whose damage is below a right check sum."""

    is_checked, special = False, (inside_gzip, inside_gzip, inside_gzip, tar_entry)


class WaterbirdsInside(Inside, Waterbirds):
    "archives (Waterbirds, below their check sum)"


class Cifar(Waterbirds):
    "archives (CIFAR)"

    file = "cifar-10-batches-py.tar.gz"

    def make(self):
        archives_small.cifar(self.folder, fine=False)

    def unpack(self, out):
        return archives.cifar({"archive": self.path}, out)


class CifarInside(Inside, Cifar):
    "archives (CIFAR, below their check sum: pickles)"


class Voc(Archive):
    "archives (Pascal VOC)"

    file = "voc.tar"

    def make(self):
        archives_small.pascal_voc(self.folder)

    def unpack(self, out):
        return archives.pascal_voc({"archive": self.path}, out)
