"""mipruner-mtmd as its users meet it: a command, its output and its exit code.

MIPRUNER_MTMD   the program; by default where csrc/tests/llama_cpp builds it
"""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from PIL import Image, ImageDraw
from tiny_gguf import KINDS

from mi_pruner_cuda import defaults, keep_count

_SECONDS = 120
_BY_DEFAULT = ("--threads", "1", "--n-predict", "6")


class Program:
    """Runs mipruner-mtmd with a pair of models."""

    def __init__(self, path: Path, models: Path):
        self.path = path
        self.models = models

    def pair(self, kind: str) -> list[str]:
        folder = self.models / kind
        return ["--model", str(folder / "model.gguf"), "--mmproj", str(folder / "mmproj.gguf")]

    def bare(self, *arguments, stdin: str = "") -> subprocess.CompletedProcess:
        command = [str(self.path), *map(os.fsencode, map(str, arguments))]
        done = subprocess.run(
            command, input=os.fsencode(stdin), capture_output=True, timeout=_SECONDS, check=False
        )
        done.stdout, done.stderr = (
            stream.decode(errors="replace") for stream in (done.stdout, done.stderr)
        )
        return done

    def run(self, *arguments, kind: str = "llava", stdin: str = "") -> subprocess.CompletedProcess:
        return self.bare(*self.pair(kind), *_BY_DEFAULT, *arguments, stdin=stdin)

    def answer(self, *arguments, **rest) -> str:
        """What a run that must succeed writes to standard output."""
        done = self.run(*arguments, **rest)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def program(models, programs) -> Program:
    path = Path(os.environ.get("MIPRUNER_MTMD", programs / "mipruner" / "mipruner-mtmd"))
    if not path.exists():
        raise pytest.UsageError(f"MIPRUNER_MTMD: there is no {path}; `make test-llama` builds it")
    return Program(path, models)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    """Two pictures of different sizes."""
    folder = tmp_path_factory.mktemp("images")
    paths = []
    for name, size, colour in (("a.png", (320, 240), "red"), ("b.jpg", (200, 300), "blue")):
        picture = Image.new("RGB", size, "white")
        ImageDraw.Draw(picture).ellipse((40, 40, 160, 160), fill=colour)
        picture.save(folder / name)
        paths.append(folder / name)
    return paths


@pytest.fixture(scope="module")
def question(images) -> list[str]:
    """The arguments of one image and one question."""
    return ["--image", str(images[0]), "--prompt", "what colour is the circle?"]


def _kept(stderr: str) -> list[tuple[int, int]]:
    """(kept, all) of every image, as the program reports them."""
    found = re.findall(r": (\d+) of (\d+) tokens kept", stderr)
    return [(int(kept), int(rows)) for kept, rows in found]


def _prompt_tokens(stderr: str) -> list[int]:
    return [int(count) for count in re.findall(r"^prompt: (\d+) tokens", stderr, re.MULTILINE)]


def _dump(program: Program, tmp_path: Path, *arguments, kind: str = "llava") -> dict:
    path = tmp_path / "kept.json"
    program.answer(*arguments, "--dump-keep", path, kind=kind)
    return json.loads(path.read_text())


# ---- the command line ----

_SHORT = ["-n", "6"]
_SAMPLED = ["-n", "6", "--temp", "2", "--seed", "1"]
# By option: the default that help names, a value that does something else, and what it takes to see
# that. --gpu-layers is not among them: without a GPU nobody can see it.
_DEFAULTS = {
    "keep": ("0.25", "0.5", _SHORT),
    "query": ("message", "all", _SHORT),
    "estimator": ("specific", "joint", _SHORT),
    "redundancy": (f"{defaults.REDUNDANCY:g}", "0", _SHORT),
    "coverage": (f"{defaults.COVERAGE:g}", "1", _SHORT),
    "mi-temperature": (f"{defaults.TEMPERATURE:g}", "2", _SHORT),
    "min-tokens": ("0", "576", _SHORT),
    "ctx-size": ("4096", "512", ["-p", "x " * 9000]),
    "batch-size": ("2048", "1024", ["-n", "1", "--bench", "1", "--no-warmup"]),
    "ubatch-size": ("512", "256", ["-n", "1", "--bench", "1", "--no-warmup"]),
    "n-predict": ("512", "7", ["endless"]),
    "temp": ("0", "2", ["-n", "6", "--seed", "1"]),
    "top-k": ("40", "1", _SAMPLED),
    "top-p": ("0.95", "0.01", _SAMPLED),
    "bench": ("5", "2", ["-n", "1", "--no-warmup"]),
}
_DEFAULTS_IN_WORDS = {
    "chat-template": "Default: the model's own",
    "threads": "default: as many as the machine has",
    "threads-batch": "default: as -t",
    "seed": "default: a different one each time",
    "gpu-layers": "-1 (default): all",
}


def _described(text: str) -> dict[str, str]:
    """What --help says of each option, in its order."""
    parts = re.split(r"^  (?:-\w+, )?--([\w-]+)(?= |\n)", text, flags=re.MULTILINE)[1:]
    # A description is indented; the heading of the next group is not.
    described = [re.split(r"\n(?! {10})", part)[0] for part in parts[1::2]]
    return {name: " ".join(d.split()) for name, d in zip(parts[::2], described, strict=True)}


def _named_default(text: str) -> str:
    """The one value that is called the default: "default 5", "specific (default)"."""
    text = text.replace(", the user's words (default)", " (default)")
    (found,) = re.findall(r"[Dd]efault (\S+?)[.,)]?(?: |$)|(\w+) \(default\)", text)
    return found[0] or found[1]


def test_help_names_every_option_and_the_parser_knows_each(program):
    done = program.bare("--help")
    assert (done.returncode, done.stderr) == (0, "")
    names = re.findall(r"^  (?:-\w+, )?--([\w-]+)", done.stdout, re.MULTILINE)
    assert len(names) == len(set(names)) > 25
    for name in names:
        assert "no such option" not in program.bare(f"--{name}").stderr, name
    for dashed in re.findall(r"^  (-\w+), --", done.stdout, re.MULTILINE):
        assert "no such option" not in program.bare(dashed).stderr, dashed
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "Exit codes: 0" in done.stdout
    described = _described(done.stdout)
    assert list(described) == names
    assert {name: text for name, text in described.items() if "efault" in text}.keys() == {
        *_DEFAULTS, *_DEFAULTS_IN_WORDS,
    }  # fmt: skip
    for name, (default, _, _) in _DEFAULTS.items():
        assert _named_default(described[name]) == default, name
    for name, words in _DEFAULTS_IN_WORDS.items():
        assert words in described[name], name


@pytest.mark.parametrize("name", _DEFAULTS)
def test_the_default_that_help_names_is_the_parsers(program, question, endless, tmp_path, name):
    """Asking for it changes nothing, and asking for another value does."""
    default, other, more = _DEFAULTS[name]
    question = [*(endless if "endless" in more else []), *question]
    more = [argument for argument in more if argument != "endless"]

    def seen(*arguments):
        path = tmp_path / "kept.json"
        dump = [] if "--bench" in (*more, *arguments) else ["--dump-keep", path]
        path.unlink(missing_ok=True)
        command = [*program.pair("llava"), "-t", "1", *question, *more, *arguments, *dump]
        done = program.bare(*command)
        counts = re.findall(
            r"answer: \d+ tokens|--ctx-size is \d+|batch \d+/\d+|medians of \d+|^\| .*? \|",
            done.stderr + done.stdout, re.MULTILINE,
        )  # fmt: skip
        answer = "" if "--bench" in command else done.stdout
        return counts, answer, path.read_text() if path.exists() else ""

    if name == "bench":
        assert seen("--bench") == seen("--bench", default) != seen("--bench", other)
    else:
        assert seen() == seen(f"--{name}", default) != seen(f"--{name}", other)


def test_version(program):
    from mi_pruner_cuda import __version__

    assert program.bare("--version").stdout == f"mipruner-mtmd {__version__}\n"


_RATIO = "a ratio in (0, 1], such as 0.25, or a count of 2 or more"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--model: missing"),
        (["-m", "x"], "--mmproj: missing"),
        (["-m", ""], '--model: got "", allowed is the path of a file'),
        (["-m"], "--model: needs a value, FILE"),
        (["--keep", "0"], f'--keep: got "0", allowed is {_RATIO}'),
        (["--keep", "1.01"], f'--keep: got "1.01", allowed is {_RATIO}'),
        (["--keep", "-4"], f'--keep: got "-4", allowed is {_RATIO}'),
        (["--keep", "nan"], f'--keep: got "nan", allowed is {_RATIO}'),
        (["--keep", "12x"], f'--keep: got "12x", allowed is {_RATIO}'),
        (["--keep", "9999999999"], f'--keep: got "9999999999", allowed is {_RATIO}'),
        (["--redundancy", "-0.1"], '--redundancy: got "-0.1", allowed is a number of at least 0'),
        (["--redundancy", "inf"], '--redundancy: got "inf", allowed is a number of at least 0'),
        (["--coverage", "1.5"], '--coverage: got "1.5", allowed is a number from 0 to 1'),
        (["--mi-temperature", "0"], '--mi-temperature: got "0", allowed is a number above 0'),
        (["--min-tokens", "-1"], '--min-tokens: got "-1", allowed is a whole number from 0'),
        (["--estimator", "best"], "allowed is one of specific, posterior, joint and cosine"),
        (["--query", "words"], '--query: got "words", allowed is message or all'),
        (["-t", "0"], '--threads: got "0", allowed is a whole number from 1 to 1024'),
        (["-c", "4k"], '--ctx-size: got "4k", allowed is a whole number from 1'),
        (["-ub", "0"], '--ubatch-size: got "0", allowed is a whole number from 1'),
        (["-n", "0"], '--n-predict: got "0", allowed is a whole number from 1'),
        (["--top-p", "1.5"], '--top-p: got "1.5", allowed is a number from 0 to 1'),
        (["--bench", "0"], '--bench: got "0", allowed is a whole number from 1 to 1000'),
        (["--nonsense"], "--nonsense: there is no such option"),
        (["-z"], "-z: there is no such option"),
        (["--verbose=3"], "--verbose: takes no value"),
        (["photo.jpg"], '"photo.jpg" belongs to no option'),
        (["-m", "x", "--mmproj", "y", "-p", ""], '--prompt: got "", allowed is any text'),
        (["-p", "caf\udce9 \n"], r'--prompt: got "caf\xe9 \x0a", allowed is text in UTF-8'),
        (["-p", "caf\udcc3"], r'--prompt: got "caf\xc3", allowed is text in UTF-8'),
        (["-sys", "\udcc0\udcaf"], r'--system-prompt: got "\xc0\xaf", allowed is text in UTF-8'),
        (["--keep", "\udce9"], rf'--keep: got "\xe9", allowed is {_RATIO}'),
        (
            ["-m", "x", "--mmproj", "y", "--keep", "1", "--keep", "2"],
            "--keep: given more than once",
        ),
        (["-m", "x", "--mmproj", "y", "--bench"], "--bench: needs --image and --prompt"),
        (["-m", "x", "--mmproj", "y", "--no-prune", "--keep", "1"], "exclude each other"),
        (["-m", "x", "--mmproj", "y", "--no-prune", "--dump-keep", "z"], "exclude each other"),
    ],
)
def test_a_wrong_command_line_is_a_sentence_and_exit_code_2(program, arguments, sentence):
    done = program.bare(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stdout == ""


def test_an_unknown_template_is_named_with_the_known_ones(program, question):
    done = program.run(*question, "--chat-template", "klingon")
    assert done.returncode == 2
    assert '--chat-template: got "klingon", allowed are none, ' in done.stderr
    assert ", vicuna" in done.stderr


# ---- what cannot be done ----


def _broken_files(folder: Path, models: Path) -> None:
    (folder / "text.jpg").write_text("not a picture")
    (folder / "empty.png").write_bytes(b"")
    whole = (models / "llava" / "model.gguf").read_bytes()
    (folder / "short.gguf").write_bytes(whole[:5000])
    (folder / "folder").mkdir()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "nowhere.gguf"], "--model: there is no file nowhere.gguf"),
        (["--model", "folder"], "--model: folder is a folder"),
        (["--model", "short.gguf"], "--model: cannot load short.gguf"),
        (["--model", "text.jpg"], "--model: cannot load text.jpg"),
        (["--mmproj", "nowhere.gguf"], "--mmproj: there is no file nowhere.gguf"),
        (["--mmproj", "text.jpg"], "--mmproj: cannot use text.jpg with "),
        (["--image", "nowhere.png"], "cannot load the image nowhere.png"),
        (["--image", "text.jpg"], "cannot load the image text.jpg"),
        (["--image", "empty.png"], "cannot load the image empty.png"),
        (["--image", "folder"], "cannot load the image folder: it is a folder"),
        (["--dump-keep", "no/such/folder.json"], "--dump-keep: cannot write no/such/folder.json"),
        (["--dump-keep", "folder"], "--dump-keep: cannot write folder: it is not a plain file"),
        (["--dump-keep", "/dev/stdout"], "cannot write /dev/stdout: it is not a plain file"),
        (["--prompt", "<__media__> <__media__> x"], "the marker <__media__> 2 times, and images"),
        (["--prompt", "x" * 9000, "-c", "512"], "and --ctx-size is 512"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_exit_code_1(
    program, question, tmp_path, monkeypatch, arguments, sentence
):
    _broken_files(tmp_path, program.models)
    monkeypatch.chdir(tmp_path)
    done = program.run(*question, *arguments)
    assert done.returncode == 1, done.stderr
    assert sentence in done.stderr
    assert done.stdout == ""


def test_a_projector_of_another_model_is_refused(program, question):
    done = program.run(*question, kind="llava_mismatched")
    assert done.returncode == 1
    assert "--mmproj: cannot use" in done.stderr
    assert "mismatch" in done.stderr


def test_a_prompt_that_ends_in_an_image_is_refused(program, question):
    done = program.run(*question, "--prompt", "look <__media__>", "--chat-template", "none")
    assert done.returncode == 1
    assert "ends in an image" in done.stderr


def test_an_image_without_causal_attention_must_fit_in_one_step(program, question):
    done = program.run(*question, "--keep", "1", "--ubatch-size", "32", kind="gemma3")
    assert done.returncode == 1
    assert "n_ubatch" in done.stderr
    done = program.run(*question, "--no-prune", "--ubatch-size", "32", kind="gemma3")
    assert done.returncode == 1
    assert "--ubatch-size allow 32" in done.stderr
    assert program.answer(*question, "--keep", "20", "--ubatch-size", "32", kind="gemma3")


_PRINTING = [["--help"], ["--version"], ["-p", "hello"], ["--bench", "1", "--no-warmup"]]


@pytest.mark.parametrize("arguments", _PRINTING)
def test_a_full_standard_output_is_a_failure(program, question, arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [str(program.path), *program.pair("llava"), *_BY_DEFAULT, *question, *arguments],
            stdout=full, stderr=subprocess.PIPE, timeout=_SECONDS, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert b"could not be written to standard output: No space left on device\n" in done.stderr


@pytest.mark.parametrize("arguments", _PRINTING)
def test_a_reader_who_leaves_is_no_failure(program, question, arguments):
    """The program ends as by the signal, with nothing to say about it."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as closed:
        done = subprocess.run(
            [str(program.path), *program.pair("llava"), *_BY_DEFAULT, *question, *arguments],
            stdout=closed, stderr=subprocess.PIPE, timeout=_SECONDS, check=False,
        )  # fmt: skip
    assert done.returncode == -signal.SIGPIPE
    assert b"mipruner-mtmd: " not in done.stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("chatting", [False, True])
def test_the_dump_is_written_before_anything_is_said(
    program, images, endless, tmp_path, stream, chatting
):
    """Nor is the rest of an answer waited for that nobody reads."""
    path = tmp_path / "kept.json"
    command = [str(program.path), *program.pair("llava"), *endless, "--threads", "1",
               "--image", str(images[0]), "--dump-keep", str(path), "--verbose",
               *([] if chatting else ["-p", "what is it?"]),
               "-n", "9" if stream == "stderr" else "1000000", "-c", "32768"]  # fmt: skip
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as closed:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: closed}
        done = subprocess.run(
            command, **streams, input=b"what is it?\n", timeout=_SECONDS, check=False
        )
    assert json.loads(path.read_text())["images"][0]["n_keep"] == 144
    if stream == "stdout":
        assert done.returncode == -signal.SIGPIPE
        assert done.stderr and b"answer: " not in done.stderr
    else:
        assert done.returncode == 0
        assert done.stdout.endswith(b"\n") and len(done.stdout) > 1


# ---- files that are read ----


def _snapshot(*paths) -> list[bytes]:
    return [Path(path).read_bytes() for path in paths]


@pytest.mark.parametrize("way", ["itself", "hard link", "other spelling", "linked folder"])
def test_the_dump_overwrites_nothing_that_is_read(program, images, tmp_path, way):
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "linked").symlink_to(folder)
    (folder / "deeper").mkdir()
    for path, name in (
        (program.models / "llava" / "model.gguf", "model.gguf"),
        (program.models / "llava" / "mmproj.gguf", "mmproj.gguf"),
        (images[0], "a.png"), (images[1], "b.jpg"),
    ):  # fmt: skip
        shutil.copy(path, folder / name)
        os.link(folder / name, folder / f"hard-{name}")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    before = _snapshot(*files)
    arguments = ["--model", folder / "model.gguf", "--mmproj", folder / "mmproj.gguf",
                 "--image", folder / "a.png", "--image", folder / "b.jpg", "-p", "x"]  # fmt: skip
    for option, name in (("--model", "model.gguf"), ("--mmproj", "mmproj.gguf"),
                         ("--image", "a.png"), ("--image", "b.jpg")):  # fmt: skip
        target = {"itself": folder / name, "hard link": folder / f"hard-{name}",
                  "other spelling": f"{folder}/deeper/..//{name}",
                  "linked folder": tmp_path / "linked" / name}[way]  # fmt: skip
        done = program.bare(*arguments, "--dump-keep", target)
        assert done.returncode == 2
        assert f"--dump-keep: {target} is read as {option}, allowed is another file" in done.stderr
    assert _snapshot(*files) == before


def test_the_dump_overwrites_no_part_of_a_split_model(program, tmp_path, question):
    _rewrite(program.models / "llava" / "model.gguf", tmp_path / "m.gguf", split_max_tensors=11)
    first, *_, last = sorted(tmp_path.glob("m-*.gguf"))
    before = _snapshot(first, last)
    done = program.run(*question, "--model", first, "--dump-keep", last)
    assert done.returncode == 2
    assert "is read as --model" in done.stderr
    assert _snapshot(first, last) == before


def test_the_dump_is_not_where_the_answer_goes(program, question, tmp_path):
    path = tmp_path / "kept.json"
    command = [str(program.path), *program.pair("llava"), *_BY_DEFAULT, *question,
               "--dump-keep", str(path)]  # fmt: skip
    for stream in ("stdout", "stderr"):
        other = "stderr" if stream == "stdout" else "stdout"
        with path.open("wb") as file:
            streams = {stream: file, other: subprocess.PIPE}
            done = subprocess.run(command, **streams, timeout=_SECONDS, check=False)
        assert done.returncode == 2
        said = path.read_bytes() if stream == "stderr" else done.stderr
        assert b"is where standard output or error goes" in said


def test_an_image_of_a_chat_is_not_the_dump(program, images, tmp_path):
    path = tmp_path / "kept.json"
    lines = [f"/image {images[0]}", "what is it?", f"/image {path}", "caf\udce9", "and now?"]
    done = program.run("--dump-keep", path, stdin="".join(f"{line}\n" for line in lines))
    assert done.returncode == 0
    assert f"/image: {path} is the file of --dump-keep, allowed is another one" in done.stderr
    assert r'got "caf\xe9", allowed is text in UTF-8' in done.stderr
    assert done.stderr.count("answer: ") == 2
    assert json.loads(path.read_text())["message"] == "what is it?"


def test_an_image_may_come_through_a_pipe(program, images, tmp_path):
    asking = ["-p", "what is it?", "--image"]
    expected = _dump(program, tmp_path, *asking, images[1])["images"][0]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(images[1].read_bytes()), daemon=True)
    writer.start()
    found = _dump(program, tmp_path, *asking, pipe)["images"][0]
    writer.join()
    assert found.pop("file") == str(pipe) and expected.pop("file") == str(images[1])
    assert found == expected
    done = program.run(*asking, "/dev/zero")  # has no end
    assert done.returncode == 1
    assert "cannot load the image /dev/zero: above 256 MiB" in done.stderr


@pytest.mark.parametrize("option", ["--model", "--mmproj"])
def test_a_model_through_a_pipe_is_refused(program, question, tmp_path, option):
    """Nobody writes to it: it is not even opened."""
    os.mkfifo(tmp_path / "pipe")
    done = program.run(*question, option, tmp_path / "pipe")
    assert done.returncode == 1
    assert f"{option}: {tmp_path}/pipe is a pipe or a device, allowed is a plain" in done.stderr


# ---- one answer ----


@pytest.mark.parametrize("kind", KINDS)
def test_keeping_everything_answers_as_llama_cpp_alone(program, images, kind):
    arguments = ["--image", images[0], "--image", images[1], "-p", "what is there?", "-n", "16"]
    whole = program.answer(*arguments, "--no-prune", kind=kind)
    assert program.answer(*arguments, "--keep", "1", kind=kind) == whole
    assert program.answer(*arguments, "--keep", "1.0", kind=kind) == whole
    done = program.run(*arguments, "--keep", "0.1", kind=kind)
    assert done.returncode == 0
    assert done.stdout.endswith("\n") and len(done.stdout) > 1
    for kept, rows in _kept(done.stderr):
        assert kept == keep_count(rows, 0.1)
    assert len(_kept(done.stderr)) == 2


@pytest.mark.parametrize(
    ("keep", "kept"), [("0.25", 144), ("1", 576), ("1.0", 576), ("0.0001", 1), ("2", 2),
                       ("64", 64), ("5e-1", 288), ("576", 576), ("100000", 576)],
)  # fmt: skip
def test_a_ratio_has_a_point_and_a_count_has_none(program, question, keep, kept):
    done = program.run(*question, "--keep", keep)
    assert _kept(done.stderr) == [(kept, 576)]


def test_a_quarter_is_kept_unless_asked_otherwise(program, question):
    assert _kept(program.run(*question).stderr) == [(144, 576)]
    assert _kept(program.run(*question, "--min-tokens", "576").stderr) == [(576, 576)]
    assert _kept(program.run(*question, "--min-tokens", "575").stderr) == [(144, 576)]


def test_answers_are_the_same_each_time_and_sampled_ones_by_their_seed(program, question):
    assert program.answer(*question) == program.answer(*question)
    sampled = [*question, "--temp", "2", "-n", "12", "--seed"]
    assert program.answer(*sampled, "1") == program.answer(*sampled, "1")
    assert program.answer(*sampled, "1") != program.answer(*sampled, "2")


def test_the_number_of_threads_changes_nothing_that_is_kept(program, question, tmp_path):
    one = _dump(program, tmp_path, *question, "-t", "1")
    assert _dump(program, tmp_path, *question, "-t", "2", "-tb", "2")["images"] == one["images"]


def test_a_prompt_without_images(program):
    done = program.run("-p", "hello")
    assert done.returncode == 0
    assert "encoding" not in done.stderr
    assert done.stdout.strip()


def test_the_template_surrounds_message_and_system_prompt(program, question):
    done = program.run(*question, "--verbose", "-sys", "Be brief.")
    expected = "Be brief.\n\nUSER: <__media__>what colour is the circle?\nASSISTANT:\n"
    assert f"prompt text: {expected}" in done.stderr
    done = program.run(*question, "--verbose", "--chat-template", "none")
    assert "prompt text: <__media__>what colour is the circle?\n" in done.stderr


def test_a_model_with_a_template_that_llama_cpp_lacks_gets_a_plain_one(program, tmp_path, question):
    rewritten = tmp_path / "model.gguf"
    _rewrite(program.models / "llava" / "model.gguf", rewritten, chat_template="{{ x }}")
    done = program.run(*question, "--model", rewritten, "--verbose")
    assert done.returncode == 0
    assert 'using plain "User: ... Assistant:"' in done.stderr
    assert "prompt text: User: <__media__>what colour is the circle?\nAssistant:\n" in done.stderr


def test_a_split_model(program, tmp_path, question):
    _rewrite(program.models / "llava" / "model.gguf", tmp_path / "m.gguf", split_max_tensors=11)
    shards = sorted(tmp_path.glob("m-*.gguf"))
    assert len(shards) > 2
    assert "token_embd.weight" in _tensor_names(shards[-1])
    assert program.answer(*question, "--model", shards[0]) == program.answer(*question)


# ---- what is written down ----


def test_the_dump_holds_what_was_kept_and_why(program, images, tmp_path):
    dump = _dump(
        program, tmp_path, "--image", images[0], "--image", images[1], "--keep", "40",
        "--redundancy", "0", "--coverage", "0",
        "-p", "first <__media__> then <__media__>, which is red?",
    )  # fmt: skip
    assert dump["message"] == "first <__media__> then <__media__>, which is red?"
    assert [Path(image["file"]).name for image in dump["images"]] == ["a.png", "b.jpg"]
    assert [image["image"] for image in dump["images"]] == [0, 1]
    assert dump["prompt_tokens_without_pruning"] - dump["prompt_tokens"] == 2 * (576 - 40)
    for image in dump["images"]:
        assert (image["n_rows"], image["n_keep"]) == (576, 40)
        scores = np.array(image["scores"])
        best = np.sort(np.argsort(-scores, kind="stable")[:40])
        assert image["kept"] == best.tolist()
        assert re.fullmatch("0x[0-9a-f]{16}", image["keep_hash"])
    assert dump["images"][0]["keep_hash"] != dump["images"][1]["keep_hash"]


def test_the_dump_has_the_query_and_the_grid(program, question, tmp_path):
    dump = _dump(program, tmp_path, *question, kind="qwen2vl")
    assert "".join(dump["query"]["pieces"]) == "what colour is the circle?"
    assert len(dump["query"]["pieces"]) == len(dump["query"]["tokens"])
    (image,) = dump["images"]
    assert image["nx"] * image["ny"] == image["n_rows"]
    assert abs(image["nx"] / image["ny"] - 320 / 240) < 0.2


def test_the_dump_replaces_a_file_at_once_and_leaves_nothing_beside_it(program, question, tmp_path):
    path = tmp_path / "kept.json"
    path.write_text("old")
    before = path.stat().st_ino
    _dump(program, tmp_path, *question)
    assert path.stat().st_ino != before
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.json"]


def test_a_failing_run_leaves_the_old_dump(program, question, tmp_path):
    path = tmp_path / "kept.json"
    path.write_text("old")
    arguments = [*question, "--dump-keep", path, "--prompt", "x" * 9000, "-c", "512"]
    assert program.run(*arguments).returncode == 1
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.json"]


def test_a_dump_does_not_follow_a_link(program, question, tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    done = program.run(*question, "--dump-keep", tmp_path / "link")
    assert done.returncode == 1
    assert (tmp_path / "target").read_text() == "old"


@pytest.mark.parametrize(
    ("name", "read_back"),
    [
        (b'quote " backslash \\ tab \t line \n.png', 'quote " backslash \\ tab \t line \n.png'),
        ("zażółć 図 🎨.png".encode(), "zażółć 図 🎨.png"),
        (b"latin \xe9 cut \xe5\x9b.png", "latin \ufffd cut \ufffd\ufffd.png"),
        (b"overlong \xc0\xaf surrogate \xed\xa0\x80.png",
         "overlong \ufffd\ufffd surrogate \ufffd\ufffd\ufffd.png"),
    ],
)  # fmt: skip
def test_any_file_name_makes_valid_json(program, images, tmp_path, name, read_back):
    folder = tmp_path / "named"
    folder.mkdir()
    path = os.path.join(os.fsencode(folder), name)
    shutil.copy(images[0], path)
    dump = _dump(program, tmp_path, "--image", os.fsdecode(path), "-p", "what?")
    assert dump["images"][0]["file"] == f"{folder}/{read_back}"


def test_scores_that_are_no_numbers_become_null(program, question, tmp_path):
    broken = tmp_path / "mmproj.gguf"
    shutil.copy(program.models / "llava" / "mmproj.gguf", broken)
    reader = GGUFReader(broken, "r+")
    next(tensor for tensor in reader.tensors if tensor.name == "mm.2.bias").data[0] = np.nan
    reader.data.flush()
    path = tmp_path / "kept.json"
    done = program.run(*question, "--mmproj", broken, "--dump-keep", path)
    assert done.returncode == 0, done.stderr
    assert "576 of 576 visual rows hold NaN or Inf" in done.stderr
    (image,) = json.loads(path.read_text())["images"]
    assert image["scores"] == [None] * 576
    assert image["kept"] == list(range(144))


def test_the_question_decides_what_is_kept(program, question, tmp_path):
    def kept(*arguments):
        return _dump(program, tmp_path, *question, *arguments)["images"][0]["keep_hash"]

    assert kept() == kept("-sys", "Be brief.")  # neither system prompt nor template is asked about
    assert kept() != kept("-p", "how many dogs run?")
    assert kept() != kept("--query", "all")
    assert kept("--query", "all") != kept("--query", "all", "-sys", "Be brief.")
    assert kept() != kept("--estimator", "joint")
    for option, default in (
        ("--redundancy", defaults.REDUNDANCY),
        ("--coverage", defaults.COVERAGE),
    ):
        assert kept() == kept(option, str(default))
        others = [value for value in (0, 0.5, 1) if value != default]
        assert len(others) >= 2
        for other in others:
            assert kept() != kept(option, str(other)), (option, other)
    assert kept() != kept("--mi-temperature", "2")


def test_a_message_without_words_is_scored_against_the_whole_prompt(program, question, tmp_path):
    path = tmp_path / "kept.json"
    done = program.run(*question, "-p", "<__media__>", "--dump-keep", path)
    assert "the message has no words" in done.stderr
    expected = _dump(program, tmp_path, *question, "-p", "<__media__>", "--query", "all")
    assert json.loads(path.read_text())["images"] == expected["images"]


# ---- the benchmark ----


def _table(stdout: str) -> dict[str, dict[str, str]]:
    lines = [line for line in stdout.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    header, _, *rows = cells
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


@pytest.mark.parametrize("kind", KINDS)
def test_the_benchmark_counts_tokens_bytes_and_times(program, question, kind):
    stdout = program.answer(
        *question, "--bench", "2", "--keep", "1", "--keep", "0.5", "--keep", "20", kind=kind
    )
    table = _table(stdout)
    assert list(table) == ["unpruned", "keep 1", "keep 0.5", "keep 20"]
    assert "keep 1: the logits are bit for bit those of llama.cpp's own functions" in stdout
    rows = int(table["unpruned"]["image tokens"])
    text = int(table["unpruned"]["prompt tokens"]) - rows
    counts = [rows, rows, keep_count(rows, 0.5), 20]
    for row, count in zip(table.values(), counts, strict=True):
        assert int(row["image tokens"]) == count
        assert int(row["prompt tokens"]) == count + text
        for column in ("encode ms", "prefill ms", "its image ms", "decode ms"):
            assert float(row[column]) > 0
        assert float(row["its image ms"]) < float(row["prefill ms"])  # there is text too
    sizes = [int(row["KV bytes"]) for row in table.values()]
    assert sizes[0] == sizes[1] > sizes[2] > sizes[3]
    for times, ratio in (("prefill ms", "prefill speed-up"), ("its image ms", "image speed-up")):
        assert table["unpruned"][ratio] == "-"
        speed_up = float(table["unpruned"][times]) / float(table["keep 20"][times])
        assert float(table["keep 20"][ratio][:-1]) == pytest.approx(speed_up, rel=0.1)


def test_the_benchmark_stands_on_its_own_arguments(program, question):
    table = _table(program.answer("--bench", *question))  # the next word is an option, no number
    assert list(table) == ["unpruned", "keep 0.25"]
    stdout = program.answer(
        *question, "--bench=1", "--no-warmup", "-tb", "2", "-b", "64", "-ub", "32"
    )
    assert "1 threads (2 for the prompt), batch 64/32\nmedians of 1 runs\n" in stdout


# ---- the chat ----


def _chat(program: Program, lines: list[str], *arguments, kind: str = "llava"):
    done = program.run(*arguments, kind=kind, stdin="".join(f"{line}\n" for line in lines))
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("kind", KINDS)
def test_a_chat_reads_an_image_once_and_goes_on_behind_it(program, images, kind):
    lines = [f"/image {images[0]}", "/keep 50", "what is it?", "", "and now?", "/clear",
             f"/image {images[0]}", "what is it?", "/exit", "not said"]  # fmt: skip
    # With all rows of the image in it the context would be full.
    done = _chat(program, lines, "-c", "256", kind=kind)
    assert [kept for kept, _ in _kept(done.stderr)] == [50, 50]
    first, second, again = _prompt_tokens(done.stderr)
    assert first == again > 50 > second
    single = program.answer("--image", images[0], "--keep", "50", "-p", "what is it?", kind=kind)
    assert done.stdout.startswith(single)
    assert done.stdout.endswith(single)
    assert len(done.stdout) > 2 * len(single)  # the second answer is between


def test_the_second_message_closes_the_answer_before_it(program):
    done = _chat(program, ["hello", "more"], "--verbose")
    assert "prompt text: USER: hello\nASSISTANT:\n" in done.stderr
    assert "prompt text: </s>\nUSER: more\nASSISTANT:\n" in done.stderr
    # On its own the text has one token more: the one that begins a sequence, and only that.
    alone = program.run("-p", "</s>\nUSER: more\nASSISTANT:", "--chat-template", "none")
    assert _prompt_tokens(done.stderr)[1] == _prompt_tokens(alone.stderr)[0] - 1
    done = _chat(program, ["hello", "more"], "--verbose", kind="qwen2vl")
    opening = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    assert f"prompt text: {opening.format('hello')}" in done.stderr
    assert f"prompt text: <|im_end|>\n{opening.format('more')}" in done.stderr


def test_a_chat_survives_every_mistake(program, images, tmp_path):
    lines = ["/jump", "/image", "/image nowhere.png", "/keep", "/keep 0", "look at <__media__>",
             f"/image {images[1]}", "x" * 9000, "what is it?"]  # fmt: skip
    done = _chat(program, lines, "-c", "512")
    for sentence in ("no command /jump", "/image: needs the path", "cannot load the image nowhere",
                     '/keep: got ""', '/keep: got "0"', "1 times, and images were given: 0",
                     "--ctx-size is 512"):  # fmt: skip
        assert sentence in done.stderr
    # None of it has left a trace, and the image still goes with the next message: the answer is
    # that of a chat that starts with the question.
    assert done.stdout == program.answer("--image", images[1], "-p", "what is it?", "-c", "512")


def test_images_of_the_command_line_go_with_the_first_message(program, images):
    done = _chat(program, ["what is it?", "and now?"], "--image", images[0])
    assert len(_kept(done.stderr)) == 1


@pytest.fixture(scope="module")
def endless(program, tmp_path_factory) -> list[str]:
    """The arguments of a model that never ends an answer by itself."""
    path = tmp_path_factory.mktemp("endless") / "model.gguf"
    shutil.copy(program.models / "llava" / "model.gguf", path)
    reader = GGUFReader(path, "r+")
    end = reader.fields["tokenizer.ggml.eos_token_id"].contents()
    rows = next(tensor for tensor in reader.tensors if tensor.name == "output.weight").data
    rows[end] = 0  # some other token of thousands has a logit above 0
    reader.data.flush()
    return ["--model", str(path)]


def test_an_answer_ends_where_the_context_does(program, endless):
    done = program.run(*endless, "-p", "hello", "-c", "256", "-n", "5000")
    assert done.returncode == 0
    assert "cut off: the context is full" in done.stderr
    (prompt,) = _prompt_tokens(done.stderr)
    assert f"answer: {256 - prompt + 1} tokens" in done.stderr


def test_an_answer_ends_after_n_predict(program, endless):
    assert "answer: 7 tokens" in program.run(*endless, "-p", "hello", "-n", "7").stderr


def test_control_c_ends_an_answer_but_not_the_chat(program, endless):
    command = [str(program.path), *program.pair("llava"), *endless,
               "-t", "1", "-n", "30000", "-c", "32768"]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as chat:
        chat.stdin.write(b"hello\n")
        chat.stdin.flush()
        assert chat.stdout.read(1)  # the answer has begun
        chat.send_signal(signal.SIGINT)
        _, stderr = chat.communicate(b"/keep 5\n/exit\n", timeout=_SECONDS)
    assert chat.returncode == 0
    assert b", stopped" in stderr


# ---- helpers that write files ----


def _tensor_names(path: Path) -> list[str]:
    return [tensor.name for tensor in GGUFReader(path).tensors]


def _rewrite(source: Path, target: Path, chat_template: str | None = None, **writing) -> None:
    """Copies a GGUF file with other settings; the token table goes last."""
    reader = GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(target, architecture, **writing)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = field.contents()
        if key == "tokenizer.chat_template" and chat_template:
            value = chat_template
        if field.types[0].name == "ARRAY":
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, field.types[0])
    for tensor in sorted(reader.tensors, key=lambda tensor: tensor.name == "token_embd.weight"):
        writer.add_tensor(tensor.name, np.array(tensor.data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
