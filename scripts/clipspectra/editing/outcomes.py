"""What the same intervention gives in stored arrays, in the running model, and folded into its weights."""

from copy import deepcopy

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize

from clipspectra.concepts.tables import group_columns
from clipspectra.data.pictures import ImageFiles, batches, filled
from clipspectra.data.store import picture_ids
from clipspectra.editing.live import edited
from clipspectra.jobs import progress
from clipspectra.towers.devices import explain_out_of_memory

SETTINGS = {"stored": "edited, stored arrays", "live": "edited, running model", "folded": "edited, folded weights"}


@torch.no_grad()
def run_edited(loaded, intervention, reference, updates, table, root, *, batch_size, workers):
    """{"live" and, with updates, "folded": normalised embeddings of the images of a table, float32 [image, d_embed]}.

    loaded: LoadedModel; intervention, reference: of the live edit; updates: folded_weights, or None
    table: with columns image, paths below the folder `root`, and image_sha256
    """
    files = ImageFiles(table, root, loaded.preprocess, ids=picture_ids(table["image_sha256"]))
    models = {"live": loaded.model}
    if updates:
        models["folded"] = deepcopy(loaded.model)
        models["folded"].load_state_dict(updates, strict=False)
    chunks = {name: [] for name in models}
    with (
        edited(loaded.model, intervention, reference),
        explain_out_of_memory(batch_size),
        progress(None, "edited model", total=len(table), unit="image") as bar,
    ):
        for rows, (images,) in batches(files, batch_size, workers=workers, device=loaded.device):
            images = images[filled(len(rows), batch_size)]
            for name, model in models.items():
                with loaded.autocast():
                    embedding = model.encode_image(images)
                chunks[name].append(normalize(embedding[: len(rows)].float()).cpu().numpy())
            bar.update(len(rows))
    return {name: np.concatenate(parts) for name, parts in chunks.items()}


def compare(embeddings, classifier, labels, groups, not_folded=""):
    """One row for each setting and group of images: accuracy, its change, and how far embeddings are from the edit.

    embeddings: {"as it is", "stored", "live", "folded": normalised [image, d_embed]}, "stored" being the edit
    classifier: [d_embed, class]; labels: index of the correct class [image]; groups: {group: bool [image]}
    not_folded: the reason why there are no folded embeddings, in one row with nothing else
    cosine: with the edit's embeddings, mean over images; difference: from them, the largest of any dimension
    """
    correct = {name: (embedding @ classifier).argmax(1) == labels for name, embedding in embeddings.items()}
    rows, edit = [], embeddings["stored"]
    for name, embedding in embeddings.items():
        cosines, differences = (embedding * edit).sum(1), np.abs(embedding - edit).max(1)
        columns = group_columns(correct[name], correct["as it is"], groups)
        for group, scores in columns.items():
            row = {"setting": SETTINGS.get(name, name), "group": group} | scores
            if name == "as it is":
                row |= {key: np.nan for key in scores if key.startswith(("change", "p"))}
            inside = groups.get(group)  # the worst group is another one in each setting
            gap = (np.nan, np.nan) if inside is None else (cosines[inside].mean(), differences[inside].max())
            rows.append(row | dict(zip(("cosine", "difference"), gap)))
    if not_folded:
        rows.append({"setting": SETTINGS["folded"], "group": "all", "images": len(labels)})
    return pd.DataFrame(rows).assign(not_folded=lambda table: np.where(table["accuracy"].isna(), not_folded, ""))


def gap_sentences(table):
    """How far a fold is from the edit, in sentences, from a table of `compare` with its source in front."""
    of_all, worst = (table[table["group"] == group].set_index("setting") for group in ("all", "worst"))
    folded, about = SETTINGS["folded"], table.iloc[0]
    cosines = [of_all.loc[setting, "cosine"] for setting in (folded, "as it is")]
    yield (
        f"Folded weights are not the edit: on {about['dataset']}, seed {about['seed']}, the cosine of their embeddings "
        + ("with the edit's is {:.4f}; that of the model as it is, {:.4f}.".format(*cosines))
    )
    for name, rows in (("all", of_all), ("the worst group", worst)):
        if len(rows):
            accuracies = (f"{rows.loc[setting, 'accuracy']:.1f} % {text}" for setting, text in _SAID.items())
            yield f"Accuracy of {name}: {', '.join(accuracies)}."


_SAID = {"as it is": "as it is", SETTINGS["stored"]: "edited", SETTINGS["folded"]: "folded"}
