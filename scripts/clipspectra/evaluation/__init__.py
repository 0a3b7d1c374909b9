"""Whether explanations are right, and enough.

accuracy: zero-shot accuracy with parts held at their mean, and what moves a component; recovery: accuracy
with heads replaced by their explanations; effects: what each head and MLP does alone; labels: whether texts
name what moves a component; stability: what stays over seeds and halves of the text pool; transfer and
kept_names: what components of one dataset give on another; ranking and text_retrieval: how well texts and
images find each other.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "accuracy": ["ablations", "eta_squared", "zero_shot"],
        "recovery": ["recovered_accuracy"],
        "effects": ["direct_effects"],
        "labels": ["hit_rates"],
        "ranking": ["average_precision"],
        "text_retrieval": ["text_retrieval"],
        "stability": ["compare_components"],
        "transfer": ["with_components"],
        "kept_names": ["names_kept"],
    },
)
