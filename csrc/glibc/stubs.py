"""Makes a folder of libraries with the symbols of one glibc release and no code, to link with.

    python stubs.py x86_64 2.28 <folder> <libc_nonshared.a>

The lists of symbols are zig's (the package ziglang), which makes such libraries whenever it links
for a release. Here the linker is gcc's own, so that C++ stays gcc's.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

# What glibc 2.34 made a part of libc, and the loader.
BESIDE_LIBC = ("libpthread.so.0", "libdl.so.2", "librt.so.1", "libld.so.2")


def make_by_zig(architecture: str, release: str, work: Path) -> list[Path]:
    """Has zig link something for the release; returns the libraries that it made for that."""
    source = work / "empty.c"
    source.write_text("")
    command = [sys.executable, "-m", "ziglang", "cc", "-shared", str(source)]
    command += ["-target", f"{architecture}-linux-gnu.{release}", "-o", str(work / "empty.so")]
    # With a cache of its own, which then holds the libraries of this release alone.
    caches = ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")
    env = {**os.environ, **dict.fromkeys(caches, str(work / "cache"))}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"zig failed, which `pip install ziglang` brings: {done.stderr.strip()}")
    return sorted((work / "cache").glob("o/*/lib*.so.*"))


def write_folder(folder: Path, libraries: list[Path], nonshared: str):
    """Lays them out as linkers look for them: by lib<name>.so."""
    for library in libraries:
        shutil.copy2(library, folder / library.name)
        (folder / f"{library.name.partition('.')[0]}.so").write_text(f"INPUT({library.name})\n")
    # glibc's own libc.so is such a text as well. libmipruner_younger.a: see glibc.cmake.
    beside = " ".join(BESIDE_LIBC)
    (folder / "libc.so").write_text(
        f'INPUT(libc.so.6 "{nonshared}" libmipruner_younger.a AS_NEEDED({beside}) libc.so.6)\n'
    )


def main(architecture: str, release: str, folder: Path, nonshared: str):
    if (folder / "libc.so").is_file():  # written last
        return
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    write_folder(folder, make_by_zig(architecture, release, work), nonshared)
    shutil.rmtree(work)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4])
