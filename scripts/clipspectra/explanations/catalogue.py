"""The methods to explain a head, their controls, and what each of them is given."""

METHODS = {
    "components": "principal components, each by the text that scores highest on it",
    "textspan": "greedy TextSpan, texts and data centred",
    "textspan_paper": "greedy TextSpan as in the paper's code, not centred",
    "sparse": "principal components, each as a weighted sum of a few texts (NNOMP)",
    "sparse_coherent": "the same, preferring texts that are alike (COMP)",
    "weights": "components of the head's value-output map instead of its data, named like components",
}
# What a name stands for, in the small print of figures.
NAMES = {"fires_on": "what a component fires on", "says": "what a component says"}
CONTROLS = {
    "components_without_text": "principal components as they are: the ceiling at each budget",
    "texts_at_random": "texts drawn from the pool at random",
    "random_texts": "components named from a pool of random directions",
    "random_texts_sparse": "sparse, from a pool of random directions",
    "random_directions": "random directions of the head's own space: the floor",
}
# Controls that are a method with random vectors in place of the pool's texts, the same for all heads.
RANDOM_POOLS = {"random_texts": "components", "random_texts_sparse": "sparse"}
DRAWS = dict.fromkeys(CONTROLS, 20) | {"components_without_text": 1}  # of each control; a method needs one
# What a method is given of a head, for tables that compare methods.
GIVEN = dict.fromkeys(METHODS, "fit images, texts") | {
    "weights": "weights, texts; mean of the fit images",
    "components_without_text": "fit images",
    "texts_at_random": "span of the fit images, texts at random",
    "random_texts": "fit images, random vectors as texts",
    "random_texts_sparse": "fit images, random vectors as texts",
    "random_directions": "span of the fit images",
}
