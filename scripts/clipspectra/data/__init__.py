"""Images, masks and texts in: from the user's folders, tables and tar files, from published archives, from the web.

datasets (a dataset is its manifest), choosing (what a seed uses of it), pictures (decoding, batches), geometry (what a
model sees of a picture), pools (lists of texts), texts (embeddings and prompts), archives and downloads; tars (files
read in place in tar files), tar_names and webdataset (such a dataset's manifest); own_tables, strict_yaml and files
read what people write by hand.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "choosing": ["choose_rows"],
        "datasets": ["read_manifest"],
        "pictures": ["open_mask", "open_rgb"],
        "pools": ["read_pool"],
        "texts": ["embed_texts", "zero_shot_classifier"],
    },
)
