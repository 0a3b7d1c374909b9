"""The figures, each from one small table; no figure computes a result, none imports torch.

drawing is what all share; heads, concepts and maps draw the figures of their chapters.
"""
