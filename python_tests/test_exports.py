"""The binaries of libmipruner: what they show, what they need, and what they are called."""

import re
from pathlib import Path

import pytest
from build_tools import C_LIBRARIES, SOURCE, dynamic_section, symbols

import mi_pruner_cuda
from mi_pruner_cuda.build_info import build_info

HEADER = (SOURCE / "csrc/include/mipruner/mipruner.h").read_text()
LIBRARIES = sorted(Path(mi_pruner_cuda.get_library_dir()).glob("*.so.*"), key=lambda f: f.name)
libraries = pytest.mark.parametrize("library", LIBRARIES, ids=lambda file: file.name)


def declared_functions():
    """The functions of mipruner.h that a library has to bring."""
    code = re.sub(r"/\*.*?\*/|^#.*?$", "", HEADER, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"\bMIPRUNER_API\s+[\w\s*]+?\b(mipruner_\w+)\s*\(", code)


def test_the_header_is_read_as_it_is_written():
    functions = declared_functions()
    assert {"mipruner_version", "mipruner_select", "mipruner_gather_positions"} <= set(functions)
    assert len(functions) == len(set(functions)) == HEADER.count("\nMIPRUNER_API ")


def test_cuda_has_a_library_of_its_own():
    names = [file.name.partition(".")[0] for file in LIBRARIES]
    assert names == ["libmipruner"] + ["libmipruner_cuda"] * build_info()["has_cuda"]


@libraries
def test_the_functions_of_the_header_are_shown_and_nothing_else(library):
    assert symbols(library, "--defined-only") == set(declared_functions())


@libraries
def test_the_soname_is_the_abi_version(library):
    (abi,) = re.findall(r"^#define MIPRUNER_ABI_VERSION (\d+)$", HEADER, re.MULTILINE)
    soname = dynamic_section(library)[1]
    assert soname == library.name == f"{library.name.partition('.')[0]}.so.{abi}"


@libraries
def test_the_c_library_is_all_it_needs(library):
    needed, _, paths = dynamic_section(library)
    assert needed <= C_LIBRARIES and "libc.so.6" in needed
    assert paths == []
    assert not {s for s in symbols(library, "--undefined-only") if re.match(r"_*(cuda|cu[A-Z])", s)}


@libraries
def test_no_folder_of_the_build_machine_is_in_it(library):
    assert str(SOURCE).encode() not in library.read_bytes()
