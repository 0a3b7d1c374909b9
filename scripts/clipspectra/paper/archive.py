"""What a submission needs in one zip file: always the same bytes for the same files, with a list of their digests."""

import hashlib
import zipfile

from clipspectra.arrays import atomic_write

SUMS = "SHA256SUMS"
README = """\
# Results of clipspectra {version}{commit}

| | |
|---|---|
| `paper.pdf`, `paper/` | the paper and its source |
| `tables/`, `queries/` | the tables, as CSV and for LaTeX |
| `figures/` | the figures for print (`.pdf`) and for the screen (`.png`), and the words of their captions (`.json`) |
| `study.json` | what was run: models, datasets, seeds, versions, with digests of weights and images |
| `config/` | the config, as it was given |
| `requirements.txt` | the exact versions of all packages |
| `{sums}` | the sha256 of every file here: `sha256sum --check {sums}` |

To make all of it again, clone the repository of clipspectra {version}{commit}, and make an environment with the
packages of `requirements.txt`. Copy `config/` and `paper/` into the clone, put the files that the config names where it
says, and run there:

```bash
snakemake --cores all archive --configfile {configs}
```

The same model files, images and seeds give the same tables and figures on the same machine; other processors round
differently in the last digits. `study.json` has a digest for each dataset: the sha256 of its images' sorted sha256.
"""


def pack(output, files, study, configs):
    """Write a zip file of {name in it: path}, with a README and the digests of all files; without dates.

    study: the description of the study; configs: names, in the zip file, of the config's files in their order
    """
    commit = f", commit {study['commit']}" if study["commit"] else ""
    readme = README.format(version=study["version"], commit=commit, sums=SUMS, configs=" ".join(configs))
    digests = {"README.md": hashlib.sha256(readme.encode()).hexdigest()}
    with atomic_write(output) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        _add(archive, "README.md", readme.encode())
        for name, path in sorted(files.items()):
            with open(path, "rb") as file:
                content = file.read()
            digests[name] = hashlib.sha256(content).hexdigest()
            _add(archive, name, content)
        lines = [f"{digest}  {name}\n" for name, digest in sorted(digests.items())]
        _add(archive, SUMS, "".join(lines).encode())


def _add(archive, name, content):
    """Add a file with the date and the permissions that all files have."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)
