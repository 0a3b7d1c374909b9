"""What a killed run leaves behind: jobs that live on, and locks. One plain run more is all that it takes to recover.

Whether a process is alive is asked of the system, which knows of kill -9 too: a job waits for the end of its Snakemake,
and the lock on an open file ends with the process that has it open.
"""

import atexit
import fcntl
import os
import platform
import select
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

RUN = "CLIPSPECTRA_RUN"  # of the environment: the machine and the number of the Snakemake process that jobs belong to
RECORD = "clipspectra-run"  # file in Snakemake's folder: the machine of the run that keeps it, empty once it has ended
SUBMITTED = " submitted"  # in the record of a run whose jobs outlive it


def lead_jobs():
    """Have the jobs that this process starts from now on end with it, as far as they call end_with_run."""
    os.environ[RUN] = f"{_system()} {os.getpid()}"


def end_with_run():
    """End this process as soon as the Snakemake process that it belongs to has ended; nothing on another machine."""
    system, _, number = os.environ.get(RUN, "").rpartition(" ")
    if system == _system() and int(number) != os.getpid():
        threading.Thread(target=_end_with, args=(int(number),), daemon=True).start()


def end_with_parent(*_):
    """End this process, a worker of a pool, when its parent was killed: it would wait for work for ever."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _end_with(process):
    try:
        select.select([os.pidfd_open(process)], [], [])  # wakes when the process ends; Linux only
    except ProcessLookupError:
        pass
    except (AttributeError, OSError):
        with suppress(ProcessLookupError):
            while not os.kill(process, 0):
                time.sleep(1)
    os._exit(1)  # at once: another run may start now, and make the same files


def _system():
    """An id of the running system, the same in all its containers; the machine's name where there is none."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return platform.node()


def claim(folder):
    """Remove what a killed run left in Snakemake's own folder, and keep the folder until this process ends.

    Several processes may keep it. The locks of Snakemake in it are stale if none did, and the last one that kept it
    first was of this machine and did not end by itself; then they are removed, and so are copies of files that a job
    was about to update. Not so if it had submitted jobs, which go on. Returns what the user should know, in a sentence;
    else nothing.
    """
    folder = Path(folder)
    try:
        folder.mkdir(exist_ok=True)
        file = os.open(folder / RECORD, os.O_RDWR | os.O_CREAT, 0o666)  # open, and locked, until this process ends
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # a run is alive, and Snakemake decides by its locks whether both can be
        fcntl.flock(file, fcntl.LOCK_SH)
        return None
    except OSError:  # without locks of files nobody knows
        return None
    last = os.pread(file, 1000, 0).decode()
    system, _, name = last.removesuffix(SUBMITTED).partition(" ")
    is_known, is_locked = system == _system() or name == platform.node(), any(folder.glob("locks/*.lock"))
    sentence = None
    if is_locked and not is_known:
        run = f"A run on {name}" if name else "Another run"
        sentence = f"{run} has locked this directory. If it is over, `snakemake --unlock` removes its lock."
    elif is_locked and last.endswith(SUBMITTED):
        sentence = (
            "The run before this one was killed, and the jobs that it submitted may still be at work. Cancel them "
            "(Slurm: scancel), or wait for them; then `snakemake --unlock` removes its lock."
        )
    else:
        if is_locked:
            sentence = (
                "The run before this one was killed. Its lock is removed; what it had not finished is made again."
            )
        for leftover in ("locks", "backups"):
            shutil.rmtree(folder / leftover, ignore_errors=True)
        _write(file, f"{_system()} {platform.node()}")
        atexit.register(_write, file, "")
    fcntl.flock(file, fcntl.LOCK_SH)
    return sentence


def note_submitted(folder):
    """Note in the record of `claim` that this run's jobs go on if it is killed."""
    file = os.open(Path(folder) / RECORD, os.O_RDWR)
    _write(file, f"{_system()} {platform.node()}{SUBMITTED}")
    os.close(file)


def _write(file, record):
    with suppress(OSError):  # of a full disk; the record is missing then, and a lock stays
        os.ftruncate(file, 0)
        os.pwrite(file, record.encode(), 0)


def dated_in_future(paths, folder):
    """Those of the files that are dated more than ten seconds after now, by the clock of Snakemake's folder."""
    now = Path(folder, RECORD)
    now.touch()
    limit = now.stat().st_mtime + 10
    return [path for path in paths if os.path.exists(path) and os.path.getmtime(path) > limit]
