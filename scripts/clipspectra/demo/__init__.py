"""The demo's world, whose truth is known: real handwriting on real textures, and small CLIPs trained on it.

world draws images with known factors and captions; training trains the models from seed.
"""
