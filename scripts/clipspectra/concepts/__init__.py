"""From a text or picture to the components that carry it, and what happens when they are edited.

retrieval: queries traced to components, exact search along them; neighbours of a picture; carriers: the
components of a concept, found without labels; interventions: edits as linear maps of what was stored;
references: what they refer to in one model, and their file; outcomes and tables: their effect on the
zero-shot accuracy; same_value: how well images of the same value are found.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "retrieval": ["Components", "Trace", "trace"],
        "carriers": ["component_table", "concept_carriers", "concept_directions", "concept_shares", "units_of"],
        "outcomes": ["group_changes"],
        "same_value": ["SameValue", "by_cosine", "by_scores"],
        "interventions": ["Edits", "Intervention"],
        "references": ["Reference", "load_edit", "save_edit"],
    },
)
