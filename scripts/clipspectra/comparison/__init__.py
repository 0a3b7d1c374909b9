"""Two models side by side, over the same images: which heads still do the same, and which do something else.

similarity: how alike all heads of the one are to all heads of the other (CKA); matching: the components of two heads
matched one to one by their scores; changes: what became of their names, factors and effects, as tables.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "similarity": ["HeadRows", "Similarity", "check_images", "compare_heads"],
        "matching": ["Match", "match_components"],
        "changes": ["ComparedModel", "pair_changes", "space_cosine"],
    },
)
