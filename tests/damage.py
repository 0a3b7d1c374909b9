"""Damages files by chance, always the same for a seed, and sees in other processes what the workflow's readers do.

    PYTHONPATH=scripts:tests python -m damage 1000 [kind …]      # what `make test-damage` runs

Every damaged file is read in a process with limits of memory and time, which is started again after a crash or a hang.
"""

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np

SECONDS, MEMORY = 10, 6 * 2**30  # of processors and in bytes: what the reading of one damaged file may take
PATIENCE = 300  # seconds without a word before a process counts as hanging too
OUTCOMES = ("refused", "equal", "other", "silent", "traceback", "memory", "hang", "crash", "outside")
GOOD = ("refused", "equal", "other")
NASTY = [  # inserted into texts and binaries
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"'", b"\r", b"\r\n", b"\n\n", b",,,", b"\t", b"\x1b[2J", b"\x85"),
    *("\u202e\u200b\u2028".encode(), b"=cmd|' /C calc'!A0", b"$(touch escaped)", b"<script>", b"%s{}{0.__class__}"),
    *(b"../" * 5, b"/etc/passwd", b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"x" * 200_000, b"[" * 5000, b"{}" * 50),
    *(b"&a [*a, *a]", b"!!python/object/apply:os.system [true]", b"\\u0000", b"\xc3\x28", b"-1", b"null"),
]


def mutate(content, rng, special=()):
    """The bytes of a file with one to three damages. special: structured ones, functions (bytes, rng) -> bytes."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        choices = [*MUTATIONS, *special] if not special or rng.random() < 0.6 else special
        content = choices[rng.integers(len(choices))](content, rng)
    return content


def _place(content, rng):
    """A place in a file; often near an end, where headers and footers are."""
    size = max(len(content), 1)
    near = min(int(rng.exponential(60)), size - 1)
    return int(rng.choice([rng.integers(size), rng.integers(size), near, size - 1 - near]))


def flip_bit(content, rng):
    if content:
        place = _place(content, rng)
        content = content[:place] + bytes([content[place] ^ 1 << int(rng.integers(8))]) + content[place + 1 :]
    return content


def set_byte(content, rng):
    place = _place(content, rng)
    return content[:place] + rng.bytes(1) + content[place + 1 :]


def cut(content, rng):
    return content[: _place(content, rng)]


def zero_block(content, rng):
    place, size = _place(content, rng), int(rng.choice([4, 64, 512, 4096]))
    block = content[place : place + size]
    return content[:place] + bytes([rng.choice([0, 255])]) * len(block) + content[place + size :]


def duplicate(content, rng):
    place, size = _place(content, rng), int(rng.choice([1, 16, 512, 4096]))
    return content[: place + size] + content[place:]


def remove(content, rng):
    place, size = _place(content, rng), int(rng.choice([1, 2, 16, 512]))
    return content[:place] + content[place + size :]


def insert(content, rng):
    place = _place(content, rng)
    new = rng.bytes(int(rng.integers(1, 40))) if rng.random() < 0.4 else NASTY[rng.integers(len(NASTY))]
    return content[:place] + new + content[place:]


def overwrite(content, rng):
    place, new = _place(content, rng), NASTY[rng.integers(len(NASTY))][:64]
    return content[:place] + new + content[place + len(new) :]


def swap(content, rng):
    size = int(rng.choice([1, 8, 64, 512]))
    first, second = sorted((_place(content, rng), _place(content, rng)))
    if second < first + size:
        return content
    middle = content[first + size : second]
    one, other = content[first : first + size], content[second : second + size]
    return content[:first] + other + middle + one + content[second + size :]


MUTATIONS = (flip_bit, flip_bit, set_byte, cut, zero_block, duplicate, remove, insert, overwrite, swap)


def work(folder, jobs):
    """Read damaged files, one after another, in this process: a line of JSON before and after each.

    jobs: [(kind, first number, number after the last)]
    """
    import damage_kinds

    from clipspectra.jobs import user_message

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for name, start, stop in jobs:
        inside = folder / name / "around" / "inside"
        inside.mkdir(parents=True, exist_ok=True)
        kind = damage_kinds.KINDS[name](inside)
        sound = kind.path.read_bytes()
        expected = kind.read()
        limit = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, limit))
        for number in range(start, stop):
            rng = np.random.default_rng([number, *name.encode()])
            kind.path.write_bytes(mutate(sound, rng, kind.special))
            print(json.dumps({"kind": name, "number": number}), file=channel)
            note = ""
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process
            try:
                outcome = "equal" if same(kind.read(), expected) else "silent" if kind.is_checked else "other"
            except MemoryError:
                outcome, note = "memory", traceback.format_exc()
            except Exception as error:
                sentence = user_message(error)
                outcome, note = "traceback" if sentence is None else "refused", sentence or traceback.format_exc()
            if os.listdir(inside.parent) != ["inside"] or os.path.exists(damage_kinds.ABSOLUTE):
                outcome = "outside"
            print(json.dumps({"outcome": outcome, "note": note}), file=channel)
    os._exit(0)


def same(value, expected):
    """Whether two nested values of arrays, tables, texts and numbers are equal; nan equals nan."""
    if isinstance(expected, dict):
        return (
            isinstance(value, dict)
            and value.keys() == expected.keys()
            and all(same(value[key], part) for key, part in expected.items())
        )
    if isinstance(expected, list | tuple):
        return len(value) == len(expected) and all(map(same, value, expected))
    if hasattr(expected, "equals"):  # of pandas
        return value.equals(expected)
    if isinstance(expected, np.ndarray):
        return value.dtype == expected.dtype and value.shape == expected.shape and value.tobytes() == expected.tobytes()
    return value == expected


def damage(folder, kinds, count, first=0):
    """[{"kind", "number", "outcome", "note"}] of `count` damaged files of each kind, below a folder."""
    waiting, results = [(name, first, first + count) for name in kinds], []
    while waiting:
        command = [
            sys.executable,
            "-c",
            f"import damage, pathlib; damage.work(pathlib.Path({str(folder)!r}), {waiting})",
        ]
        paths = [
            str(Path(__file__).parents[1] / "scripts"),
            *(str(Path(__file__).parent / name) for name in ("", "unit")),
        ]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        with open(Path(folder, "log"), "w") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
        current, is_hanging, buffer = None, False, b""
        while True:
            if not select.select([process.stdout], [], [], PATIENCE)[0]:
                is_hanging = True
                process.kill()
                break
            piece = os.read(process.stdout.fileno(), 2**16)
            if not piece:
                break
            *lines, buffer = (buffer + piece).split(b"\n")
            for line in map(json.loads, lines):
                if "kind" in line:
                    current = line
                else:
                    results.append(current | line)
                    current = None
        process.wait()
        if current:
            is_hanging |= process.returncode == -signal.SIGPROF
            results.append(current | {"outcome": "hang" if is_hanging else "crash", "note": str(process.returncode)})
        elif process.returncode:
            raise RuntimeError(f"Before any damage: {Path(folder, 'log').read_text()[-3000:]}")
        process.stdout.close()
        done = Counter(result["kind"] for result in results)
        waiting = [(name, first + done[name], first + count) for name in kinds if done[name] < count]
    return results


def table(results):
    """The outcomes by kind, as lines of a table in Markdown."""
    kinds = list(dict.fromkeys(result["kind"] for result in results))
    lines = [f"| file | {' | '.join(OUTCOMES)} |", "|---" + "|--:" * len(OUTCOMES) + "|"]
    for kind in kinds:
        counts = Counter(result["outcome"] for result in results if result["kind"] == kind)
        lines.append(f"| {kind} | {' | '.join(str(counts[outcome] or '') for outcome in OUTCOMES)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    import tempfile

    import damage_kinds

    count, *names = sys.argv[1:]
    with tempfile.TemporaryDirectory() as place:
        start = time.time()
        results = damage(Path(place), names or list(damage_kinds.KINDS), int(count))
    bad = [result for result in results if result["outcome"] not in GOOD]
    for (kind, outcome, note), number in Counter(
        (result["kind"], result["outcome"], "\n".join(result["note"].strip().splitlines()[-5:])) for result in bad
    ).most_common(60):
        print(f"--- {kind}: {outcome}, {number} times\n{note}")
    print(table(results))
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{len(results)} files, {len(bad)} bad, {cpu.ru_utime + cpu.ru_stime:.0f} s of CPU, {time.time() - start:.0f} s"
    )
    sys.exit(bool(bad))
