"""The archive of a submission: config, tables, figures, paper, versions and digests, and how to make it all again."""

import json
import tempfile
from pathlib import Path

import yaml

from clipspectra.jobs import job
from clipspectra.paper.archive import pack

if __name__ == "__main__":
    with job(snakemake.log[0]), tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".yaml") as overrides:
        inputs, params = snakemake.input, snakemake.params
        results = Path(inputs.study).parent  # in a bucket's copies, too
        files = {
            Path(path).relative_to(results).as_posix(): path for path in [inputs.paper, inputs.study, *inputs.results]
        }
        files |= {f"paper/{Path(path).relative_to(Path(inputs.main).parent)}": path for path in inputs.source}
        files["requirements.txt"] = inputs.lock
        configs = {f"config/{number}-{Path(path).name}": path for number, path in enumerate(inputs.configs, 1)}
        if params.overrides:
            yaml.safe_dump(params.overrides, overrides, allow_unicode=True, sort_keys=False)
            overrides.flush()
            configs[f"config/{len(configs) + 1}-command-line.yaml"] = overrides.name
        study = json.loads(Path(inputs.study).read_text(encoding="utf-8"))
        pack(snakemake.output[0], files | configs, study, list(configs))
