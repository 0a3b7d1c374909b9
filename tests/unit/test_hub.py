"""Models from the hub: the real client against a hub on 127.0.0.1 that moves tags, cuts connections and fails."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import open_clip
import pytest
import torch
import transformers
from hub_server import Hub
from loopback import Fault
from open_clip.push_to_hf_hub import save_for_hf
from safetensors.torch import save
from stored_small import stored_small
from tokenizers_small import tokenizer_files

from clipspectra import InputError
from clipspectra.arrays import load_arrays, save_arrays
from clipspectra.contributions.chunks import check_weights
from clipspectra.contributions.stored import StoredActivations
from clipspectra.towers import models

TEXT = {"context_length": 16, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
TEXT |= {"hf_tokenizer_name": "someone/tiny"}
VISION = {"image_size": 32, "layers": 2, "width": 48, "head_width": 12, "patch_size": 8}
CONFIG = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}
NAME = "hf-hub:someone/tiny"
SAFE, PICKLE = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"


def tiny(seed=0):
    torch.manual_seed(seed)
    return open_clip.CLIP(24, VISION, {key: value for key, value in TEXT.items() if key != "hf_tokenizer_name"})


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """The files that open_clip pushes to the hub for a small model of each of two seeds, both kinds of weights."""
    folder = tmp_path_factory.mktemp("pushed")
    words = folder / "tokenizer"
    words.mkdir()
    for name, content in tokenizer_files("roberta").items():
        (words / name).write_text(content if isinstance(content, str) else json.dumps(content))
    for seed in (0, 1):
        model = tiny(seed)
        model.visual.image_mean, model.visual.image_std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
        save_for_hf(model, open_clip.tokenizer.HFTokenizer(str(words)), CONFIG, str(folder / str(seed)))
    return [
        {path.name: path.read_bytes() for path in sorted((folder / str(seed)).iterdir()) if path.is_file()}
        for seed in (0, 1)
    ]


def ask(address, monkeypatch):
    """What HF_ENDPOINT says at import, for a process that has imported the client."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(pushed, monkeypatch):
    """A hub with someone/tiny, which the client of this process asks; the waits between its tries are left out."""
    with Hub() as hub:
        ask(hub.address, monkeypatch)
        monkeypatch.setattr("time.sleep", lambda _: None)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        hub.commit = hub.push("someone/tiny", pushed[0])
        yield hub


def same(loaded, seed=0):
    return torch.equal(loaded.model.visual.proj, tiny(seed).visual.proj)


def fetched(hub, ending):
    """First bytes of the requests for the bodies of files; those of weights go to the CDN."""
    return [start for request, start in hub.requests if request.startswith("GET ") and ending in request]


def test_a_model_comes_with_its_config_tokenizer_and_safest_weights_once(hub, pushed, tmp_path, monkeypatch):
    loaded = models.load(NAME, cache=tmp_path)
    assert same(loaded)
    assert loaded.used["mean"] == "0.5, 0.5, 0.5"
    assert loaded.tokenizer(["a photo"]).shape == (1, 16)
    assert loaded.used["weights"] == SAFE
    assert fetched(hub, "/cdn/") == [0]  # the safetensors alone
    hub.requests.clear()
    assert same(models.load(NAME, cache=tmp_path, revision=hub.commit))
    assert not fetched(hub, "/cdn/") + fetched(hub, "/resolve/")
    ask("http://127.0.0.1:9", monkeypatch)  # nobody there
    assert same(models.load(NAME, cache=tmp_path))
    with pytest.raises(
        InputError, match="hf-hub:someone/tiny cannot be fetched, and the cache lacks a copy: .*refused"
    ):
        models.load(NAME, cache=tmp_path / "empty")


def test_pickled_weights_and_other_names_are_found(hub, pushed, tmp_path):
    others = {name: content for name, content in pushed[0].items() if name != SAFE}
    hub.push("someone/pickled", others)
    assert models.load("hf-hub:someone/pickled", cache=tmp_path).used["weights"] == PICKLE
    del others[PICKLE]
    hub.push("someone/named", others | {"epoch_32.pt": pushed[0][PICKLE]})
    assert same(models.load("hf-hub:someone/named", cache=tmp_path))
    hub.push("someone/none", others)
    with pytest.raises(InputError, match="The repository someone/none has no weights"):
        models.load("hf-hub:someone/none", cache=tmp_path)
    hub.push("someone/several", others | {"a.pt": b"1", "b.pt": b"2"})
    with pytest.raises(InputError, match=r"someone/several has several weights files, a.pt, b.pt; name one"):
        models.load("hf-hub:someone/several", cache=tmp_path)


def test_a_repository_of_transformers_in_shards(hub, tmp_path):
    """One set of weights is fetched, not each of its forms."""
    text = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"vocab_size": 64, "max_position_embeddings": 16, "bos_token_id": 62, "eos_token_id": 63}
    vision = {"hidden_size": 48, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision |= {"image_size": 32, "patch_size": 8}
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=24)
    theirs = transformers.CLIPModel(config).eval()
    theirs.save_pretrained(tmp_path / "saved", max_shard_size="50KB")
    files = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    shards = [name for name in files if name.endswith(".safetensors")]
    assert len(shards) > 1
    hub.push("someone/theirs", files | {"pytorch_model.bin": b"the same weights once more"})
    loaded = models.load("hf-hub:someone/theirs", cache=tmp_path / "cache")
    assert len(fetched(hub, "/cdn/")) == len(shards)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = theirs.get_image_features(images)
        expected = getattr(expected, "pooler_output", expected)
        assert torch.allclose(loaded.model.encode_image(images), expected, atol=1e-4)


def test_a_published_tag_of_open_clip_as_it_is(hub, tmp_path):
    """Weights of the real size for a tag as open_clip has it: half precision, all zeros but the projection."""
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config("ViT-B-32"))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    weights = {name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}
    weights["visual.proj"] += 0.125
    hub.push("timm/vit_base_patch32_clip_224.laion400m_e32", {SAFE: save(weights)})
    loaded = models.load("ViT-B-32", "laion400m_e32", cache=tmp_path, towers="image")
    assert (loaded.model.visual.proj == 0.125).all()
    assert loaded.used["activation"] == "quick_gelu"  # as this tag was trained, unlike most of ViT-B-32
    with pytest.raises(InputError, match="'laion400m_e31' of ViT-B-32 cannot be fetched, .*no such repository"):
        models.load("ViT-B-32", "laion400m_e31", cache=tmp_path)


def test_a_tag_that_moved_gives_config_and_weights_of_one_commit(hub, pushed, tmp_path):
    hub.push("someone/tiny", pushed[0], "main", "v1")
    assert same(models.load(NAME, cache=tmp_path, revision="v1"))
    moved = hub.push("someone/tiny", pushed[1], "v1")
    assert same(models.load(NAME, cache=tmp_path, revision="v1"), seed=1)
    assert same(models.load(NAME, cache=tmp_path, revision=hub.commit))
    assert same(models.load(NAME, cache=tmp_path, revision=moved), seed=1)
    answer = hub.answer

    def answer_and_move(path, headers):
        """The tag moves once its config was asked for."""
        if "open_clip_config.json" in path:
            hub.repositories["someone/tiny"]["refs"]["main"] = moved
        return answer(path, headers)

    hub.answer = answer_and_move
    assert same(models.load(NAME, cache=tmp_path / "other"))
    with pytest.raises(
        InputError, match="tiny at revision v9 cannot be fetched, .*: its repository has no such revisi"
    ):
        models.load(NAME, cache=tmp_path, revision="v9")


@pytest.mark.parametrize("reset", [False, True])
def test_a_download_that_is_cut_off(hub, pushed, tmp_path, monkeypatch, reset):
    """The client resumes after an end that came early; after a reset it may start again."""
    half = len(pushed[0][SAFE]) // 2
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1024)  # what arrives whole is kept
    hub.faults = [Fault("GET /cdn/", cut=half, reset=reset)]
    loaded = models.load(NAME, cache=tmp_path)
    assert same(loaded)
    starts = fetched(hub, "/cdn/")
    assert len(starts) == 2
    assert reset or starts[1] > 0


def test_a_download_that_never_gets_through(hub, pushed, tmp_path):
    hub.faults = [Fault("GET /cdn/", times=99, cut=0)]
    with pytest.raises(InputError, match="The weights of hf-hub:someone/tiny .* cannot be fetched, and the cache"):
        models.load(NAME, cache=tmp_path)
    hub.faults.clear()
    assert same(models.load(NAME, cache=tmp_path))


def flipped(content):
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


def test_wrong_bytes_and_lengths_are_noticed(hub, pushed, tmp_path):
    hub.faults = [Fault("GET /cdn/", change=flipped)]
    sentence = rf"{SAFE} was damaged on its way from the hub, or later: its digest is .*Remove (\S+), and run again"
    with pytest.raises(InputError, match=sentence) as error:
        models.load(NAME, cache=tmp_path)
    with pytest.raises(InputError, match=sentence):  # offline, or with another revision, it is no better
        models.load(NAME, cache=tmp_path, revision=hub.commit)
    os.remove(str(error.value).split("Remove ")[1].split(", and run")[0])
    assert same(models.load(NAME, cache=tmp_path))
    for change in (lambda content: content[:-9], lambda content: content + b"more"):
        hub.faults = [Fault("GET /cdn/", times=9, change=change)]
        with pytest.raises(
            InputError, match="cannot be fetched, .*: what came has another length than the hub promised"
        ):
            models.load(NAME, cache=tmp_path / "other")
    config = pushed[0]["open_clip_config.json"]
    hub.faults = [Fault("GET .*open_clip_config.json", change=lambda content: content.replace(b"0.5", b"0.6"))]
    assert config != config.replace(b"0.5", b"0.6")
    with pytest.raises(InputError, match=r"open_clip_config.json was damaged on its way"):
        models.load(NAME, cache=tmp_path / "configs")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (
            Fault(".*", 99, status=403, headers={"X-Error-Code": "GatedRepo"}),
            "its repository is gated; accept its terms",
        ),
        (
            Fault(".*", 99, status=401, headers={"X-Error-Code": "GatedRepo"}),
            "its repository is gated; accept its terms",
        ),
        (
            Fault(".*", 99, status=401),
            "the hub has no such repository, or it is private; check the name, or set HF_TOKEN",
        ),
        (Fault(".*", 99, status=403), "the hub answers 403 Forbidden"),
        (Fault(".*", 99, status=503), "the hub answers 503 Service Unavailable"),
        (Fault(".*", 99, page=True), "the answer is not one of a hub, perhaps the page of a proxy"),
        (Fault("[A-Z]+ .*/resolve/", 99, page=True), "the answer is not one of a hub, perhaps the page of a proxy"),
        (Fault("GET /cdn/", 99, page=True), "what came has another length than the hub promised"),
        (Fault("GET /cdn/", 99, status=403), "the hub answers 403 Forbidden"),
    ],
)
def test_refusals_are_one_sentence_and_the_cache_is_used(hub, fault, sentence, tmp_path):
    hub.faults = [fault]
    with pytest.raises(InputError, match=f"cannot be fetched, and the cache lacks a copy: {sentence}") as error:
        models.load(NAME, cache=tmp_path)
    assert "\n" not in str(error.value)
    times, fault.times = fault.times, 0
    models.load(NAME, cache=tmp_path)
    fault.times = times
    assert same(models.load(NAME, cache=tmp_path))


def test_the_environment_of_the_hub(hub, pushed, tmp_path):
    """HF_ENDPOINT and HF_HOME are heeded; HF_HUB_OFFLINE with what was fetched, and with an empty cache."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}

    def load(*caches, **more):
        """Output of a process that loads the model from the default cache (None) or others."""
        code = "from clipspectra.towers import models; from clipspectra import InputError\n"
        code += f"for cache in {caches!r}:\n"
        code += f"    try: print(models.load({NAME!r}, towers='image', cache=cache).sha256)\n"
        code += "    except InputError as error: print(error)\n"
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, env=environment | more, capture_output=True, text=True, check=True)
        return result.stdout.splitlines()

    digest = hashlib.sha256(pushed[0][SAFE]).hexdigest()
    assert load(None) == [digest]
    hub.requests.clear()
    sentence = "cannot be fetched, and the cache lacks a copy: HF_HUB_OFFLINE is set; run once without it."
    assert load(None, str(tmp_path / "empty"), HF_HUB_OFFLINE="1") == [digest, f"The model {NAME} {sentence}"]
    assert not hub.requests


def test_texts_of_other_weights_are_refused(tmp_path):
    """A tag that moves while a study runs: what was embedded since does not go with what was stored before."""
    stored = stored_small(tmp_path).stored
    save_arrays(tmp_path / "texts.safetensors", {"features": np.ones((2, 24))}, {"sha256": "b" * 64})
    with pytest.raises(InputError, match=r"texts.safetensors is of other weights than .*a tag on the hub has moved"):
        check_weights([tmp_path / "texts.safetensors"], stored.sha256)
    save_arrays(tmp_path / "basis.safetensors", load_arrays(stored.basis_path)[0], {"sha256": "b" * 64})
    shards = [tmp_path / "0.safetensors", tmp_path / "1.safetensors"]
    arrays, metadata = load_arrays(shards[0])
    save_arrays(shards[0], arrays, metadata | {"sha256": "a" * 64})
    with pytest.raises(InputError, match="0.safetensors is of other weights than"):
        StoredActivations(shards, tmp_path / "basis.safetensors", tmp_path / "images.csv")
