"""Where in the image the evidence for a class is.

maps: patch maps from the decomposition by source token; scoring: their scores against masks; baselines: other
methods on the same weights and images; images and units: what the rules compute of many images, by method and
by head.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "maps": ["patch_evidence", "patch_maps", "text_evidence"],
        "scoring": ["Scores", "scores"],
        "baselines": ["BASELINES"],
    },
)
