"""Part `build`: the package, for this device alone, as an offline machine would install it."""

import sys

from gpu.session import ROOT, Failed, Outcome


def build(session):
    """Installs into the scratch folder; the parts that follow use the package there."""
    if session.dry:
        return check(session, "the installed package")
    target = session.scratch / "package"
    done = session.run(
        sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index",
        "--verbose", "--target", target, ROOT,
        MIPRUNER_CUDA="ON", MIPRUNER_TORCH="ON",
        CMAKE_ARGS=f"-DCMAKE_CUDA_ARCHITECTURES={session.architecture}",
    )  # fmt: skip
    if done.code is None:
        raise Failed("pip install was stopped at its time limit")
    if done.code != 0:
        raise Failed(f"pip install: {done.last_line()}")
    session.package = target
    return check(session, f"built for sm_{session.architecture}")


def check(session, what):
    """The package can be imported, registers its operators, and has kernels for the device."""
    script = (
        "import json, mi_pruner_cuda, torch; from mi_pruner_cuda.build_info import build_info; "
        "torch.ops.mipruner.select; print(json.dumps(build_info()))"
    )
    done = session.python("-c", script)
    if done.code != 0 or not done.objects():
        raise Failed(f"importing the package: {done.last_line()}")
    info = done.objects()[-1]
    if not session.dry and not info["has_cuda"]:
        raise Failed("the package has no CUDA kernels", info)
    return Outcome(f"{what}, version {info['version']}", info)
