"""The explorer: stored results as the data files of a static page that opens from disk.

docs/explorer.md holds the layout of the files. Their version is `parts.VERSION`.
"""
