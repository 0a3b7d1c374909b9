"""What every rule script does around its work: log with traceback, one sentence for a user's mistake."""

import errno
import sys
import traceback
from contextlib import contextmanager
from functools import partial

from clipspectra import InputError


@contextmanager
def job(log):
    """Run a rule's work. Errors go to the log with their traceback, an InputError to the terminal as one sentence.

    Yields a print for the log file.
    """
    with open(log, "w", buffering=1) as file:
        try:
            yield partial(print, file=file)
        except (InputError, PermissionError) as error:
            traceback.print_exc(file=file)
            print(f"\nError: {error}", file=sys.stderr, flush=True)
            sys.exit(1)
        except OSError as error:
            traceback.print_exc(file=file)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            place = f" for {error.filename}" if error.filename else ""
            print(
                f"\nError: No space is left on the disk{place}; make room and run again.", file=sys.stderr, flush=True
            )
            sys.exit(1)
        except BaseException:
            traceback.print_exc(file=file)
            raise


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
