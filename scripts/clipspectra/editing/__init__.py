"""Interventions in the model itself, instead of in what was stored of it.

live: an edited model for any images, exactly the edit of stored arrays, gone with its `with` block; folding: the same
edit in the model's weights, as far as weights can hold it; outcomes: what stored, live and folded edits give on the
same images.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "live": ["edited"],
        "folding": ["folded_weights"],
    },
)
