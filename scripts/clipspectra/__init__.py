"""What the attention heads of CLIP's image encoder do: exact contributions, their spectra, their names.

Words of the axes, used in every shape comment:

image     one row of a batch or of a dataset
layer     transformer block, 0 first
head      attention head of a layer, 0 first
pos       token; pos 0 is the class token, the rest are patches in row order
d_model   width of the image tower
d_head    width of one head, d_model / head
d_embed   width of the joint space of images and texts
text      one entry of a text pool
rank      one principal component of a head

Read in the order of the data: datasets, models, towers, families, hooks, contributions, extraction, activations,
spectral, textspan, sparse, methods, evaluate, recovery, effects, labels, stability, retrieve, interventions, concepts,
outcomes, geometry, segment, rivals, plots, map_plots, concept_plots; beside them downloads, archives, texts, arrays,
jobs and devices.
Nothing here knows of Snakemake.
"""


class InputError(ValueError):
    """Something the user gave is wrong; the message names it and says what to do."""
