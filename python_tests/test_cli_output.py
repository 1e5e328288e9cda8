"""What the command line must not lose: files that were asked for, files that were read, its manners
towards streams and arguments that are not what it would like."""

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mi_pruner_cuda
from mi_pruner_cuda import Critic, demo
from mi_pruner_cuda.commands import calibrate, main, prune, values
from mi_pruner_cuda.commands.streams import escaping

QUESTION = "what color is the 0 é ?"
LATIN = b"caf\xe9"  # no UTF-8


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A copy of the demo's picture, which a fault may overwrite."""
    return shutil.copy(demo.scene_path(), tmp_path_factory.mktemp("picture") / "scene.png")


def arguments(*more, image, question=QUESTION):
    argv = ["prune", "--model", demo.model_path(), "--image", image, "--question", question]
    return [*map(str, argv), "--threads", "1", "--max-new-tokens", "2", *map(os.fsdecode, more)]


@pytest.fixture(scope="module")
def result(picture):
    """What the model says, once for all tests of what becomes of it."""
    kept = []
    original = prune.run_prompt
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prune, "run_prompt", lambda *given: kept.append(original(*given)) or kept[0])
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(arguments("--compare", image=picture)) == 0
    return kept[0]


@pytest.fixture
def answered(monkeypatch, result):
    """The commands, with the model's part done beforehand."""
    monkeypatch.setattr(prune, "run_prompt", lambda *_, **__: result)


@pytest.fixture
def not_started(monkeypatch):
    """Fails where a model would be loaded for nothing."""

    def started(*_, **__):
        raise AssertionError("the model is loaded before the mistake is told")

    monkeypatch.setattr(prune, "run_prompt", started)


def three_files(folder, *, name=b"out"):
    """--json, --plot and --report, and their paths."""
    folder = os.fsencode(folder)
    paths = [os.path.join(folder, name + ending) for ending in (b".json", b".png", b".html")]
    options = ["--json", paths[0], "--plot", paths[1], "--report", paths[2]]
    return options, paths


def assert_complete(paths):
    numbers, plot, page = map(os.fsdecode, paths)
    with open(numbers, encoding="ascii") as file:
        assert json.load(file)["tokens_after"] == 64
    with Image.open(plot) as drawn:
        assert drawn.size[0] > 500
    with open(page, encoding="utf-8") as file:
        assert file.read().rstrip().endswith("</html>")


# ---- streams that take less than they are given ----


class Streams:
    """Standard outputs with a fault: a text stream, and the status that main is to return."""

    @staticmethod
    def closed_pipe(**options):
        read, write = os.pipe()
        os.close(read)
        return io.TextIOWrapper(open(write, "wb"), **options), 141

    @staticmethod
    def full_disk(**options):
        return io.TextIOWrapper(open("/dev/full", "wb"), **options), 2


@contextlib.contextmanager
def standard_output(stream):
    """sys.stdout for a while. Closing it fails where it holds what it cannot get rid of."""
    with stream, contextlib.redirect_stdout(stream):
        yield


@pytest.mark.parametrize("options", [{}, {"write_through": True}, {"line_buffering": True}])
@pytest.mark.parametrize("fault", ["closed_pipe", "full_disk"])
def test_the_files_are_there_before_anything_is_printed(
    fault, options, answered, picture, tmp_path, capsys
):
    stream, expected = getattr(Streams, fault)(encoding="utf-8", **options)
    more, paths = three_files(tmp_path)
    with standard_output(stream):
        assert main(arguments(*more, image=picture)) == expected
    assert_complete(paths)
    err = capsys.readouterr().err
    if fault == "closed_pipe":
        assert err == ""
    else:
        assert err == ("error: standard output cannot be written: No space left on device\n")


@pytest.mark.parametrize(
    "encoding, printed", [("ascii", "0 \\xe9 ?"), ("latin-1", "0 é ?"), ("cp437", "0 é ?")]
)
def test_what_a_stream_cannot_encode_is_escaped(encoding, printed, answered, picture, tmp_path):
    more, paths = three_files(tmp_path, name="図".encode())
    bytes_out = io.BytesIO()
    stream = io.TextIOWrapper(bytes_out, encoding)
    with contextlib.redirect_stdout(stream):
        assert main(arguments(*more, image=picture)) == 0
    assert stream.errors == "strict"  # as it was
    out = bytes_out.getvalue().decode(encoding)
    assert f"question  what color is the {printed}\n" in out
    assert f"numbers   {tmp_path}/\\u56f3.json\n" in out
    assert_complete(paths)


def test_the_demo_draws_before_it_prints(answered, tmp_path):
    stream, expected = Streams.closed_pipe()
    with standard_output(stream):
        assert main(["demo", "--out", str(tmp_path / "a.png")]) == expected
    assert Image.open(tmp_path / "a.png").size[0] > 500


@pytest.mark.parametrize("fault", ["closed_pipe", "full_disk"])
@pytest.mark.parametrize("command", [["models"], ["info"]])
def test_commands_that_only_print(command, fault, capsys):
    stream, expected = getattr(Streams, fault)()
    with standard_output(stream):
        assert main(command) == expected
    assert capsys.readouterr().err.count("\n") == (fault == "full_disk")


@pytest.mark.parametrize("fault", ["closed_pipe", "full_disk"])
def test_help_that_gets_lost(fault, capsys):
    stream, expected = getattr(Streams, fault)()
    with standard_output(stream):
        assert main(["prune", "--help"]) == expected
    assert capsys.readouterr().err.count("\n") == (fault == "full_disk")


def test_a_mistake_is_told_though_nobody_reads_standard_output(tmp_path, picture, capsys):
    stream, _ = Streams.closed_pipe()
    with standard_output(stream):
        assert main(arguments("--json", "no/such/a.json", image=picture)) == 2
    assert "error: json: " in capsys.readouterr().err


def test_a_mistake_that_nobody_hears_keeps_its_status(picture):
    stream, _ = Streams.closed_pipe(write_through=True)
    with stream, contextlib.redirect_stderr(stream):
        assert main(arguments("--keep", "0", image=picture)) == 2


def test_streams_that_are_none_of_the_systems(answered, picture):
    """A notebook's, a caller's own, and none at all (pythonw)."""
    for stream in (io.StringIO(), None):
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            assert main(arguments(image=picture)) == 0


def test_escaping_ends_with_an_exception():
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    with contextlib.redirect_stdout(stream):
        with pytest.raises(ZeroDivisionError), escaping():
            print("é")
            1 / 0  # noqa: B018
        with pytest.raises(UnicodeEncodeError):
            print("é")


def as_program(*argv, stdout=subprocess.PIPE, **env):
    """Runs the command as a program of its own."""
    root = os.path.dirname(os.path.dirname(mi_pruner_cuda.__file__))
    env = {**os.environ, "PYTHONWARNINGS": "", "PYTHONPATH": root, **env}
    command = [sys.executable, "-m", "mi_pruner_cuda", *map(os.fsencode, argv)]
    return subprocess.run(command, env=env, stdout=stdout, stderr=subprocess.PIPE, timeout=300)


def test_a_program_whose_output_gets_lost():
    """Python's own flush at the end has nothing left to complain about."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as closed:
        done = as_program("prune", "--help", stdout=closed)
    assert (done.returncode, done.stderr) == (141, b"")
    with open("/dev/full", "wb") as full:
        done = as_program("prune", "--help", stdout=full)
    assert done.returncode == 2
    assert done.stderr == b"error: standard output cannot be written: No space left on device\n"


def test_a_question_where_the_locale_is_c(picture):
    """The first question, of UTF-8, is understood there too; the second is no text."""
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
    done = as_program(*arguments("--question", LATIN, image=picture), **env)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: argument --question: got b'caf\\xe9', allowed is text")


def test_an_interrupt_is_a_status(monkeypatch, picture, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(prune, "run_prompt", interrupt)
    assert main(arguments(image=picture)) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["mipruner", "python -m mi_pruner_cuda"])
def test_the_name_of_the_program(name, monkeypatch, capsys):
    assert main(["prune"], prog=name) == 2
    assert f"(see {name} prune --help)" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["mipruner", "prune", "--keep", "0"])
    assert main() == 2
    assert "--keep" in capsys.readouterr().err


# ---- bytes that are no text ----


def test_a_question_that_is_no_text(not_started, picture, capsys):
    question = os.fsdecode(b"what color is the 0 \xe9 ?")
    assert main(arguments(image=picture, question=question)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(
        "error: argument --question: got b'what color is the 0 \\xe9 ?', allowed is text in UTF-8"
    )
    assert main(["demo", "--question", question]) == 2
    assert "--question" in capsys.readouterr().err
    assert main(arguments(image=picture, question="half \ud800 of a pair")) == 2
    assert "'half \\ud800 of a pair'" in capsys.readouterr().err


def test_a_question_whose_bytes_the_locale_did_not_read():
    assert values.words(" é ?".encode().decode("ascii", "surrogateescape")) == "é ?"


@given(st.binary(min_size=1, max_size=8))
def test_words_are_text_or_refused_in_text(given_bytes):
    """As the argument arrives, and as it would where the locale is C."""
    for encoding in ("utf-8", "ascii"):
        text = given_bytes.decode(encoding, "surrogateescape")
        try:
            got = values.words(text)
        except argparse.ArgumentTypeError as error:
            str(error).encode()
            with contextlib.suppress(UnicodeDecodeError):
                assert not given_bytes.decode().strip()
        else:
            assert got == given_bytes.decode().strip()


def test_other_arguments_that_are_no_text(not_started, picture, capsys):
    for option in ("--keep", "--estimator", "--repeat", "--what"):
        assert main(arguments(option, LATIN, image=picture)) == 2, option
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1) and option in err


@pytest.mark.parametrize("option", ["--device", "--critic", "--model", "--image", "--json"])
def test_names_that_are_no_text_and_of_nothing(option, picture, capsys):
    name = LATIN + b"/none" if option == "--json" else LATIN
    assert main(arguments(option, name, image=picture)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"{option.lstrip('-')}: " in err and "caf\\udce9" in err


def test_files_whose_names_are_no_text(picture, tmp_path, capsys):
    image = os.path.join(os.fsencode(tmp_path), LATIN + b" in.png")
    shutil.copy(picture, image)
    more, paths = three_files(tmp_path, name=LATIN)
    assert main(arguments(*more, image=os.fsdecode(image))) == 0
    out, err = capsys.readouterr()
    assert err == "" and f"picture   {tmp_path}/caf\\udce9.png\n" in out
    assert_complete(paths)
    with open(paths[0], encoding="ascii") as file:
        (entry,) = json.load(file)["images"]
    assert os.fsencode(entry["file"]) == image
    assert sorted(os.listdir(os.fsencode(tmp_path))) == sorted(
        map(os.path.basename, [image, *paths])
    )


def test_a_model_whose_folder_is_no_text(picture, tmp_path, capsys):
    """Not every library that loads a part of it can: then that is a line."""
    folder = os.path.join(os.fsencode(tmp_path), LATIN)
    shutil.copytree(demo.model_path(), os.fsdecode(folder))
    status = main(arguments("--model", folder, image=picture))
    out, err = capsys.readouterr()
    assert (status, err) == (0, "") or (
        status == 2 and err.startswith("error: model: ") and err.count("\n") == 1 and out == ""
    )


@pytest.mark.parametrize(
    "option", ["--json", "--plot", "--report", "--critic", "--image"],
)  # fmt: skip
def test_an_empty_path_is_not_no_path(option, not_started, picture, capsys):
    assert main(arguments(option, "", image=picture)) == 2
    err = capsys.readouterr().err
    assert option in err and "allowed is the path of a file" in err


def test_a_home_of_nobody(picture, capsys):
    assert main(arguments("--model", "~no.such.user/model", image=picture)) == 2
    assert capsys.readouterr().err == "error: model: there is no folder ~no.such.user/model\n"


# ---- one file for two purposes ----


def spellings(file, folder):
    """The same file by other paths, and whether it must be there for that."""
    name = file.name
    (folder / "linked").symlink_to(file.parent, target_is_directory=True)
    (folder / f"soft-{name}").symlink_to(file)
    ways = {
        "itself": (file, False),
        "dots": (file.parent / "." / ".." / file.parent.name / name, False),
        "a linked folder": (folder / "linked" / name, False),
        "a link": (folder / f"soft-{name}", False),
        "a hard link": (folder / f"hard-{name}", True),
        "relative": (os.path.relpath(file), False),
    }
    return ways


WAYS = ["itself", "dots", "a linked folder", "a link", "a hard link", "relative"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("there", [True, False])
def test_one_file_for_two_outputs(way, there, not_started, picture, tmp_path, capsys):
    page = tmp_path / "page" / "a.html"
    page.parent.mkdir()
    other, needs_file = spellings(page, tmp_path)[way]
    if there or needs_file:
        page.write_text("old")
    if needs_file:
        os.link(page, other)
    assert main(arguments("--report", page, "--json", other, image=picture)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "report: " in err and "is the file of --json as well" in err
    assert page.read_text() == "old" if there or needs_file else not page.exists()


@pytest.mark.parametrize("way", WAYS)
def test_an_output_onto_the_picture(way, not_started, picture, tmp_path, capsys):
    image = tmp_path / "in" / "a.png"
    image.parent.mkdir()
    shutil.copy(picture, image)
    before = image.read_bytes()
    other, needs_file = spellings(image, tmp_path)[way]
    if needs_file:
        os.link(image, other)
    for option in ("--plot", "--json"):
        argv = arguments("--image", picture, option, other, image=image)
        assert main(argv) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert f"{option[2:]}: " in err and "is read as --image" in err
    assert image.read_bytes() == before


def test_an_output_onto_the_model_or_the_critic(not_started, picture, tmp_path, capsys):
    model = shutil.copytree(demo.model_path(), tmp_path / "model")
    critic = tmp_path / "a.safetensors"
    (tmp_path / "link.json").symlink_to(model / "tokenizer.json")
    for path, reader in (
        (critic, "--critic"),
        (model / "config.json", "--model"),
        (tmp_path / "link.json", "--model"),
    ):
        argv = arguments("--model", model, "--critic", critic, "--json", path, image=picture)
        assert main(argv) == 2
        assert f"is read as {reader}" in capsys.readouterr().err


def test_the_demo_keeps_its_own_picture(not_started, capsys):
    before = demo.scene_path().read_bytes()
    assert main(["demo", "--out", str(demo.scene_path())]) == 2
    assert "out: " in capsys.readouterr().err
    assert demo.scene_path().read_bytes() == before


def test_a_file_that_the_shell_prints_to(not_started, picture, tmp_path, capsys):
    for stream in ("output", "error"):
        path = tmp_path / "printed.json"
        redirect = getattr(contextlib, f"redirect_std{stream[:3]}")
        with path.open("w") as file, redirect(file):
            assert main(arguments("--json", path, image=picture)) == 2
        said = path.read_text() + capsys.readouterr().err
        assert f"is where standard {stream} goes" in said


def test_devices_and_pipes_may_be_shared(answered, picture, tmp_path):
    assert main(arguments("--json", os.devnull, "--json", os.devnull, image=picture)) == 0
    read, write = os.pipe()
    with open(read, "rb") as end:
        received = []
        reader = threading.Thread(target=lambda: received.append(end.read()))
        reader.start()
        assert main(arguments("--json", f"/dev/fd/{write}", image=picture)) == 0
        os.close(write)
        reader.join()
    assert json.loads(received[0])["tokens_after"] == 64


# ---- files that cannot be written ----


def test_the_others_are_written_and_the_answer_is_printed(
    answered, picture, tmp_path, capsys, monkeypatch
):
    more, paths = three_files(tmp_path)
    real = os.fsync

    def full(number):
        if os.readlink(f"/proc/self/fd/{number}").startswith(str(tmp_path / "full")):
            raise OSError(28, "No space left on device")
        real(number)

    (tmp_path / "full").mkdir()
    more[1] = tmp_path / "full" / "out.json"
    monkeypatch.setattr(os, "fsync", full)
    assert main(arguments(*more, image=picture)) == 2
    out, err = capsys.readouterr()
    assert err == f"error: json: {more[1]} cannot be written: No space left on device\n"
    assert "answer    " in out and "numbers   " not in out
    assert f"picture   {os.fsdecode(paths[1])}\n" in out
    assert all(os.path.exists(path) for path in paths[1:])
    assert os.listdir(tmp_path / "full") == []


@pytest.mark.parametrize(
    "path, said",
    [
        ("x" * 300 + ".json", "cannot be written: File name too long"),
        ("circle.json", "cannot be written: Too many levels of symbolic links"),
        ("nowhere.json", "cannot be written"),
        ("folder.json", "is a folder, allowed is a file"),
        ("file/a.json", "there is no folder"),
    ],
)
def test_what_cannot_be_written_is_told_first(
    path, said, not_started, picture, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "circle.json").symlink_to("circle.json")
    (tmp_path / "nowhere.json").symlink_to("no/such/folder.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").write_text("")
    assert main(arguments("--json", path, image=picture)) == 2
    assert f"json: {path} {said}".replace(f"json: {path} there", "json: there") in (
        capsys.readouterr().err
    )


# ---- inputs that are pipes ----


@contextlib.contextmanager
def fifo(path, data: bytes):
    """A pipe with a name, and somebody who writes to it."""
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(data), daemon=True)
    writer.start()
    yield path
    writer.join(timeout=30)
    assert not writer.is_alive(), "nobody has read the pipe"


def test_pictures_and_a_critic_through_pipes(picture, tmp_path, capsys):
    import torch

    numbers, critic = tmp_path / "a.json", tmp_path / "critic.safetensors"
    width = json.loads((demo.model_path() / "config.json").read_text())["text_config"]
    Critic(torch.eye(width["hidden_size"]), "given", 3).save(critic)
    assert main(arguments("--critic", critic, "--json", numbers, image=picture)) == 0
    expected = json.loads(numbers.read_text())["images"][0]
    with open(picture, "rb") as file:
        data = file.read()
    with fifo(tmp_path / "in", data) as image, fifo(tmp_path / "c", critic.read_bytes()) as pipe:
        argv = arguments("--critic", pipe, "--json", numbers, image=image)
        assert main(argv) == 0
    (entry,) = json.loads(numbers.read_text())["images"]
    assert entry["indices"] == expected["indices"] and entry["scores"] == expected["scores"]
    assert entry["critic"] == "given, 3 pairs" == expected["critic"]
    capsys.readouterr()


def test_a_pipe_without_a_picture(tmp_path, capsys):
    with fifo(tmp_path / "in", b"no picture") as image:
        assert main(arguments(image=image)) == 2
    assert "is not a picture" in capsys.readouterr().err


# ---- calibrate ----


@pytest.fixture
def fitted(monkeypatch):
    """calibrate without the fit: it says one thing about it."""
    import torch

    critic = Critic(torch.eye(4), "whitening", 20, "llava", 0.5, 0.25, 0.5)
    monkeypatch.setattr(calibrate, "_fit", lambda *_: (critic, ["it hardly fits"]))
    return critic


@pytest.fixture
def calibrating(picture, tmp_path):
    """Arguments, with a copy of the model and a file of pairs."""
    shutil.copytree(demo.model_path(), tmp_path / "model")
    shutil.copy(picture, tmp_path / "a.png")
    (tmp_path / "pairs.jsonl").write_text('{"image": "a.png", "text": "is there a 3?"}\n')

    def argv(output, pairs=tmp_path / "pairs.jsonl"):
        options = {"--model": tmp_path / "model", "--pairs": pairs, "--output": output}
        return ["calibrate", *map(str, (part for item in options.items() for part in item))]

    return argv


def test_a_critic_is_saved_before_anything_is_said(fitted, calibrating, tmp_path):
    output = tmp_path / "model" / "mipruner_critic.safetensors"
    for _ in range(2):  # one that is there may be fitted anew
        stream, expected = Streams.closed_pipe(write_through=True)
        with standard_output(stream), contextlib.redirect_stderr(stream):
            assert main(calibrating(output)) == expected
        assert Critic.load(output).pairs == 20
        output.touch()


def test_calibrate_overwrites_nothing_that_it_reads(calibrating, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(calibrate, "_fit", None)
    for name in ("pairs.jsonl", "a.png", "model/config.json"):
        (tmp_path / f"{name.replace('/', '-')}.safetensors").symlink_to(tmp_path / name)
    for output, reader in (
        ("model/model.safetensors", "--model"),
        ("model-config.json.safetensors", "--model"),
        ("pairs.jsonl.safetensors", "--pairs"),
        ("a.png.safetensors", "a picture"),
    ):
        before = (tmp_path / output).read_bytes()
        assert main(calibrating(tmp_path / output)) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("error: output: ") and f"is read as {reader}" in err
        assert (tmp_path / output).read_bytes() == before


def test_pairs_through_a_pipe(fitted, calibrating, tmp_path, monkeypatch, capsys):
    seen = []
    real = calibrate._fit
    monkeypatch.setattr(calibrate, "_fit", lambda given, pairs: seen.append(pairs) or real())
    monkeypatch.chdir(tmp_path)
    for number, text in enumerate(('\n{"image": "a.png", "text": "b"}', "image,text\na.png,b\n")):
        with fifo(tmp_path / f"pipe{number}", text.encode()) as pairs:
            assert main(calibrating(tmp_path / "c.safetensors", pairs)) == 0
    assert [[(str(image), text) for image, text in pairs] for pairs in seen] == [
        [("a.png", "b")]
    ] * 2
    assert "warning: it hardly fits\n" in capsys.readouterr().err


def test_pairs_that_are_no_text(calibrating, tmp_path, capsys):
    (tmp_path / "pairs.jsonl").write_text('{"image": "a.png", "text": "half \\ud800"}\n')
    assert main(calibrating(tmp_path / "c.safetensors")) == 2
    assert "line 1 of " in capsys.readouterr().err
    long = tmp_path / "pairs.csv"
    long.write_text(f"image,text\na.png,{'x' * 200_000}\n")
    assert main(calibrating(tmp_path / "c.safetensors", long)) == 2
    assert "no CSV behind line 1" in capsys.readouterr().err
