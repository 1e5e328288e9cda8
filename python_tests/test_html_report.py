"""write_html: the page's text, and the page at work in headless Chromium, checked by pixels."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from build_tools import require
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from mi_pruner_cuda import Selection
from mi_pruner_cuda.html_page import write_html
from mi_pruner_cuda.html_page.data import ranks
from mi_pruner_cuda.huggingface.report import ImageReport, Part, Report
from mi_pruner_cuda.keep_hash import keep_hash
from mi_pruner_cuda.plotting import dim_dropped

HOSTILE = (
    "</script><script>alert(1)</script><!--\" onload='alert(2)' & <img src=x onerror=alert(3)>"
)
WORDS = ["where", " is", " it", "?"]
NAN, INF = float("nan"), float("inf")
H, W, PATCH = 3, 4, 20  # the usual picture: 3 x 4 patches of 20 x 20 pixels


def patchwork(h=H, w=W, patch=PATCH, shift=0):
    """A bright colour of its own per patch: (h * patch, w * patch, 3)."""
    cells = (np.arange(h * w) * 17 + shift).reshape(h, w)
    colours = np.dstack([120 + cells % 120, 240 - cells % 97, 130 + (3 * cells) % 110])
    return colours.astype(np.uint8).repeat(patch, 0).repeat(patch, 1)


def entry(kept=(5, 6, 10), scores="by token", grid=(H, W), **more):
    """Scores that rise with the token's number, so that the best three are 9, 10 and 11."""
    n = int(np.prod(grid)) if grid else more["tokens_before"]
    values = {
        "item": 0, "image": 0, "tokens_before": n, "tokens_after": len(kept), "reason": "pruned",
        "grid": grid, "indices": torch.tensor(kept), "query": list(range(len(WORDS))),
        "scores": torch.arange(n) / 10 if isinstance(scores, str) else scores, "seconds": 0.00125,
        "words": WORDS, "speaks_for": torch.arange(n) % 3,
    }  # fmt: skip
    return ImageReport(**{**values, **more})


class Page(HTMLParser):
    """What a browser would make of it: texts by element, and attributes that load something."""

    def __init__(self, path):
        super().__init__()
        self.counts, self.loads, self.texts, self.open, self.policy = {}, [], {}, [], ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.loads += [v for k, v in attributes.items() if k in ("src", "href", "srcset", "data")]
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]
        if tag not in ("meta", "input", "img", "link", "br"):
            self.open.append((tag, attributes))
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag, f"</{tag}> closes another element"

    def handle_data(self, text):
        for tag, _ in self.open:
            self.texts[tag][-1] += text

    @property
    def data(self):
        return json.loads(next(text for text in self.texts["script"] if text.startswith("{")))


@pytest.fixture
def page(tmp_path):
    """Writes a page and reads it."""

    def written(pictures, report, **options):
        write_html(pictures, report, tmp_path / "page.html", **options)
        return Page(tmp_path / "page.html")

    return written


# ---- what is written ----


def test_the_page_is_one_file(page):
    """Nothing to load: neither elements nor the style ask for anything, and the policy forbids."""
    read = page(patchwork(), entry(), question="where is it?")
    assert read.loads == [] and "link" not in read.counts and "img" not in read.counts
    assert "url(" not in read.source and "@import" not in read.source
    assert "//" not in "".join(read.texts["style"])
    assert "default-src 'none'; img-src data:; style-src 'sha256-" in read.policy
    assert "unsafe" not in read.policy
    assert read.data["entries"][0]["panels"][0]["uri"].startswith("data:image/png;base64,")


def test_texts_are_escaped_wherever_they_stand(page):
    report = entry(words=[HOSTILE, *WORDS[1:]], reason=HOSTILE)
    read = page(patchwork(), report, question=HOSTILE, answer=HOSTILE, title=HOSTILE)
    assert read.counts["script"] == 2 and "img" not in read.counts
    assert read.texts["dd"] == [HOSTILE, HOSTILE]
    assert read.texts["title"] == read.texts["h1"] == [HOSTILE]
    assert HOSTILE in read.texts["td"] and HOSTILE in "".join(read.texts["button"])
    assert read.data["entries"][0]["words"][0] == HOSTILE
    assert read.source.count("<!--") == 0


def test_the_names_of_parts_are_escaped(page):
    parts = (Part(0, (H, W), W, name=HOSTILE),)
    read = page(patchwork(), entry(grid=None, parts=parts, tokens_before=12))
    assert read.counts["script"] == 2 and "img" not in read.counts
    assert HOSTILE in read.texts["figcaption"][0]


def test_half_a_surrogate_pair_is_written(page):
    assert "?" in page(patchwork(), entry(words=["\ud83d"] * 4), question="\ud83d?").texts["dd"][0]


def test_the_table_adds_up(page):
    text = ImageReport(0, None, 0, 0, "no image in the prompt")
    report = Report([text, entry(item=1), entry(kept=(0,), item=1, image=1, seconds=0.002)])
    read = page([patchwork(), patchwork()], report)
    rows = [read.texts["td"][n : n + 7] for n in range(0, len(read.texts["td"]), 7)]
    hashes = [f"{keep_hash(12, kept):016x}" for kept in ([5, 6, 10], [0])]
    assert rows == [
        ["prompt 0", "0", "0", "", "", "no image in the prompt", ""],
        ["image 0", "12", "3", "25 %", "1.25 ms", "pruned", hashes[0]],
        ["image 1", "12", "1", "8.33 %", "2.00 ms", "pruned", hashes[1]],
        ["total", "24", "4", "16.7 %", "3.25 ms", "", ""],
    ]


def test_a_selection_without_torch(page):
    """NumPy arrays, as mi_pruner_cuda.numpy returns them."""
    selection = Selection(np.array([1, 2]), np.arange(12, dtype=np.float32), 2, "selected")
    read = page(patchwork(), selection, grid=(3, 4))
    assert read.data["entries"][0]["kept"] == [1, 2]
    assert read.texts["td"][:5] == ["image 0", "12", "2", "16.7 %", ""]
    assert "Which word each patch speaks for is not in this report" in read.source


def test_ranks():
    """NaN is always kept, -inf never counts, ties go to the lower token."""
    scores = np.array([0.5, -INF, 2.0, NAN, 0.5, 3.0])
    assert ranks(scores).tolist() == [3, 5, 2, 0, 4, 1]


def test_the_slider_begins_with_what_is_always_kept(page):
    scores = torch.tensor([NAN, 1.0, NAN, 0.5] + [0.1] * 8)
    assert 'type="range" min="2" max="12"' in page(patchwork(), entry(scores=scores)).source
    assert 'type="range" min="1" max="12"' in page(patchwork(), entry()).source


def test_the_page_says_whether_the_run_kept_the_highest_scores(page):
    differ, agree = "Here they differ", "Here both agree"
    read = page(patchwork(), entry(kept=(5, 6, 10)))
    assert differ in read.source and agree not in read.source
    read = page(patchwork(), entry(kept=(9, 10, 11)))
    assert agree in read.source and differ not in read.source
    assert "redundancy or coverage > 0" in "".join(read.texts["p"])


def test_long_videos_are_cut_and_the_page_says_so(page):
    frames = [patchwork(2, 2, 4)] * 40
    report = entry(grid=(40, 2, 2), kept=(0,), kind="video")
    read = page(frames, report)
    assert read.counts["figure"] == 32 and "32 of 40 parts are drawn" in read.source
    read = page(frames, report, max_parts=3)
    assert read.counts["figure"] == 3
    assert "video 0: 3 of 40 parts are drawn (frame 0; frame 20; frame 39), 37 left out." in (
        read.source
    )
    assert len(read.data["entries"][0]["scores"]) == 160


def test_photographs_are_stored_small(page):
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    uri = page(noise, entry()).data["entries"][0]["panels"][0]["uri"]
    assert uri.startswith("data:image/jpeg;base64,") and len(uri) < noise.size


def test_the_heat_maps_colours_grow_lighter(page):
    colours = [bytes.fromhex(c[1:]) for c in page(patchwork(), entry()).data["heat"]]
    light = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in colours]
    assert light == sorted(light) and light[0] < 40 and light[-1] > 200


def test_neither_matplotlib_nor_jinja2_is_needed():
    check = "import sys; sys.modules.update(matplotlib=None, jinja2=None, selenium=None); "
    done = subprocess.run(
        [sys.executable, "-c", check + "import mi_pruner_cuda.html_page"], check=False
    )
    assert done.returncode == 0


ERRORS = {
    "path type": ({"path": 3}, TypeError, "path: got int"),
    "path ending": ({"path": "a.png"}, ValueError, r"got 'a.png', allowed endings are .htm, .html"),
    "path without folder": ({"path": "no/a.html"}, FileNotFoundError, "there is no folder no"),
    "question": ({"question": 3}, TypeError, "question: got int"),
    "answer": ({"answer": 3}, TypeError, "answer: got int"),
    "title": ({"title": 3}, TypeError, "title: got int"),
    "report": ({"report": 3}, TypeError, "report: got int"),
    "pictures": ({"pictures": [patchwork()] * 2}, ValueError, "image: got 2"),
    "more words than the query": (
        {"report": entry(speaks_for=torch.full((12,), 4))}, ValueError, "numbers up to 4",
    ),
    "words of other tokens": (
        {"report": entry(speaks_for=torch.zeros(11))}, ValueError, r"shape \(11,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_the_argument(case, tmp_path):
    changes, kind, message = ERRORS[case]
    usual = {"pictures": patchwork(), "report": entry(), "path": tmp_path / "page.html"}
    with pytest.raises(kind, match=message):
        write_html(**{**usual, **changes})
    assert not (tmp_path / "page.html").exists()


def test_a_full_disk_is_an_os_error(tmp_path):
    (tmp_path / "a.html").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"a\.html cannot be written: No space left"):
        write_html(patchwork(), entry(), tmp_path / "a.html")


# ---- the page at work ----


def installed(package, *names):
    """The path of a package's program, by the first of its names that there is."""
    found = next(filter(None, map(shutil.which, names)), None)
    require(found, package)
    return found


@pytest.fixture(scope="module")
def chromium():
    options = webdriver.ChromeOptions()
    options.binary_location = installed("chromium", "chromium", "chromium-browser", "google-chrome")
    # Given, so that selenium does not look for one to download.
    driver = installed("chromium-driver", "chromedriver")
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--force-color-profile=srgb", "--window-size=1200,900",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


def rgb(png):
    """uint8 (H, W, 3) of a PNG's bytes."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


class Opened:
    """A page in the browser."""

    def __init__(self, browser, path):
        self.browser = browser
        browser.get(path.as_uri())
        WebDriverWait(browser, 20).until(lambda _: self.all("section") == self.all("[data-drawn]"))

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def pixels(self, canvas="canvas.kept"):
        """uint8 (H, W, 3) of a canvas."""
        canvas = self.one(canvas) if isinstance(canvas, str) else canvas
        uri = self.run("return arguments[0].toDataURL('image/png')", canvas)
        return rgb(base64.b64decode(uri.split(",")[1]))

    def centres(self, canvas="canvas.kept", h=H, w=W):
        """int (h * w, 3), the colours in the middle of the patches, where no outline is."""
        pixels = self.pixels(canvas)
        rows = ((np.arange(h) + 0.5) * pixels.shape[0] / h).astype(int)
        columns = ((np.arange(w) + 0.5) * pixels.shape[1] / w).astype(int)
        return pixels[np.ix_(rows, columns)].reshape(-1, 3).astype(int)

    def kept(self, **of):
        """The tokens whose patch has the picture's colours; all others have to be dimmed."""
        seen, whole = self.centres(**of), colours_of(patchwork())
        kept = (abs(seen - whole) <= 1).all(1)
        dimmed = (
            abs(seen - colours_of(dim_dropped(patchwork(), np.zeros((H, W), bool)))) <= 1
        ).all(1)
        assert (kept != dimmed).all()
        return np.flatnonzero(kept).tolist()

    def set_slider(self, value):
        self.run(
            "const s = arguments[0]; s.value = arguments[1];"
            "s.dispatchEvent(new Event('input', {bubbles: true}))", self.one("input[type=range]"),
            value,
        )  # fmt: skip

    @property
    def count(self):
        return self.one("output").text

    @property
    def tooltip(self):
        """Its text, or None where it is hidden."""
        tooltip = self.one("#tooltip")
        return tooltip.text if tooltip.is_displayed() else None

    def hover(self, cell, canvas="canvas.kept", h=H, w=W):
        canvas = self.one(canvas)
        size = canvas.size
        x = ((cell % w + 0.5) / w - 0.5) * size["width"]
        y = ((cell // w + 0.5) / h - 0.5) * size["height"]
        ActionChains(self.browser).move_to_element_with_offset(canvas, int(x), int(y)).perform()

    def assert_quiet(self):
        """Neither errors nor warnings, nothing loaded, nothing popped up."""
        assert self.browser.get_log("browser") == []
        loaded = self.run("return performance.getEntriesByType('resource').map(e => e.name)")
        assert [name for name in loaded if not name.startswith("data:")] == []
        with pytest.raises(NoAlertPresentException):
            _ = self.browser.switch_to.alert


def colours_of(pixels, h=H, w=W):
    """int (h * w, 3), one colour per patch."""
    rows, columns = pixels.shape[0] // h, pixels.shape[1] // w
    return pixels[rows // 2 :: rows, columns // 2 :: columns].reshape(-1, 3).astype(int)


@pytest.fixture
def opened(chromium, tmp_path):
    def written(pictures, report, **options):
        write_html(pictures, report, tmp_path / "page.html", **options)
        return Opened(chromium, tmp_path / "page.html")

    yield written
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_kept_patches_are_bright_and_dropped_ones_dim(opened):
    """Not the three best, so that a page that ranks by itself would differ."""
    page = opened(patchwork(), entry(kept=(5, 6, 10)))
    assert page.kept() == [5, 6, 10]
    assert page.count == "3 of 12 tokens (25 %), as the run kept them"
    assert page.one("figure .count").text == "3 of 12 kept"
    page.assert_quiet()


def test_pixels_are_those_of_the_plot(opened):
    """Every pixel of a picture that the grid does not divide, as dim_dropped dims it."""
    y, x = np.mgrid[0:61, 0:97]
    pixels = np.dstack([120 + x, 3 * y + 40, 200 - 90 * ((x + y) % 2)]).astype(np.uint8)
    kept = np.random.default_rng(0).random(35) < 0.5
    page = opened(pixels, entry(kept=tuple(np.flatnonzero(kept).tolist()), grid=(5, 7)))
    seen = page.pixels()
    zoom = seen.shape[0] // 61
    assert seen.shape == (61 * zoom, 97 * zoom, 3) and zoom > 5
    # Off the centre, where a blurred enlargement would show, and off the outlines at the edges.
    seen = seen[zoom // 3 :: zoom, zoom // 3 :: zoom]
    expected = dim_dropped(pixels, kept.reshape(5, 7))
    assert abs(seen.astype(int) - expected).max() <= 1


def test_the_heat_map_shows_the_scores(opened, tmp_path):
    scores = torch.arange(12) / 10
    scores[4] = -INF
    page = opened(patchwork(), entry(scores=scores))
    heat = [list(bytes.fromhex(c[1:])) for c in Page(tmp_path / "page.html").data["heat"]]
    seen = page.centres("canvas.heat").tolist()
    for token, score in enumerate(scores.tolist()):
        expected = heat[round(100 * score / 1.1)] if token != 4 else [191] * 3
        assert seen[token] == expected
    assert page.one(".bar").text.split() == ["0", "1.1", "nats"]
    assert "gradient" in page.one(".bar i").value_of_css_property("background-image")


def test_the_slider_keeps_the_highest_scores(opened):
    page = opened(patchwork(), entry())
    page.set_slider(5)
    assert page.kept() == [7, 8, 9, 10, 11]
    assert page.count == "5 of 12 tokens (41.7 %), the highest scores"
    assert page.one("figure .count").text == "5 of 12 kept"
    page.set_slider(12)
    assert page.kept() == list(range(12))  # nothing is dimmed
    assert page.count == "12 of 12 tokens (100 %), the highest scores"
    page.one("button.reset").click()
    assert page.kept() == [5, 6, 10]
    assert page.count == "3 of 12 tokens (25 %), as the run kept them"
    page.assert_quiet()


def test_the_slider_obeys_keys(opened):
    page = opened(patchwork(), entry())
    slider = page.one("input[type=range]")
    for key, kept in (
        (Keys.ARROW_RIGHT, [8, 9, 10, 11]), (Keys.ARROW_LEFT, [9, 10, 11]), (Keys.HOME, [11]),
        (Keys.END, list(range(12))),
    ):  # fmt: skip
        slider.send_keys(key)
        assert page.kept() == kept
        assert page.count.startswith(f"{len(kept)} of 12")
        assert slider.get_attribute("aria-valuetext") == page.count


def test_everything_is_reached_by_tab(opened):
    page = opened(patchwork(), entry())
    reached = []
    for _ in range(4 + len(WORDS) + 1):
        ActionChains(page.browser).send_keys(Keys.TAB).perform()
        reached.append(page.browser.switch_to.active_element)
    wanted = [page.one("input[type=range]"), page.one("button.reset"), *page.all(".words button")]
    wanted += [page.one(".coloured input"), page.one("canvas.kept"), page.one("canvas.heat")]
    assert reached == wanted


def test_a_word_shows_its_patches(opened):
    """Token n speaks for word n % 3: of 5, 6 and 10 only 10 for the second, 6 for the first."""
    page = opened(patchwork(), entry())
    before, heat = page.centres(), page.pixels("canvas.heat")
    buttons = page.all(".words button")
    assert [b.text.split() for b in buttons] == [
        ["where", "1"], ["is", "1"], ["it", "1"], ["?", "0"],
    ]  # fmt: skip
    swatches = [
        b.find_element(By.CSS_SELECTOR, ".swatch").value_of_css_property("background-color")
        for b in buttons
    ]
    assert len(set(swatches)) == 4
    buttons[1].click()
    assert [b.get_attribute("aria-pressed") for b in buttons] == ["false", "true", "false", "false"]
    after = page.centres()
    changed = (before != after).any(1)
    assert np.flatnonzero(changed).tolist() == [5, 6]  # paler
    assert (after[[5, 6]].sum(1) < before[[5, 6]].sum(1)).all()
    y, x = np.nonzero((page.pixels("canvas.heat") != heat).any(2))
    side = heat.shape[1] / W  # an outline around token 10, and around no other that speaks for it
    assert (
        abs(np.array([x.min(), x.max(), y.min(), y.max()]) - side * np.array([2, 3, 2, 3])).max()
        < 8
    )
    page.set_slider(12)
    assert buttons[1].text.split() == ["is", "4"]
    buttons[1].send_keys(Keys.SPACE)
    assert page.kept() == list(range(12))
    page.assert_quiet()


def test_patches_are_coloured_by_word(opened):
    page = opened(patchwork(), entry(kept=(0, 1, 3), speaks_for=torch.tensor([0, 1, 2, -1] * 3)))
    before = page.centres()
    page.one(".coloured input").click()
    after = page.centres()
    said = [s.value_of_css_property("background-color") for s in page.all(".swatch")]
    swatches = [[int(n) for n in re.findall(r"\d+", colour)[:3]] for colour in said]
    for token in range(12):
        half = (before[token] + swatches[token]) / 2 if token in (0, 1) else before[token]
        assert abs(after[token] - half).max() <= 2
    page.one(".coloured input").click()
    assert (page.centres() == before).all()


@pytest.mark.parametrize("canvas", ["canvas.kept", "canvas.heat"])
def test_the_tooltip_follows_the_pointer(opened, canvas):
    page = opened(patchwork(), entry())
    assert page.tooltip is None
    page.hover(6, canvas)
    assert page.tooltip.splitlines() == [
        "row 2, column 3: kept", "0.6000 nats, rank 6 of 12", "speaks for “where”",
    ]  # fmt: skip
    page.hover(11, canvas)
    assert page.tooltip.splitlines() == [
        "row 3, column 4: dropped", "1.100 nats, rank 1 of 12", "speaks for “it”",
    ]  # fmt: skip
    ActionChains(page.browser).move_to_element(page.one("h1")).perform()
    assert page.tooltip is None
    page.assert_quiet()


def test_the_tooltip_obeys_arrow_keys(opened):
    page = opened(patchwork(), entry(scores=torch.tensor([-INF] + [1.0] * 11)))
    canvas = page.one("canvas.kept")
    place = {}
    for key, expected in (
        (Keys.ARROW_DOWN, (1, 1)), (Keys.ARROW_DOWN, (2, 1)), (Keys.ARROW_RIGHT, (2, 2)),
        (Keys.ARROW_UP, (1, 2)), (Keys.ARROW_UP, (1, 2)), (Keys.ARROW_LEFT, (1, 1)),
    ):  # fmt: skip
        canvas.send_keys(key)
        row, column = expected
        assert page.tooltip.startswith(f"row {row}, column {column}: ")
        place[expected] = page.pixels()
    assert page.tooltip.splitlines()[1] == "no score"
    assert (place[1, 1] != place[2, 2]).any()  # the cursor is drawn
    canvas.send_keys(Keys.ESCAPE)
    assert page.tooltip is None and page.kept() == [5, 6, 10]


def test_without_scores_and_words(opened):
    page = opened(
        patchwork(),
        entry(kept=range(12), scores=None, words=[], query=[], speaks_for=None, reason="kept all"),
    )
    assert page.kept() == list(range(12))
    assert not page.all("input") and not page.all("canvas.heat") and not page.all(".bar")
    said = page.one("main").text
    assert "kept without scoring" in said and "no scores" in said
    assert "Which word each patch speaks for is not in this report" in said
    page.hover(2)
    assert page.tooltip == "row 1, column 3: kept"
    page.assert_quiet()


def test_words_without_a_tokenizer_are_token_ids(opened):
    page = opened(patchwork(), entry(words=[], query=[70, 80, 90]))
    assert [b.text for b in page.all(".words button")] == [
        "token 70 1", "token 80 1", "token 90 1"
    ]  # fmt: skip


def test_hostile_words_are_only_text(opened):
    page = opened(
        patchwork(), entry(words=[HOSTILE] * 4, reason=HOSTILE), question=HOSTILE, answer=HOSTILE,
        title=HOSTILE,
    )  # fmt: skip
    page.hover(6)
    assert HOSTILE in " ".join(page.tooltip.split("\n"))
    assert [dd.text for dd in page.all("dd")] == [HOSTILE, HOSTILE]
    assert page.browser.title == HOSTILE and not page.all("img")
    page.assert_quiet()


def test_frames_crops_and_pictures_on_one_page(opened):
    """Each with its own pixels, and a slider of its own."""
    crops = tuple(
        Part(6 * n, (3, 2), 2, box=(n / 2, 0, (n + 1) / 2, 1), name=f"crop {n}") for n in (0, 1)
    )
    video = tuple(Part(12 * n, (H, W), W, frame=n, name=f"frame {n}") for n in (0, 1))
    report = Report([
        entry(),
        entry(grid=None, tokens_before=12, parts=crops, kept=range(12), image=1),
        entry(grid=None, tokens_before=24, parts=video, kept=range(12, 24), image=2, kind="video"),
    ])  # fmt: skip
    frames = [patchwork(shift=5), patchwork()]
    page = opened([patchwork(), patchwork(), frames], report)
    titles = [c.text.split("\n")[0] for c in page.all("figcaption")]
    assert [t.split(" tokens")[0] for t in titles] == [
        "image 0 4 x 3", "image 1, crop 0 2 x 3", "image 1, crop 1 2 x 3",
        "video 2, frame 0 4 x 3", "video 2, frame 1 4 x 3",
    ]  # fmt: skip
    canvases = page.all("canvas.kept")
    halves = [page.centres(canvas, w=2) for canvas in canvases[1:3]]
    for half, pixels in zip(halves, np.hsplit(patchwork(), 2), strict=True):
        assert abs(half - colours_of(pixels, w=2)).max() <= 1
    dark = colours_of(dim_dropped(frames[0], np.zeros((H, W), bool)))
    assert abs(page.centres(canvases[3]) - dark).max() <= 1
    assert page.kept(canvas=canvases[4]) == list(range(12))
    page.all("input[type=range]")[2].send_keys(Keys.END)
    assert abs(page.centres(canvases[3]) - colours_of(frames[0])).max() <= 1
    assert page.kept() == [5, 6, 10]  # another slider's
    page.assert_quiet()


def test_it_fits_a_phone(opened, chromium):
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True},
    )
    page = opened(
        patchwork(), entry(words=["a" * 90, *WORDS[1:]]), question="where " * 40 + "x" * 99
    )
    assert page.run("return document.documentElement.scrollWidth") <= 400
    kept, heat = page.one("canvas.kept"), page.one("canvas.heat")
    assert kept.size["width"] > 300
    assert heat.location["y"] >= kept.location["y"] + kept.size["height"]
    assert page.one("input[type=range]").size["width"] > 200


def test_it_is_dark_where_the_reader_wants_it(opened, chromium):
    page = opened(patchwork(), entry())
    lightness = []
    for scheme in ("light", "dark"):
        chromium.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        lightness.append(rgb(chromium.get_screenshot_as_png())[2, 2].mean())
    assert lightness[0] > 230 and lightness[1] < 40
    assert page.kept() == [5, 6, 10]
