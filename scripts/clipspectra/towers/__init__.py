"""Any image tower of open_clip, seen one way: layers write into a residual stream, a readout reads it.

model_files, checkpoints, layouts, architectures, transformers_configs and models load a model exactly, or
refuse it. families says which module of a tower is which part of a Tower (tower); hooks watch a forward pass,
leaving nothing behind; devices holds what depends on the machine. A new kind of tower is one function in
families.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "models": ["LoadedModel", "load"],
        "families": ["Unsupported", "adapt"],
        "tower": ["Tower"],
        "hooks": ["observe"],
    },
)
