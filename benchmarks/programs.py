"""C programs that run many networks over many images: compilers and processes start few times.

A program reads the images of all its networks from a file, each into memory of its own size, where sanitizers see a
byte too far, and writes their logits to another.
"""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from builds import STRICT, numbered
from netsuke.artifact import Artifact
from netsuke.errors import MissingExtra, NetsukeError
from netsuke.export import c
from netsuke.export.c.fast import VARIANTS, build

TIMEOUT_S = 7200

SHARED = """\
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *filled(size_t size, FILE *in)
{
    void *const p = malloc(size);
    if (!p || fread(p, 1, size, in) != size) {
        exit(9);
    }
    return p;
}

static void put(void *p, size_t size, FILE *out)
{
    if (fwrite(p, 1, size, out) != size) {
        exit(8);
    }
    free(p);
}
"""

PORTABLE = """\
#ifdef CALLER
#define SPACE(name) name##_workspace *const w = malloc(sizeof *w); if (!w) { exit(9); } name##_start(w);
#define W w,
#define END free(w);
#else
#define SPACE(name)
#define W
#define END
#endif

#define NETWORK(name, NAME, count) \\
    static void case_##name(FILE *in, FILE *out, int rows) \\
    { \\
        enum { c_ = NAME##_INPUT_CHANNELS, h_ = NAME##_INPUT_HEIGHT, w_ = NAME##_INPUT_WIDTH }; \\
        SPACE(name) \\
        for (long i = 0; i < count; i++) { \\
            uint8_t *const image = filled(NAME##_INPUT_BYTES, in); \\
            int32_t *const logits = malloc(NAME##_CLASSES * sizeof *logits); \\
            if (!rows) { \\
                name##_run(W image, logits); \\
            } \\
            for (int y = 0; rows && y < h_; y++) { \\
                uint8_t *const row = malloc(c_ * w_); \\
                for (int k = 0; k < c_; k++) { \\
                    memcpy(row + k * w_, image + (k * h_ + y) * w_, w_); \\
                } \\
                if (name##_push_row(W row, logits) != (y == h_ - 1)) { \\
                    exit(7); \\
                } \\
                free(row); \\
            } \\
            free(image); \\
            put(logits, NAME##_CLASSES * sizeof *logits, out); \\
        } \\
        END \\
    }
"""

# All images in one call, then one by one, with the same workspace.
FAST = """\
int posix_memalign(void **, size_t, size_t);

static void *aligned(size_t size)
{
    void *p;
    if (posix_memalign(&p, 64, size)) {
        exit(9);
    }
    return memset(p, 0, size);
}

#define NETWORK(name, run, count, bytes, classes, weights, work) \\
    static void case_##name(FILE *in, FILE *out, int rows) \\
    { \\
        int8_t *const w = aligned(weights), *const space = aligned(work); \\
        if (rows || fread(w, 1, weights, in) != weights) { \\
            exit(9); \\
        } \\
        uint8_t *const images = filled((size_t)(count) * (bytes), in); \\
        int32_t *logits = malloc((count) * (classes) * sizeof *logits); \\
        run(w, images, logits, count, space); \\
        put(logits, (count) * (classes) * sizeof *logits, out); \\
        for (long i = 0; i < count; i++) { \\
            logits = malloc((classes) * sizeof *logits); \\
            run(w, images + i * (bytes), logits, 1, space); \\
            put(logits, (classes) * sizeof *logits, out); \\
        } \\
        free(w), free(space), free(images); \\
    }
"""


@dataclass(frozen=True)
class Case:
    """A network, images uint8 [n, C, H, W] and the reference's logits int32 [n, classes]; `name` is a C identifier."""

    name: str
    artifact: Artifact
    images: np.ndarray
    want: np.ndarray


class Broken(NetsukeError):
    """A program that does not compile, or that ends before its time; the text names the network it was at."""


def portable(
    cases: Sequence[Case],
    sources: Path,
    folder: Path,
    compiler: str,
    flags: Sequence[str],
    *,
    entries: Sequence[str] = ("run",),
    workspace: str = "static",
) -> dict[str, list[int]]:
    """Of each entry ("run", "rows"): how many images of each case have a logit that is not the reference's.

    `sources` holds what `c.write` made of each case. Every file is compiled under strict warnings, and may not ask for
    a symbol. Raises Broken, or MissingExtra without the compiler.
    """
    files = [sources / f"{case.name}.c" for case in cases]
    objects(files, folder, compiler, flags)
    made = [str(folder / f"{case.name}.o") for case in cases]
    text = [f'#include "{case.name}.h"\n' for case in cases]
    text += [SHARED, PORTABLE]
    text += [f"NETWORK({case.name}, {case.name.upper()}, {len(case.images)})\n" for case in cases]
    (folder / "main.c").write_text("".join(text) + _main(cases))
    caller = ["-DCALLER"] if workspace == "caller" else []
    _called([compiler, *flags, *caller, f"-I{sources}", "main.c", *made, "-o", "main"], folder)
    given = b"".join(case.images.tobytes() for case in cases)
    return {entry: _wrong(_ran(folder, given, entry), cases) for entry in entries}


def fast(
    cases: Sequence[Case],
    folder: Path,
    compiler: str,
    variant: str,
    flags: Sequence[str],
    emulator: Sequence[str] = (),
) -> list[int]:
    """The same of the engine's kernels: images that differ in a batch or alone. `flags` aim at the variant."""
    built = [build(case.artifact.graph, case.artifact.tensors, VARIANTS[variant]) for case in cases]
    weights = [source.weights + bytes(-len(source.weights) % 64) for source in built]
    text = [built[0].prelude, *(numbered(source, i) for i, source in enumerate(built)), SHARED, FAST]
    for i, (case, source) in enumerate(zip(cases, built, strict=True)):
        sizes = (len(case.images), source.input_bytes, prod(source.shape), len(weights[i]), source.work_bytes)
        text.append(f"NETWORK({case.name}, run_g{i}, {', '.join(map(str, sizes))})\n")
    (folder / "main.c").write_text("\n".join(text) + _main(cases))
    _called([compiler, "-std=gnu11", "-w", *flags, "main.c", "-o", "main"], folder)
    given = b"".join(w + case.images.tobytes() for w, case in zip(weights, cases, strict=True))
    twice = [
        Case(case.name, case.artifact, case.images, np.concatenate([case.want, case.want])) for case in cases
    ]
    return _wrong(_ran(folder, given, "run", emulator), twice)


def objects(
    files: Sequence[Path], folder: Path, compiler: str, flags: Sequence[str], allowed: Collection[str] = ()
) -> list[str]:
    """Compile to object files under strict warnings; which of the `allowed` symbols they need.

    Raises Broken where one does not compile, or needs another symbol.
    """
    _called([compiler, *STRICT, *flags, "-c", *map(str, files)], folder)
    if any(flag.startswith("-fsanitize") for flag in flags):  # whose symbols are not ours
        return []
    nm = compiler.replace("gcc", "nm") if compiler.endswith("-gcc") else "nm"
    lines = _called([nm, "-A", "-u", *(f"{path.stem}.o" for path in files)], folder).splitlines()
    needs = {line.split()[-1]: line.partition(".o:")[0] for line in lines}
    for symbol, file in needs.items():
        if symbol not in allowed:
            raise Broken(f"{file} needs {symbol} of {compiler} {' '.join(flags)}")
    return sorted(needs)


def _main(cases: Sequence[Case]) -> str:
    """Names each network before its turn, so that a crash has a name."""
    calls = "".join(
        f'    puts("{case.name}");\n    fflush(stdout);\n    case_{case.name}(in, out, rows);\n'
        for case in cases
    )
    return f"""
int main(int argc, char **argv)
{{
    FILE *const in = fopen("images", "rb"), *const out = fopen("logits", "wb");
    const int rows = argc == 2 && strcmp(argv[1], "rows") == 0;
    if (!in || !out) {{
        return 9;
    }}
{calls}    return fclose(in) | fclose(out);
}}
"""


def _ran(folder: Path, given: bytes, entry: str, emulator: Sequence[str] = ()) -> np.ndarray:
    (folder / "images").write_bytes(given)
    command = [*emulator, str(folder / "main"), entry]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    if done.returncode:
        at = (done.stdout.split() or ["the start"])[-1]
        said = next((line for line in done.stderr.splitlines() if "error" in line.lower()), "")
        raise Broken(f"at {at} the program ended with {done.returncode} {said[:200]}".strip())
    return np.fromfile(folder / "logits", np.int32)


def _wrong(logits: np.ndarray, cases: Sequence[Case]) -> list[int]:
    """Images of each case with a logit that differs; one that was asked twice counts once."""
    found, at = [], 0
    for case in cases:
        got = logits[at : at + case.want.size].reshape(case.want.shape)
        at += case.want.size
        differ = (got != case.want).any(1)
        found.append(int(differ.reshape(-1, len(case.images)).any(0).sum()))
    if at != len(logits):
        raise Broken(f"the program wrote {len(logits)} logits, not {at}")
    return found


def _called(command: Sequence[str], folder: Path) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except OSError:
        raise MissingExtra(f"no {command[0]!r}: install it, or take the checks that need it out") from None
    if done.returncode:
        lines = done.stderr.splitlines()
        raise Broken(next((line for line in lines if "error" in line), done.stderr[:200]))
    return done.stdout


def written(cases: Sequence[Case], folder: Path, workspace: str = "static") -> Path:
    """A folder with the portable C of each case."""
    for case in cases:
        c.write(case.artifact, folder, case.name, workspace=workspace)
    return folder
