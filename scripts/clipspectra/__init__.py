"""What the attention heads of CLIP's image encoder do: exact contributions, their spectra, their names.

The folders are the chapters, in the order of the data; imports run one way, from each to those above it:

towers         any image tower of open_clip, seen one way
data           images, masks and texts in
contributions  what every head and MLP adds to the embedding, exactly
explanations   heads in words: components, TextSpan, sparse sums
evaluation     whether the words are right, and enough
segmentation   where in the image the evidence is
concepts       from texts to components, and edits of what was stored
editing        the same edits in the running model, and in its weights
figures        the figures, from small tables
paper          what was run, its findings, the typeset paper and its archive
explorer       stored results as the files of a page to look around in
results        stored results opened by names, for notebooks
demo           synthetic images with known factors, and models trained on them

Each folder offers its entry points, and imports them when they are first used.

Words of the axes, used in every shape comment:

image       one row of a batch or of a dataset
layer       transformer block, 0 first
head        attention head of a layer, 0 first
pos         token; with a class token pos 0 is that, the rest are patches in row order
source      token that a head reads, target: token that it writes to
d_model     width of the image tower
d_head      width of one head, d_model / head
d_embed     width of the joint space of images and texts
coordinate  number of a head's output in reduced coordinates, scalar: number that all heads of an image share
group       way in which the readout reads its tokens: one, or one for each head of an attentional pool
text        one entry of a text pool
component   principal component of a head (rank: how many there are), pole: either end of it
unit        what is explained or edited: a head, a component, all MLPs
part        what adds up to the embedding: heads of a layer, an MLP, the token embedding x_0
step        direction that a text brings to an explanation, budget: number of texts allowed

Nothing here knows of Snakemake.
"""

import warnings
from importlib.metadata import distributions
from pathlib import Path


class InputError(ValueError):
    """Something the user gave is wrong; the message names it and says what to do."""


def _warn_of_a_second_copy():
    """Warn if another clipspectra is installed: which of the two is imported depends on the order of Python's path."""
    for distribution in distributions(name="clipspectra"):
        installed = Path(distribution.locate_file("clipspectra/__init__.py"))
        if installed.exists() and not installed.samefile(__file__):
            warnings.warn(
                f"clipspectra is imported from {Path(__file__).parent}, but another copy is installed in "
                f"{installed.parent}; take one of them off the path (pip uninstall clipspectra, or no scripts folder "
                "in PYTHONPATH).",
                stacklevel=3,
            )


_warn_of_a_second_copy()
