"""Files that are written as a whole or not at all, and never onto what is read."""

import errno
import os
import resource
import signal
import stat
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mi_pruner_cuda import Critic, select
from mi_pruner_cuda.html_page import write_html
from mi_pruner_cuda.output_path import check_output, same_file
from mi_pruner_cuda.plotting import plot
from mi_pruner_cuda.whole_file import write_file


@pytest.fixture(scope="module")
def selection():
    """Of an image of 2 x 2 tokens."""
    return select(torch.eye(4), torch.eye(4)[:2], keep=2)


@pytest.fixture
def doors(selection):
    """Everything that writes a file: its ending, and a function of the path."""
    image = np.zeros((8, 8, 3), np.uint8)
    return {
        "bytes": (".bin", lambda path: write_file(path, b"new")),
        "plot": (".png", lambda path: plot(image, selection, path, grid=(2, 2))),
        "page": (".html", lambda path: write_html(image, selection, path, grid=(2, 2))),
        "critic": (".safetensors", Critic(torch.eye(4)).save),
    }


DOORS = ["bytes", "plot", "page", "critic"]


@pytest.mark.parametrize("fails", ["write", "fsync", "replace"])
@pytest.mark.parametrize("door", DOORS)
def test_a_failing_write_leaves_the_old_file(door, fails, doors, tmp_path, monkeypatch):
    ending, write = doors[door]
    path = tmp_path / f"file{ending}"
    path.write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if fails == "write":  # what is there before the data is complete
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2, before[1]))
        try:
            with pytest.raises(OSError, match=f"path: {path} cannot be written: File too large"):
                write(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
    else:
        monkeypatch.setattr(os, fails, full)
        with pytest.raises(OSError, match=f"path: {path} cannot be written: No space left"):
            write(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]
    monkeypatch.undo()
    write(path)
    assert path.stat().st_size != 3 or path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("door", DOORS)
def test_rights_and_links_stay(door, doors, tmp_path):
    ending, write = doors[door]
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / f"target{ending}", tmp_path / f"link{ending}"
    link.symlink_to(target)
    mask = os.umask(0o027)
    try:
        write(link)  # the link points to nothing yet
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
        target.chmod(0o604)
        write(link)
        assert stat.S_IMODE(target.stat().st_mode) == 0o604
    finally:
        os.umask(mask)
    assert link.is_symlink() and os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("door", DOORS)
def test_any_name_is_written_to(door, doors, tmp_path):
    ending, write = doors[door]
    for name in ("a\udce9", "zażółć 図", " ", "x" * (255 - len(ending))):
        write(tmp_path / f"{name}{ending}")
        assert (tmp_path / f"{name}{ending}").stat().st_size


def test_half_a_surrogate_pair_is_drawn_by_its_number(selection, tmp_path):
    """What an argument of bytes that are no text becomes."""
    for ending in ("png", "pdf", "svg"):
        figure = plot(
            np.zeros((8, 8, 3), np.uint8), selection, tmp_path / f"a.{ending}", grid=(2, 2),
            question="caf\udce9?", answer="\ud800",
        )  # fmt: skip
        assert "caf\\udce9?" in figure.get_suptitle() and "\\ud800" in figure.get_suptitle()


@given(st.lists(st.binary(max_size=64), min_size=1, max_size=4))
def test_a_file_has_what_was_written_last(tmp_path_factory, contents):
    path = tmp_path_factory.mktemp("written") / "file"
    for content in contents:
        write_file(path, content)
        assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("refusal", [errno.EBUSY, errno.EACCES])
def test_a_file_that_cannot_be_replaced_is_written_in_place(refusal, tmp_path, monkeypatch):
    """One that is mounted by itself, as in containers, or in a folder that takes no others."""
    path = tmp_path / "file"
    path.write_text("a longer text")
    before = path.stat().st_ino

    def refuse(*_):
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "replace", refuse)
    write_file(path, b"new")
    assert (path.read_bytes(), path.stat().st_ino) == (b"new", before)
    assert os.listdir(tmp_path) == ["file"]
    path.unlink()
    with pytest.raises(OSError, match="cannot be written"):
        write_file(path, b"new")
    assert os.listdir(tmp_path) == []


def test_what_is_no_plain_file_stays_what_it_is(tmp_path):
    write_file(os.devnull, b"x")
    assert not os.path.isfile(os.devnull)
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_file(pipe, b"through")
    reader.join()
    assert got == [b"through"] and pipe.is_fifo()
    with pytest.raises(OSError, match="path: /dev/full cannot be written: No space left"):
        write_file("/dev/full", b"x")


def test_same_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    for there in (False, True):
        for other in ("folder/../a", "./a", tmp_path / "a", "link/../a"):
            assert same_file("a", other) and same_file(other, "a")
        assert same_file("folder/b", "link/b")
        assert not same_file("a", "b") and not same_file("a", "folder/a")
        if not there:
            (tmp_path / "a").write_text("")
    assert not same_file(os.devnull, os.devnull)  # nothing is lost in there
    os.link("a", "folder/hard")
    assert same_file("a", "link/hard")


def test_check_output_takes_what_can_be_written(tmp_path):
    (tmp_path / "link").symlink_to("later")
    for path in (tmp_path / "new", tmp_path / "link", os.devnull, "relative"):
        check_output(path)
    check_output(tmp_path / "A.PNG", ["png"])
    with pytest.raises(ValueError, match=r"allowed endings are \.png"):
        check_output(tmp_path / "new", ["png"])


@pytest.fixture
def picture(tmp_path):
    """A file whose loss would be noticed."""
    path = tmp_path / "photo.png"
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(path)
    os.link(path, tmp_path / "hard.png")
    (tmp_path / "soft.png").symlink_to(path)
    (tmp_path / "page.html").symlink_to(path)
    return path


@pytest.mark.parametrize("name", ["photo.png", "./photo.png", "hard.png", "soft.png"])
def test_no_plot_onto_its_picture(name, picture, selection, monkeypatch):
    monkeypatch.chdir(picture.parent)
    before = picture.read_bytes()
    for given_as in (picture, str(picture), Image.open(picture), [[picture]]):
        with pytest.raises(ValueError, match=r"path: .* is a picture that is read"):
            plot(given_as, selection, name, grid=(2, 2))
    assert picture.read_bytes() == before
    plot(picture, selection, "other.png", grid=(2, 2))
    plot(picture, selection, grid=(2, 2))


def test_no_page_onto_its_picture(picture, selection):
    before = picture.read_bytes()
    with pytest.raises(ValueError, match=r"path: .* is a picture that is read"):
        write_html(picture, selection, picture.with_name("page.html"), grid=(2, 2))
    assert picture.read_bytes() == before


def test_a_critic_may_be_saved_where_it_was_loaded_from(tmp_path):
    path = tmp_path / "a.safetensors"
    Critic(torch.eye(64), "given", 5).save(path)
    critic = Critic.load(path)
    critic.save(path)
    assert torch.equal(critic.matrix, torch.eye(64))
    assert torch.equal(Critic.load(path).matrix, torch.eye(64))
    assert Critic.load(path).pairs == 5
    with pytest.raises(OSError, match=r"path: .* cannot be written"):
        critic.save(tmp_path / "no" / "such.safetensors")
