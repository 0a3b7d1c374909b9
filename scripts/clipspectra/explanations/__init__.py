"""A head in words, several ways.

spectral: principal components named with texts (its formulas: principal_components, explain_components).
textspan: TextSpan on the covariance, with the deflation of Gandelsman et al., Algorithm 1. sparse: components
as weighted sums of a few texts. methods brings all of them, and their controls, to the form of head; exports
writes the reference implementation's JSON lines.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "spectral": ["ComponentExplanation", "explain_components", "principal_components"],
        "textspan": ["TextSpan", "text_span"],
        "sparse": ["SparseCode", "explain_sparsely"],
        "methods": ["explain"],
        "head": ["HeadExplanation", "load_explanations"],
    },
)
