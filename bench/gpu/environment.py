"""Part `environment`: what was measured, and on what."""

import json
import platform
import subprocess
import sys

from gpu.session import ROOT, Failed, Outcome, find_cuda_tool


def environment(session):
    done = session.python("-m", "gpu.environment", session.device)
    if done.code != 0 or not done.objects():
        raise Failed(f"torch cannot use the device: {done.last_line()}")
    facts = {**done.objects()[-1], "commit": session.commit or commit_of_the_tree()}
    nvcc = find_cuda_tool("nvcc")
    if nvcc:
        facts["nvcc"] = session.run(nvcc, "--version").output.strip().splitlines()[-1]
    session.architecture = facts.get("architecture")
    return Outcome(f"{facts['device']}, torch {facts['torch']}", facts)


def commit_of_the_tree():
    if not (ROOT / ".git").exists():  # a copy without its history
        return "unknown"
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def driver_version():
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else "unknown"


def describe(device):
    import torch

    facts = {"python": platform.python_version(), "torch": torch.__version__, "device": "CPU"}
    if device == "cuda":
        torch.ones(1, device="cuda").item()
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "device": properties.name,
            "architecture": f"{properties.major}{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "l2_bytes": getattr(properties, "L2_cache_size", 0),
            "memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "driver": driver_version(),
        }
    return facts


if __name__ == "__main__":
    print(json.dumps(describe(sys.argv[1])))
