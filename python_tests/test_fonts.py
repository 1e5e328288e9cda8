"""Texts of any script above a plot: in fonts that have their characters, or with one warning."""

import logging
import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import font_manager, rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mi_pruner_cuda import Selection, plot
from mi_pruner_cuda.fonts import writing

# No installed font has these: private use.
FIRST, SECOND, THIRD = "\ue5a1", "\ue5a2", "\ue5a3"
REPLACED = "\N{REPLACEMENT CHARACTER}"


def make_font(path, family, characters, weight=400):
    """Each character is a triangle as high as a line."""

    def triangle():
        pen = TTGlyphPen(None)
        pen.moveTo((50, 0))
        pen.lineTo((500, 800))
        pen.lineTo((950, 0))
        pen.closePath()
        return pen.glyph()

    names = {c: f"u{ord(c):04X}" for c in characters}
    order = [".notdef", *names.values()]
    font = FontBuilder(1000)
    font.setupGlyphOrder(order)
    font.setupCharacterMap({ord(c): name for c, name in names.items()})
    font.setupGlyf({name: triangle() for name in order})
    font.setupHorizontalMetrics(dict.fromkeys(order, (1000, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": family, "styleName": "Regular"})
    font.setupOS2(usWeightClass=weight)
    font.setupPost()
    font.save(path)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Adds fonts to matplotlib's list for one test."""
    known = font_manager.fontManager.ttflist
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(known))

    def added(family, characters, **options):
        path = tmp_path / f"{family}.ttf"
        make_font(path, family, characters, **options)
        font_manager.fontManager.addfont(path)
        return path

    return added


def drawn(question, answer=None):
    """(the text above the pictures, what was warned of) of a plot that has been rendered."""
    kept = Selection(np.array([0]), np.array([1.0]), 1, "pruned")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        figure = plot(np.zeros((4, 4)), kept, grid=(1, 1), question=question, answer=answer)
        figure.canvas.draw()
    return figure._suptitle, [str(warning.message) for warning in said]


def test_a_font_that_has_the_characters_is_found(install, caplog):
    install("Of No Use", "xyz")
    install("Sample Script", FIRST + SECOND)
    caplog.set_level(logging.WARNING)
    title, said = drawn(f"what is {FIRST}{SECOND}?", FIRST)
    assert said == [] and caplog.records == []
    assert title.get_text() == f"what is {FIRST}{SECOND}?   \N{RIGHTWARDS ARROW}   {FIRST}"
    assert title.get_fontfamily()[-1] == "Sample Script"
    assert "Of No Use" not in title.get_fontfamily()
    assert title.get_fontweight() == "normal"


def test_the_ink_is_that_of_the_font(install):
    """By its pixels: a triangle, and not the box of a missing character."""
    install("Sample Script", FIRST)
    kept = Selection(np.array([0]), np.array([1.0]), 1, "pruned")

    def headline(text):
        figure = plot(np.zeros((4, 4)), kept, grid=(1, 1), question=text)
        figure.canvas.draw()
        box = figure._suptitle.get_window_extent()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., 0]
        top, bottom = (len(pixels) - y for y in (box.y1, box.y0))
        ink = pixels[int(top) : int(bottom), int(box.x0) : int(box.x1)] < 128
        return ink[ink.any(1)]

    widths = headline(FIRST).sum(1)
    assert (np.diff(widths) >= 0).all() and widths[-1] > 3 * widths[0]


def test_several_fonts_help_out_as_few_as_do(install):
    install("One", FIRST)
    install("Two", FIRST + SECOND)
    install("Three", THIRD)
    found = writing(FIRST + SECOND + THIRD, "bold")
    assert set(found.families) >= {"Two", "Three"} and "One" not in found.families
    assert found.text == FIRST + SECOND + THIRD and found.missing == []


def test_sans_serif_comes_first(install):
    install("A Serif", FIRST)
    install("Some Sans", FIRST)
    assert writing(FIRST, "bold").families[-1] == "Some Sans"


def test_fonts_that_are_full_of_nothing_are_not_used(install):
    for family in ("LastResort", ".LastResort", "Last Resort High-Efficiency", "Adobe Blank"):
        install(family, FIRST)
    assert writing(FIRST, "bold").missing == [FIRST]


def test_a_font_that_is_gone_or_damaged_is_passed_over(install):
    install("Gone", FIRST).unlink()
    install("Damaged", FIRST).write_bytes(b"no font")
    assert writing(FIRST, "bold").missing == [FIRST]
    install("Sound", FIRST)
    assert writing(FIRST, "bold").families[-1] == "Sound"


def test_what_no_font_has_is_said_once(caplog):
    caplog.set_level(logging.WARNING)
    title, said = drawn(f"{SECOND}{FIRST} {SECOND}?")
    assert title.get_text() == f"{REPLACED}{REPLACED} {REPLACED}?"
    assert len(said) == 1 and caplog.records == []
    assert said[0].startswith(
        f"plot: no installed font has {SECOND!r} (U+E5A2), {FIRST!r} (U+E5A1)"
    )
    _, (said,) = drawn("".join(chr(0xE5A0 + i) for i in range(20)))
    assert "and 12 more" in said


def test_known_characters_keep_the_callers_font():
    found = writing("what? \N{RIGHTWARDS ARROW} a\nb", "bold")
    assert found.families == ["sans-serif", "DejaVu Sans"] and found.weight == "bold"
    assert found.text == "what? \N{RIGHTWARDS ARROW} a\nb"
    with rc_context({"font.family": ["serif"]}):
        assert writing("what?", "bold").families == ["serif", "DejaVu Sans"]
    with rc_context({"font.family": ["No Such Font"]}):
        assert writing("what?", "bold").missing == []


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=20))
def test_any_text_can_be_drawn(text):
    """Halves of surrogate pairs and control characters among them, without a word of matplotlib."""
    found = writing(text, "bold")
    assert set(found.missing) <= set(text)
    figure = Figure()
    FigureCanvasAgg(figure)
    figure.text(0, 0, found.text, family=found.families, weight=found.weight, parse_math=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()


@pytest.mark.parametrize(
    "text", ["\ud800", "a\0b", "\x1b[0m", "a\u200db\ufeff", "\N{GRINNING FACE}"]
)
def test_texts_that_are_hard_to_draw(text):
    title, said = drawn(text)
    assert said == []
    assert ("\\ud800" in title.get_text()) == (text == "\ud800")
    assert "\x1b" not in title.get_text() and "\0" not in title.get_text()


@pytest.mark.parametrize(
    "text", ["what colour is the car " * 9, "n" * 500, "\N{CJK UNIFIED IDEOGRAPH-4F60}" * 99]
)
def test_long_texts_stay_within_the_figure(install, text):
    install("Sample Script", "\N{CJK UNIFIED IDEOGRAPH-4F60}")
    title, said = drawn(text, text)
    width = title.get_figure().bbox.width
    box = title.get_window_extent()
    assert said == [] and box.x0 >= 0 and box.x1 <= width
    assert title.get_text().count("\n") == 1
