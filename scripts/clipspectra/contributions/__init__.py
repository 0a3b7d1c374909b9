"""What every head and MLP adds to the normalised image embedding, exactly.

exact holds the formula, the reduced coordinates and the basis of each head; extraction streams many images to
disk with the proof that all contributions add up to the embedding; stored reads them back; moments are the
mean and covariance that everything after needs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "exact": ["Activations", "Contributions", "activations", "contributions", "head_basis"],
        "moments": ["Moments", "Reduced"],
        "stored": ["StoredActivations"],
    },
)
