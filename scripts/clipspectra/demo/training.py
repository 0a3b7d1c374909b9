"""Training of the demo's small CLIP models, from seed, on the demo world's training images.

Contrastive training with two additions, both needed at this size: a caption's target is shared evenly by all
images that it is true of (and the reverse), and auxiliary linear classifiers of the five factors guide the image
tower through the first three quarters of the steps.
"""

import json
import math

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from clipspectra.demo.world import FACTORS, NOUNS, PREFIXES, VALUES, World, caption

EMPTY = 0.05  # share of images without a digit
COUNTS = [len(values) for values in VALUES.values()]
# Probability of each factor in a caption of one factor, and in a longer caption; highest for the hard factors.
ALONE = np.array([0.4, 0.1, 0.1, 0.15, 0.25])
AMONG = np.array([0.8, 0.4, 0.4, 0.5, 0.6])


def vocabulary(tokenizer):
    """Sorted ids of all tokens in the demo's language, with padding, start and end of text."""
    words = [*PREFIXES, "a on", *NOUNS]
    words += [phrase for values in FACTORS.values() for phrases in values.values() for phrase in phrases]
    ids = {0, tokenizer.sot_token_id, tokenizer.eot_token_id}
    return sorted(ids.union(*(tokenizer.encode(word) for word in words)))


class Tokens:
    """Captions to rows of the compact token embedding, in the order of ids: open_clip pools at the largest."""

    def __init__(self, context_length):
        self.tokenizer = SimpleTokenizer(context_length=context_length)
        self.ids = vocabulary(self.tokenizer)
        self._row = np.zeros(self.tokenizer.vocab_size, np.int64)
        self._row[self.ids] = np.arange(len(self.ids))

    def __call__(self, captions):
        return torch.from_numpy(self._row[self.tokenizer(captions).numpy()])


def normalise(pictures):
    """uint8 [image, height, width, 3] -> float [image, 3, height, width], as open_clip's preprocessing does."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(stat)[:, None, None] for stat in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    return (pixels - mean) / std


class Batches(Dataset):
    """Training batches; batch i depends on (seed, i) only, not on the number of workers."""

    def __init__(self, tokens, *, seed, steps, batch, agreement):
        self.world, self.tokens = World("fitting"), tokens
        self.seed, self.steps, self.batch, self.agreement = seed, steps, batch, agreement

    def __len__(self):
        return self.steps

    def __getitem__(self, step):
        rng = np.random.default_rng([self.seed, step])
        factors = self.world.draw_factors(rng, self.batch, agreement=self.agreement, empty=EMPTY)
        pictures = np.stack([self.world.render(row, rng)[0] for row in factors])
        mentioned = np.where(self._draw_mentions(factors, rng), factors, -1)
        captions = [
            caption(
                row,
                prefix=PREFIXES[rng.integers(len(PREFIXES))],
                phrasing=rng.integers(0, 2, len(COUNTS)),
                noun=rng.integers(2),
                place_first=rng.random() < 0.5,
            )
            for row in mentioned
        ]
        # [image, caption]: whether the image has every factor value that the caption mentions
        is_true = ((mentioned[None] < 0) | (mentioned[None] == factors[:, None])).all(-1)
        return normalise(pictures), self.tokens(captions), torch.from_numpy(factors), torch.from_numpy(is_true)

    def _draw_mentions(self, factors, rng):
        """Which factors each caption mentions, bool [image, factor]; in half of the batches only one or two factors."""
        count = len(COUNTS)
        if rng.random() < 0.5:
            focus = np.zeros(count, bool)
            focus[rng.choice(count, p=ALONE)] = True
            if rng.random() < 0.35:
                focus[rng.integers(count)] = True
            mentions = np.tile(focus, (len(factors), 1))
        else:
            kind = rng.random((len(factors), 1))
            alone = np.eye(count, dtype=bool)[rng.choice(count, len(factors), p=ALONE)]
            among = rng.random(factors.shape) < AMONG
            mentions = np.where(kind < 0.35, alone, np.where(kind < 0.8, among, True))
            mentions |= alone & ~mentions.any(1, keepdims=True)
        mentions[factors[:, 0] < 0] = np.arange(count) == list(VALUES).index("texture")
        return mentions


def new_model(config, tokens, seed):
    """An open_clip CLIP with a compact token embedding and small, position-aware initial embeddings."""
    torch.manual_seed(seed)
    text = CLIPTextCfg(**{**config["text_cfg"], "vocab_size": len(tokens.ids)})
    vision = CLIPVisionCfg(**config["vision_cfg"])
    model = CLIP(config["embed_dim"], vision, text)
    with torch.no_grad():
        model.token_embedding.weight.normal_(0, 0.1)
        model.positional_embedding.normal_(0, 0.05)
        model.visual.positional_embedding[1:] = 0.4 * _waves(vision.image_size // vision.patch_size, vision.width)
        model.logit_scale.fill_(math.log(10))
    return model


def _waves(side, width):
    """Sines and cosines of each patch's column and row, [pos, d_model]."""
    row, column = torch.meshgrid(torch.arange(side).float(), torch.arange(side).float(), indexing="ij")
    quarter = width // 4
    frequency = math.pi * 2 ** (torch.arange(quarter) / quarter * math.log2(side)) / side
    angles = [coordinate.reshape(-1, 1) * frequency for coordinate in (column, row)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)


@torch.no_grad()
def accuracy(model, tokens, split, *, images=1500, seed=99):
    """Zero-shot accuracy of each factor, in per cent, on newly drawn images of a split."""
    world, rng = World(split), np.random.default_rng([seed, len(split)])
    factors = world.draw_factors(rng, images)
    pictures = normalise(np.stack([world.render(row, rng)[0] for row in factors]))
    model.eval()
    embedding = torch.cat([model.encode_image(batch, normalize=True) for batch in pictures.split(250)])
    result = {}
    for index, (factor, values) in enumerate(VALUES.items()):
        classes = []
        for value in range(len(values)):
            row = [-1] * len(COUNTS)
            row[index] = value
            prompts = [
                caption(row, prefix=prefix, phrasing=(choice,) * 5, noun=choice)
                for prefix in PREFIXES[:4]
                for choice in (0, 1)
            ]
            classes.append(F.normalize(model.encode_text(tokens(prompts), normalize=True).mean(0), dim=0))
        prediction = (embedding @ torch.stack(classes).T).argmax(1).numpy()
        result[factor] = round(100 * float((prediction == factors[:, index]).mean()), 2)
    model.train()
    return result


def training_loss(model, classifiers, batch, guidance):
    """Contrastive loss with shared targets, plus `guidance` times the factor classifiers' loss."""
    pixels, text, factors, is_true = batch
    image = model.encode_image(pixels, normalize=True)
    logits = model.logit_scale.exp().clamp(max=100) * image @ model.encode_text(text, normalize=True).T
    target = is_true.float()
    loss = -0.5 * (target / target.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    loss = loss - 0.5 * (target / target.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    if guidance > 0:
        scores = classifiers(2 * image.shape[1] ** 0.5 * image).split(COUNTS, dim=1)
        for index, score in enumerate(scores):
            loss = loss + guidance * F.cross_entropy(score, factors[:, index], ignore_index=-1)
    return loss


def train(config, *, seed, steps, batch, learning_rate, start=None, agreement=None, report_every=1000):
    """Train one demo model.

    config: open_clip model config (dict). start: path of a checkpoint to continue from. agreement: see
    World.draw_factors. Returns (state dict with the full token embedding, log as a list of dicts). The log's
    accuracies are on validation handwriting; only its last row is on test images, after training.
    """
    tokens = Tokens(config["text_cfg"]["context_length"])
    model = new_model(config, tokens, seed)
    if start is not None:
        model.load_state_dict(_compact(load_file(start), tokens.ids))
    classifiers = torch.nn.Linear(config["embed_dim"], sum(COUNTS))
    decayed = [p for name, p in model.named_parameters() if p.ndim >= 2 and "embedding" not in name]
    undecayed = [p for name, p in model.named_parameters() if p.ndim < 2 or "embedding" in name]
    groups = [
        {"params": decayed, "weight_decay": 0.05},
        {"params": [*undecayed, *classifiers.parameters()], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)
    batches = Batches(tokens, seed=seed, steps=steps, batch=batch, agreement=agreement)
    loader = DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=8)
    log, smooth = [], None
    progress = tqdm(loader, desc="training", unit="step", mininterval=1)
    for step, drawn in enumerate(progress):
        done = step / steps
        for group in optimiser.param_groups:
            group["lr"] = (
                learning_rate * min(1, (step + 1) / 100) * (0.98 * 0.5 * (1 + math.cos(math.pi * done)) + 0.02)
            )
        loss = training_loss(model, classifiers, drawn, guidance=min(1, max(0, (0.75 - done) / 0.35)))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        progress.set_postfix(loss=f"{smooth:.3f}", refresh=False)
        if (step + 1) % report_every == 0 or step + 1 == steps:
            row = {"step": step + 1, "images": (step + 1) * batch, "loss": round(smooth, 4), "split": "validation"}
            log.append(row | accuracy(model, tokens, "validation", images=500))
            tqdm.write(json.dumps(log[-1]))
    state = {name: value.half() for name, value in model.state_dict().items()}
    model.load_state_dict(state)  # evaluate what is stored
    log.append({**log[-1], "split": "test"} | accuracy(model, tokens, "test"))
    tqdm.write(json.dumps(log[-1]))
    return _expand(state, tokens.ids, config["text_cfg"]["vocab_size"]), log


def _expand(state, ids, vocab_size):
    """The state with an embedding row for every token of open_clip's vocabulary; unused rows are zero."""
    embedding = state["token_embedding.weight"]
    full = embedding.new_zeros(vocab_size, embedding.shape[1])
    full[ids] = embedding
    return {**state, "token_embedding.weight": full}


def _compact(state, ids):
    return {**state, "token_embedding.weight": state["token_embedding.weight"][ids]}
