"""What every rule script does around its work: log with traceback, one sentence for a user's mistake."""

import sys
import traceback
import warnings
from contextlib import contextmanager, suppress
from functools import partial

from clipspectra import InputError


@contextmanager
def job(log, entry=""):
    """Run a rule's work. Errors go to the log with their traceback, an InputError to the terminal as one sentence.

    entry: of the config, that the work is about; the sentence names it.

    Yields a print for the log file.
    """
    file = open(log, "w", buffering=1)  # noqa: SIM115, a full disk makes its closing fail
    warnings.formatwarning = lambda message, *place: f"\nWarning: {message}\n"
    try:
        yield partial(print, file=file)
    except BaseException as error:
        with suppress(OSError):
            traceback.print_exc(file=file)
        sentence = user_message(error)
        if sentence is None:
            raise
        print(f"\nError: {entry}{': ' if entry else ''}{sentence}", file=sys.stderr, flush=True)
        sys.exit(1)
    finally:
        with suppress(OSError):
            file.close()


def user_message(error):
    """The one sentence of an error that its user can mend, None for others."""
    if isinstance(error, InputError | PermissionError):
        return str(error)
    if "No space left on device" in str(error):  # safetensors has an error class of its own
        place = f" for {error.filename}" if getattr(error, "filename", None) else ""
        return f"No space is left on the disk{place}; make room and run again."
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}."
    return None


def warn(log, sentence):
    """Say a warning in the log and on the terminal."""
    log(f"Warning: {sentence}")
    print(f"\nWarning: {sentence}", file=sys.stderr, flush=True)


def model_arguments(snakemake):
    """Arguments of models.load for a rule's model; the user's own files as the rule's inputs name them."""
    cache = snakemake.resources.get("cache") or None
    files = {key: snakemake.input[key] for key in ("architecture", "pretrained") if key in snakemake.input.keys()}
    return snakemake.params.model | files | {"cache": cache}


def progress(iterable, description, **options):
    """A tqdm bar on the terminal that stays one line where nobody watches."""
    from tqdm import tqdm

    interval = 0.5 if sys.stderr.isatty() else 10
    return tqdm(iterable, desc=description, mininterval=interval, **options)
