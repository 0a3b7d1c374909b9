"""What every rule script shares: a log with tracebacks, one sentence for a user's mistake, progress bars."""

import gc
import hashlib
import json
import os
import sys
import traceback
import warnings
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from clipspectra import InputError, processes


@contextmanager
def job(log, entry=""):
    """Run a rule's work. Errors go to the log with their traceback, an InputError to the terminal as one sentence.

    entry: the config entry that the work is about; the sentence begins with it.

    Yields a print function that writes to the log. A script of Snakemake ends with it.
    """
    is_script = hasattr(sys.modules["__main__"], "snakemake")
    if is_script:
        _prepare_process()
    file = open(log, "w", buffering=1)  # noqa: SIM115, closing it fails on a full disk
    log = partial(print, file=file)
    shown, warnings.showwarning = warnings.showwarning, lambda message, *place, **options: warn(log, message)
    try:
        yield log
    except KeyboardInterrupt:
        with suppress(OSError):
            log("Interrupted.")
        sys.exit(130)
    except BaseException as error:
        with suppress(OSError):
            traceback.print_exc(file=file)
        sentence = user_message(error)
        if sentence is None:
            raise
        print(f"\nError: {entry}{': ' if entry else ''}{sentence}", file=sys.stderr, flush=True)
        sys.exit(1)
    finally:
        warnings.showwarning = shown
        with suppress(OSError):
            file.close()
    if is_script:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # taking modules down takes up to another second


def log_errors(log):
    """In a notebook, write the traceback of a cell that fails to a log too."""
    from IPython import get_ipython

    processes.end_with_run()

    def write_and_show(shell, kind, error, trace, tb_offset=None):
        with open(log, "w") as file:
            traceback.print_exception(error, file=file)
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)

    get_ipython().set_custom_exc((Exception,), write_and_show)


def _prepare_process():
    """Settings of the process of a rule script that must come before torch works."""
    # Of MKL, which torch multiplies with on CPUs: the same bits for an image wherever it stands in a batch. Without it,
    # results would depend on which images were stored before. It costs no time.
    os.environ.setdefault("MKL_CBWR", "AUTO")
    processes.end_with_run()
    gc.set_threshold(1_000_000, 50, 50)  # torch's imports make 870,000 objects that stay: a second less in each job


_FULL = {
    "No space left on device": "No space is left on the disk",
    "Disk quota exceeded": "The disk quota is used up",
}


def user_message(error):
    """An error that the user can fix, in one sentence; None for other errors."""
    if isinstance(error, InputError | PermissionError):
        return str(error)
    for words, sentence in _FULL.items():
        if words in str(error):  # safetensors has its own error class
            target = f" for {error.filename}" if getattr(error, "filename", None) else ""
            return f"{sentence}{target}; make room and run again."
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}."
    return None


def warn(log, sentence):
    """Write a warning to the log and the terminal."""
    log(f"Warning: {sentence}")
    print(f"\nWarning: {sentence}", file=sys.stderr, flush=True)


def _own_files(snakemake):
    """The user's files among a rule's inputs that a model's architecture and weights are, by key of the config."""
    return {key: snakemake.input[key] for key in ("architecture", "pretrained") if key in snakemake.input.keys()}


def model_arguments(snakemake):
    """Arguments of models.load for a rule's model; the user's own files are those of the rule's inputs."""
    return snakemake.params.model | _own_files(snakemake) | {"cache": snakemake.config["cache"]}


def model_identity(snakemake):
    """What a rule's stored results by image depend on: the model's name, settings and files, and the dataset."""
    digest = hashlib.sha256(json.dumps(snakemake.params.model, sort_keys=True).encode())
    for path in [*_own_files(snakemake).values(), *snakemake.input.beside]:
        with open(path, "rb") as file:
            digest.update(f"{Path(path).name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    names = {key: snakemake.wildcards[key] for key in ("model", "dataset")}
    return names | {"model_digest": digest.hexdigest()[:12]}


def progress(iterable, description, **options):
    """A tqdm bar on the terminal; refreshed rarely where the output is no terminal."""
    from tqdm import tqdm

    interval = 0.5 if sys.stderr.isatty() else 10
    return tqdm(iterable, desc=description, mininterval=interval, **options)
