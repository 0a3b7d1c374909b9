"""A model's weights with an intervention folded into them, and how far that is from the edit itself."""

import json

from clipspectra.arrays import atomic_write, load_table, save_arrays, versions
from clipspectra.concepts.references import load_edit
from clipspectra.jobs import job, model_arguments

if __name__ == "__main__":
    with job(snakemake.log[0], "interventions.{intervention}, {model}".format(**snakemake.wildcards)) as log:
        from clipspectra.editing.folding import folded_weights
        from clipspectra.editing.outcomes import gap_sentences
        from clipspectra.towers import models

        outputs, source = snakemake.output, dict(snakemake.wildcards)
        loaded = models.load(**model_arguments(snakemake))
        updates = folded_weights(loaded.model, *load_edit(snakemake.input.edit))
        tensors = loaded.model.state_dict() | updates
        source |= {"sha256": loaded.sha256 or "", "changed": sorted(updates), "code": snakemake.params.code}
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        save_arrays(outputs.weights, arrays, {"format": "pt"} | source | versions("torch", "open_clip_torch"))
        with atomic_write(outputs.config) as part:
            part.write_text(json.dumps(loaded.config, indent=2) + "\n", encoding="utf-8")
        for sentence in gap_sentences(load_table(snakemake.input.outcome, ["cosine", "difference"])):
            log(sentence)
            print(sentence, flush=True)
