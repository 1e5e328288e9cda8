"""Part `tests`: the functions of python_tests/test_device_*.py, on the device.

They are called one by one without pytest, which the machine may lack. A test that crashes or hangs,
or whose CUDA error no later call would survive, ends its process; a new one goes on with the test
after it.
"""

import importlib
import json
import os
import sys
import threading
import time
import traceback

from gpu.session import ROOT, Failed, Outcome

SPOILED = 86  # exit code: after the last test reported, the device is of no use to this process
LONGEST = 60  # seconds for one test
FOLDER = ROOT / "python_tests"


def device_tests(session):
    environment = {"MIPRUNER_TEST_DEVICE": session.device}
    if session.dry:
        environment["MIPRUNER_TEST_CASES"] = "5"
    listed = session.python("-m", "gpu.device_tests", **environment)
    if listed.code != 0 or not listed.objects():
        raise Failed(f"reading the tests: {listed.last_line()}")
    remaining = listed.objects()[-1]["tests"]
    results = {}
    while remaining:
        done = session.python("-m", "gpu.device_tests", *remaining, **environment)
        for entry in done.objects():
            results[entry.pop("test")] = entry
        remaining = [name for name in remaining if name not in results]
        if done.code is None:  # the part's time is over
            break
        if remaining and done.code != SPOILED:
            results[remaining[0]] = {"error": f"the process ended: {done.last_line()}"}
            remaining = remaining[1:]
    results |= {name: {"error": "not finished in the time allowed"} for name in remaining}
    failed = [name for name, result in results.items() if result.get("error")]
    if failed:
        first = results[failed[0]]["error"].strip().splitlines()[-1]
        names = ", ".join(failed)
        raise Failed(f"{len(failed)} of {len(results)} failed: {names} ({first})", results)
    return Outcome(f"{len(results)} tests passed", results)


def load():
    sys.path.insert(0, str(FOLDER))  # some share helpers with other tests
    return [importlib.import_module(f.stem) for f in sorted(FOLDER.glob("test_device_*.py"))]


def tests_of(modules):
    tests = {}
    for module in modules:
        found = {name: f for name, f in vars(module).items() if name.startswith("test_")}
        assert not found.keys() & tests.keys(), f"{module} has a namesake of another file's test"
        tests |= found
    return tests


def prepare(modules):
    """What the tests share and would take too long to make within one of them."""
    for module in modules:
        if hasattr(module, "prepare"):
            module.prepare()


def call(function):
    """Calls one test: (its traceback or None, whether the process is still of use)."""
    import torch

    torch.manual_seed(0)
    error = None
    try:
        function()
    except Exception:
        error = traceback.format_exc()
    try:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    except RuntimeError:
        return error or traceback.format_exc(), False
    return error, True


def say(name, seconds, error):
    print(json.dumps({"test": name, "seconds": round(seconds, 2), "error": error}), flush=True)


def give_up(name):
    say(name, LONGEST, f"no end after {LONGEST} s")
    os._exit(SPOILED)


def main(names):
    modules = load()
    tests = tests_of(modules)
    if not names:
        prepare(modules)
        print(json.dumps({"tests": list(tests)}))
    for name in names:
        watch = threading.Timer(LONGEST, give_up, [name])
        watch.daemon = True
        watch.start()
        start = time.monotonic()
        error, usable = call(tests[name])
        watch.cancel()
        say(name, time.monotonic() - start, error)
        if not usable:
            sys.exit(SPOILED)


if __name__ == "__main__":
    main(sys.argv[1:])
