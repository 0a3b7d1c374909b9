"""Embeddings of a text pool, stored with the texts."""

from clipspectra.arrays import save_arrays, versions
from clipspectra.jobs import job, model_arguments

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        from clipspectra.data import pools, texts
        from clipspectra.demo.world import text_pool
        from clipspectra.towers import models

        if "words" in snakemake.input.keys():
            pool, dropped = pools.generated_pool(snakemake.input.words)
        elif "pool" in snakemake.input.keys():
            pool, dropped = pools.read_pool(snakemake.input.pool, snakemake.params.column)
        else:
            pool, dropped = pools.clean_pool(text_pool(), "of the demo")
        loaded = models.load(**model_arguments(snakemake), device=snakemake.config["device"], towers="text")
        pool, same_tokens = texts.distinct_texts(loaded, pool)
        dropped["double"] += same_tokens
        log(f"{len(pool)} texts; dropped {dropped['blank']} blank lines and {dropped['double']} doubles")
        cut = texts.too_long(loaded, pool)
        log(f"{len(cut)} texts are longer than the context of {loaded.tokenizer.context_length} tokens", *cut, sep="\n")
        features = texts.embed_texts(loaded, pool).numpy()
        metadata = {
            "model": snakemake.wildcards.model,
            "texts": pool,
            "pool": snakemake.wildcards.texts,
            "dropped": dropped,
            "too_long": cut,
        }
        metadata |= {"sha256": loaded.sha256 or "", "code": snakemake.params.code}
        save_arrays(snakemake.output[0], {"features": features}, metadata | versions("torch", "open_clip_torch"))
