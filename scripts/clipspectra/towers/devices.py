"""Where a model runs and how precisely: devices, precision, and errors when memory runs out."""

import fcntl
import os
import tempfile
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from clipspectra import InputError

# Largest |sum of contributions - e/n| allowed in an extraction; the rounding error of each precision is far below.
LARGEST_ERROR = {"fp32": 1e-4, "tf32": 1e-2, "fp16": 1e-2, "bf16": 1e-1}
_HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
_gpu_locks = []  # of this process


def choose_device(name):
    """The torch device of a name; "auto" is the best one available, and a GPU that no other job of this user has taken.

    Raises InputError for an unknown device and for one that is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        if name == "cuda" and torch.cuda.device_count() > 1:
            uuids = [torch.cuda.get_device_properties(index).uuid for index in range(torch.cuda.device_count())]
            name = f"cuda:{lock_free_gpu(uuids)}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"'{name}' is not a device; use 'auto', 'cpu', 'cuda' or 'mps'.") from error
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= counts.get(device.type, 0):
        raise InputError(f"Device '{name}' is not available; use 'auto' or 'cpu'.")
    return device


def lock_free_gpu(uuids):
    """Index of the first GPU that no process of this user has locked; locked until this process ends.

    Snakemake does not assign GPUs to jobs. If all are taken, the process number decides.
    """
    for index, uuid in enumerate(uuids):
        lock = open(Path(tempfile.gettempdir()) / f"clipspectra-{os.getuid()}-{uuid}.lock", "w")  # noqa: SIM115
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        _gpu_locks.append(lock)
        return index
    return os.getpid() % len(uuids)


def check_precision(precision):
    """Raise InputError for an unknown precision."""
    if precision not in LARGEST_ERROR:
        raise InputError(f"'{precision}' is not a precision; use one of {', '.join(LARGEST_ERROR)}.")


def _allow_tf32(allowed):
    """Torch's setting is of the whole process, and allows TF32 in convolutions from the start."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


_allow_tf32(False)


@contextmanager
def autocast(device, precision):
    """The context of a forward pass: half precision for "fp16", "bf16", TF32 for "tf32"; the weights stay float32."""
    _allow_tf32(precision == "tf32")
    try:
        with torch.autocast(device.type, _HALF[precision]) if precision in _HALF else nullcontext():
            yield
    finally:
        _allow_tf32(False)


def ahead(batches, device):
    """What an iterator yields; on a GPU, while its next item is being computed there.

    The iterator tells the GPU what to compute without waiting for it, in a stream of its own, so that the work on the
    previous item (copies, files) takes none of the GPU's time. Two items are in memory at once. Use an item before you
    ask for the next: its memory is used again.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream, previous = torch.cuda.Stream(device), None
    stream.wait_stream(torch.cuda.current_stream(device))  # for what was computed before
    while True:
        with torch.cuda.stream(stream):
            item = next(batches, None)
            done = stream.record_event()
        if previous is not None:
            torch.cuda.current_stream(device).wait_event(previous[1])
            yield previous[0]
            torch.cuda.current_stream(device).synchronize()  # the item's memory is the other stream's to use again
        if item is None:
            return
        previous = item, done


@contextmanager
def explain_out_of_memory(batch_size):
    """Turn an out-of-memory error into an InputError that says which batch size to try."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        message = str(error)
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "allocate memory" not in message:
            raise
        advice = f"set batch_size to {batch_size // 2}" if batch_size > 1 else "take a smaller model or another device"
        raise InputError(f"Too little memory for batches of {batch_size} images; {advice}.") from error
