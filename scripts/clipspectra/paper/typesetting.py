"""The typeset paper: Typst compiles its source, which reads tables, figures and the description of the study itself."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import matplotlib
import typst

from clipspectra import InputError
from clipspectra.arrays import atomic_write

# The figures' font, which Typst does not bring; others come from the system, for texts in other scripts.
FONTS = Path(matplotlib.get_data_path(), "fonts", "ttf")

LIBRARY = ("paper/look.typ", "paper/results.typ")  # an error in them comes from where they are used


def typeset(source, results, output):
    """Compile a Typst file to a PDF, the same bytes each time. Returns Typst's warnings.

    source: the file; it and the other files of its folder read the folder `results` as /results
    Raises InputError with Typst's message, the file and the line if the source has an error.
    """
    with tempfile.TemporaryDirectory() as root:
        folder = shutil.copytree(Path(source).parent, Path(root, "paper"))
        os.symlink(os.path.abspath(results), Path(root, "results"), target_is_directory=True)
        try:
            pages, warnings = typst.compile_with_warnings(
                str(folder / Path(source).name), root=root, font_paths=[str(FONTS)], format="pdf"
            )
        except typst.TypstError as error:
            raise InputError(error_sentence(error).replace(f"{root}/", "")) from error
    with atomic_write(output) as part:
        part.write_bytes(pages)
    return [warning.message for warning in warnings]


def error_sentence(error):
    """What Typst says of an error in one sentence, with the file and line where the source has it."""
    message = error.message.removeprefix("panicked with: ")
    places = re.findall(r"(paper/[^\s:]+):(\d+)", error.diagnostic)  # the place itself, then what led there
    own = [place for place in places if place[0] not in LIBRARY] or places
    return f"The paper cannot be typeset. {f'{own[0][0]}, line {own[0][1]}: ' if own else ''}{message}"
