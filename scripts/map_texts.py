"""Patch maps of the evidence for given texts in one picture, by layer and head."""

from clipspectra.arrays import save_arrays, versions
from clipspectra.jobs import job, model_arguments

if __name__ == "__main__":
    with job(snakemake.log[0]):
        import torch

        from clipspectra.data.geometry import model_view
        from clipspectra.data.pictures import open_rgb
        from clipspectra.data.texts import embed_texts
        from clipspectra.segmentation.maps import patch_evidence
        from clipspectra.towers import models
        from clipspectra.towers.families import adapt

        params, path = snakemake.params, snakemake.input.image
        loaded = models.load(**model_arguments(snakemake), device=snakemake.resources.device)
        tower, texts = adapt(loaded.model.visual), [*params.texts, *([params.minus] if params.minus else [])]
        features = embed_texts(loaded, texts, bar=False).to(loaded.device)
        if params.minus:
            directions = features[:-1] - features[-1]
        else:
            directions = features - (features.mean(0) if len(texts) > 1 else 0)
        image = loaded.preprocess(open_rgb(path))[None].to(loaded.device)
        text_index = torch.arange(len(directions), device=loaded.device)
        evidence, _ = patch_evidence(
            loaded.model,
            image.expand(len(directions), -1, -1, -1),
            directions.T.contiguous(),
            classes=text_index,
            minus_mean=False,
            by_head=True,
            tower=tower,
        )
        arrays = {"evidence": evidence.unflatten(-1, tower.grid).float().cpu().numpy()}
        arrays["picture"] = model_view(path, loaded.preprocess)
        metadata = {"texts": params.texts, "minus": params.minus or "", "sha256": loaded.sha256 or ""}
        metadata |= {"architecture": params.model["architecture"], "code": params.code}
        save_arrays(snakemake.output[0], arrays, metadata | versions("torch", "open_clip_torch"))
