"""Somebody else's programs, csrc/tests/installed, built against an installed libmipruner."""

from pathlib import Path

from build_tools import SOURCE, output, run, tool

import mi_pruner_cuda

CONSUMERS = SOURCE / "csrc/tests/installed"
C_ROWS = f"0:1 2:1 5:1 {mi_pruner_cuda.__version__}\n"
CXX_ROWS = f"0 2 5 {mi_pruner_cuda.__version__}\n-1 temperature: got 0, allowed is "


def installed_files(libdir="lib", includedir="include", cuda=False):
    """Every file that an installation holds, relative to its prefix."""
    headers = [f.relative_to(SOURCE / "csrc/include") for f in SOURCE.glob("csrc/include/**/*.h*")]
    llama = SOURCE / "csrc/llama"
    headers += [f.relative_to(llama) for f in llama.rglob("*.hpp") if "mtmd" not in f.parts]
    parts = ["config", "config-version", "targets", "targets-release"]
    below_lib = [f"cmake/mipruner/mipruner-{part}.cmake" for part in parts]
    below_lib += ["libmipruner.a", "libmipruner.so", "libmipruner.so.1", "pkgconfig/mipruner.pc"]
    if cuda:
        below_lib += ["libmipruner_cuda.so", "libmipruner_cuda.so.1"]
    return {f"{includedir}/{name}" for name in headers} | {f"{libdir}/{name}" for name in below_lib}


def configure_project(language, build, components, *options):
    """Configures the project in "c" or "cxx"; returns the finished process."""
    return run(
        tool("cmake"), "-S", CONSUMERS / language, "-B", build,
        f"-DCOMPONENTS={';'.join(components)}", *options,
    )  # fmt: skip


def programs(language, build, components, *options):
    """The folder of its programs, keep_rows_<component>[_<standard>]."""
    configured = configure_project(language, build, components, *options)
    assert configured.returncode == 0, configured.stderr
    output(tool("cmake"), "--build", build, "--parallel", 2)
    return Path(build)


def compile_line(program, *flags):
    """Builds the C program by a line for the compiler, without CMake."""
    sources = sorted((CONSUMERS / "c").glob("*.c"))
    warnings = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror")
    output(tool("cc"), *warnings, *sources, "-o", program, *flags)
