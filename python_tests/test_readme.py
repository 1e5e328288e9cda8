"""The README's examples for hosts of all kinds run as they are printed."""

import os
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas  # noqa: F401 - the README's example has it
import torch
import transformers
from build_tools import SOURCE, environment, output, tool
from PIL import Image

import mi_pruner_cuda
from mi_pruner_cuda.demo import model_path, scenes

README = (SOURCE / "README.md").read_text()
IN_NUMPY, IN_C = "NumPy hosts", "From C and C++"
IN_MODELS, IN_ENGINES = "Hugging Face models", "Serving engines"
IN_PROCESSES = "Several processes"


def section(heading):
    found = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert found, f"the README has no section {heading!r}"
    return found


def examples(heading, language):
    """The blocks of code in this language below a heading."""
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, section(heading), re.DOTALL | re.MULTILINE)


def example(heading, language):
    """The first of them."""
    return examples(heading, language)[0]


def test_numpy_hosts(tmp_path):
    without_torch = "import sys; sys.modules['torch'] = None\n"
    program = without_torch + example(IN_NUMPY, "python") + "print(visual.shape, kept.shape)\n"
    assert output(sys.executable, "-c", program, cwd=tmp_path) == "(144, 4096) (144,)\n"


def test_hugging_face(tmp_path, monkeypatch):
    """With the demo model in the place of a large one."""
    monkeypatch.chdir(tmp_path)
    model = transformers.AutoModelForImageTextToText.from_pretrained(model_path()).eval()
    processor = transformers.AutoProcessor.from_pretrained(model_path())
    image, question = Image.new("RGB", (224, 224), "red"), "what colour is the 7?"
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}])
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    drawn = [scenes.render(seed, split="train") for seed in range(40)]
    pairs = [(scene.image, scenes.ask(scene, seed=5).text) for scene in drawn]
    names = {**globals(), **locals()}
    for code in examples(IN_MODELS, "python"):
        exec(code, names)
    assert len(names["frame"]) == 256 and names["frame"].kept.sum() == 64
    assert Image.open("kept.png").size[0] > 500
    assert question in Path("kept.html").read_text()
    assert mi_pruner_cuda.Critic.load("critic.safetensors").pairs == 40


def test_engines():
    images = [torch.randn(576, 8), torch.randn(1024, 8)]
    text, image_id = torch.randn(5, 8), 9
    input_ids = torch.tensor([1, *[image_id] * 576, 2, *[image_id] * 1024, 3])
    mrope_positions = torch.arange(len(input_ids)).expand(3, -1)
    names = locals()
    exec(example(IN_ENGINES, "python"), names)
    assert names["counts"] == [144, 256]
    assert names["rows"].shape == (400, 8) and names["ids"].shape == (403,)
    assert names["where"].values.shape == (3, 403)
    assert names["where"].next_position == len(input_ids)
    assert len(set(names["key"])) == 2


def test_several_processes(tmp_path):
    """A group of one: python_tests/test_distributed.py has more."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        names = {"visual_shard": torch.randn(16, 8), "text": torch.randn(3, 8)}
        exec(example(IN_PROCESSES, "python"), names)
    finally:
        torch.distributed.destroy_process_group()
    expected = mi_pruner_cuda.select(names["visual_shard"], names["text"], 0.25).indices
    assert torch.equal(names["rows"], names["visual_shard"][expected])


# What an engine has before it calls, and what it does with the result.
AROUND_C = """
#include <stdio.h>
#include <stdlib.h>
{includes}
int main(void) {{
  const float *image_rows = calloc(576 * 4096, sizeof(float));
  const float *word_rows = calloc(12 * 4096, sizeof(float));
{example}
  printf("%d %d %d\\n", (int)status, (int)kept[0], (int)kept[143]);
  return 0;
}}
"""
AROUND_CXX = """
#include <cstdio>
#include <vector>
{includes}
int main() {{
  const std::vector<float> image_rows(576 * 4096), word_rows(12 * 4096);
{example}
}}
"""


def build_and_run(code, around, compiler, standard, file):
    """What an example prints, in a program around it that is linked with the library."""
    lines = code.splitlines()
    includes = [line for line in lines if line.startswith("#include")]
    body = "\n".join(line for line in lines if line not in includes)
    file.write_text(
        around.format(includes="\n".join(includes), example=textwrap.indent(body, "  "))
    )
    library = mi_pruner_cuda.get_library_dir()
    output(
        tool(compiler), f"-std={standard}", "-pedantic", "-Wall", "-Wextra", "-Werror", file,
        f"-I{mi_pruner_cuda.get_include()}", f"-L{library}", f"-Wl,-rpath,{library}",
        "-lmipruner", "-o", file.with_suffix(""),
    )  # fmt: skip
    return output(file.with_suffix(""))


def kept_of_zeros(count):
    """What Python keeps of the examples' 576 rows for their 12 words."""
    visual, text = np.zeros((576, 4096), "float32"), np.zeros((12, 4096), "float32")
    return mi_pruner_cuda.numpy.select(visual, text, count).indices.tolist()


def test_c(tmp_path):
    """With rows of zeros, which cannot be told apart: a warning."""
    kept = kept_of_zeros(144)
    printed = build_and_run(example(IN_C, "c"), AROUND_C, "cc", "c99", tmp_path / "engine.c")
    assert printed == f"2 {kept[0]} {kept[-1]}\n"


def test_cpp(tmp_path):
    printed = build_and_run(
        example(IN_C, "cpp"), AROUND_CXX, "c++", "c++17", tmp_path / "engine.cpp"
    )
    assert printed.split() == [str(row) for row in kept_of_zeros(64)]


def commands():
    """The README's command lines that ask Python for folders, each with its continuation."""
    lines = re.findall(r"^    ((?:.*\\\n)*.*)$", section(IN_C), re.MULTILINE)
    return [line for line in lines if "mi_pruner_cuda" in line]


def test_the_commands_that_ask_python_for_folders(tmp_path):
    engine = "cmake_minimum_required(VERSION 3.18)\nproject(engine LANGUAGES C)\n"
    engine += f"add_executable(my_engine engine.c)\n{example(IN_C, 'cmake')}"
    (tmp_path / "CMakeLists.txt").write_text(engine)
    (tmp_path / "engine.c").write_text("#include <mipruner/mipruner.h>\nint main(void) {}\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands():
        output("sh", "-c", command, cwd=tmp_path, env=environment(PATH=path))
    output(tool("cmake"), "--build", tmp_path / "build")
    assert len(commands()) == 2
