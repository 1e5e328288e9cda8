"use strict";
// Draws what write_html laid down in #data: per image or video, its blocks of patches (panels).
// Python has ranked the tokens (ranks: 0 for the best), so keeping k of them is rank < k.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tooltip = document.getElementById("tooltip");
  const OUTLINE = "#ffb000"; // orange: stands out on the dimmed picture and on the heat map alike
  const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const clamp = (n, low, high) => Math.min(high, Math.max(low, n));
  const SMALLEST = 640; // pixels on a canvas' longer side: small pictures are enlarged, whole times

  // Neighbouring words get colours far apart: each a golden angle on from the one before.
  const wordColour = (n) => `hsl(${(30 + n * 137.508) % 360} 85% 55%)`;

  function heatColour(score, [low, high]) {
    if (score === null) return "#bfbfbf";
    const place = clamp((score - low) / (high - low), 0, 1);
    return data.heat[Math.round(place * (data.heat.length - 1))];
  }

  function dimmedCopy(picture) {
    const copy = document.createElement("canvas");
    [copy.width, copy.height] = [picture.naturalWidth, picture.naturalHeight];
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    const pixels = context.getImageData(0, 0, copy.width, copy.height);
    for (let i = 0; i < pixels.data.length; i += 4) {
      const [red, green, blue] = pixels.data.subarray(i, i + 3);
      const grey = data.dim * (0.299 * red + 0.587 * green + 0.114 * blue);
      pixels.data.fill(Math.round(grey), i, i + 3);
    }
    context.putImageData(pixels, 0, 0);
    return copy;
  }

  // One picture, crop or frame: two canvases and the patch under the pointer or the arrow keys.
  class Panel {
    constructor(figure, panel, view) {
      Object.assign(this, panel, { view, cursor: null });
      this.count = figure.querySelector(".count");
      this.keptCanvas = figure.querySelector("canvas.kept");
      this.heatCanvas = figure.querySelector("canvas.heat"); // null without scores
      this.canvases = [this.keptCanvas, this.heatCanvas].filter(Boolean);
      for (const canvas of this.canvases) {
        canvas.onpointermove = canvas.onclick = (event) => this.point(canvas, event);
        // A finger leaves with every tap: what it tapped stays until another place is tapped.
        canvas.onpointerleave = (event) => event.pointerType === "touch" || this.leave();
        canvas.onblur = () => this.leave();
        canvas.onkeydown = (event) => this.press(canvas, event);
      }
    }

    async load() {
      this.picture = new Image();
      this.picture.src = this.uri;
      await this.picture.decode();
      this.dimmed = dimmedCopy(this.picture);
      const { width, height } = this.dimmed;
      this.zoom = Math.max(1, Math.ceil(SMALLEST / Math.max(width, height)));
      const size = { width: width * this.zoom, height: height * this.zoom };
      this.canvases.forEach((canvas) => Object.assign(canvas, size));
    }

    // Of a patch, in the canvas' pixels: left, top, width, height.
    box(cell) {
      const [row, column] = [Math.floor(cell / this.w), cell % this.w];
      const [x, y] = [this.xs[column], this.ys[row]];
      return [x, y, this.xs[column + 1] - x, this.ys[row + 1] - y].map((n) => n * this.zoom);
    }

    draw() {
      if (!this.dimmed) return; // not loaded yet
      const kept = this.tokens.filter((token) => this.view.isKept(token)).length;
      this.count.textContent = `${kept} of ${this.tokens.length} kept`;
      this.drawKept(this.keptCanvas.getContext("2d"));
      if (this.heatCanvas) this.drawHeat(this.heatCanvas.getContext("2d"));
    }

    drawKept(context) {
      const view = this.view;
      context.imageSmoothingEnabled = false;
      context.drawImage(this.dimmed, 0, 0, context.canvas.width, context.canvas.height);
      this.tokens.forEach((token, cell) => {
        if (!view.isKept(token)) return;
        const box = this.box(cell);
        const source = box.map((n) => n / this.zoom);
        context.globalAlpha = view.word === null || view.highlights(token) ? 1 : 0.3;
        context.drawImage(this.picture, ...source, ...box);
        context.globalAlpha *= view.coloured && view.wordOf(token) !== null ? 0.5 : 0;
        context.fillStyle = wordColour(view.wordOf(token));
        context.fillRect(...box);
        context.globalAlpha = 1;
      });
      this.drawOutlines(context);
    }

    drawHeat(context) {
      this.tokens.forEach((token, cell) => {
        context.fillStyle = heatColour(this.view.scores[token], this.view.scale);
        context.fillRect(...this.box(cell));
      });
      this.drawOutlines(context);
    }

    drawOutlines(context) {
      const [view, pointed] = [this.view, this.tokens[this.cursor]];
      const thin = Math.max(2, Math.round(context.canvas.width / 320));
      const doubled = (inside, colour) => {
        this.outline(context, inside, "#000", thin + 4);
        this.outline(context, inside, colour, thin + 1);
      };
      this.outline(context, (token) => view.isKept(token), OUTLINE, thin);
      if (view.word !== null) doubled((token) => view.highlights(token), wordColour(view.word));
      if (this.cursor !== null) doubled((token) => token === pointed, "#fff");
    }

    // The border between patches inside and outside, half on either side of it.
    outline(context, inside, colour, thick) {
      context.fillStyle = colour;
      const within = this.tokens.map(inside);
      within.forEach((own, cell) => {
        if (!own) return;
        const [x, y, width, height] = this.box(cell);
        const [left, top, column] = [x - thick / 2, y - thick / 2, cell % this.w];
        const across = (at) => context.fillRect(left, at, width + thick, thick);
        const down = (at) => context.fillRect(at, top, thick, height + thick);
        if (!within[cell - this.w]) across(top);
        if (!within[cell + this.w]) across(top + height);
        if (column === 0 || !within[cell - 1]) down(left);
        if (column === this.w - 1 || !within[cell + 1]) down(left + width);
      });
    }

    point(canvas, event) {
      const area = canvas.getBoundingClientRect();
      const column = Math.floor(((event.clientX - area.left) / area.width) * this.w);
      const row = Math.floor(((event.clientY - area.top) / area.height) * this.h);
      const cell = clamp(row, 0, this.h - 1) * this.w + clamp(column, 0, this.w - 1); // on the edge
      this.show(cell, event.clientX, event.clientY);
    }

    press(canvas, event) {
      if (event.key === "Escape") return this.leave();
      if (!(event.key in ARROWS)) return;
      event.preventDefault(); // the page would scroll
      const [down, right] = this.cursor === null ? [0, 0] : ARROWS[event.key]; // first: the corner
      const row = clamp(Math.floor(this.cursor / this.w) + down, 0, this.h - 1);
      const column = clamp((this.cursor % this.w) + right, 0, this.w - 1);
      const area = canvas.getBoundingClientRect();
      const [x, y] = [(column + 1) / this.w, (row + 1) / this.h];
      this.show(row * this.w + column, area.left + x * area.width, area.top + y * area.height);
    }

    show(cell, x, y) {
      tooltip.textContent = this.view.describe(this.tokens[cell], cell, this.w);
      tooltip.hidden = false;
      const [width, height] = [tooltip.offsetWidth, tooltip.offsetHeight];
      tooltip.style.left = `${clamp(x + 14, 4, innerWidth - width - 4)}px`;
      tooltip.style.top = `${y + 18 + height > innerHeight ? y - height - 10 : y + 18}px`;
      if (cell === this.cursor) return;
      this.cursor = cell;
      this.draw();
    }

    leave() {
      tooltip.hidden = true;
      this.cursor = null;
      this.draw();
    }
  }

  // One image or video. k: how many tokens are kept, null for those that the run kept; word: the
  // one that is picked out, or null; coloured: kept patches show their word's colour.
  class View {
    constructor(section, entry) {
      Object.assign(this, entry, { section, k: null, word: null, coloured: false });
      this.run = new Set(entry.kept);
      this.slider = section.querySelector("input[type=range]");
      this.reset = section.querySelector("button.reset");
      this.buttons = section.querySelectorAll(".words li button");
      const figures = section.querySelectorAll("figure");
      this.panels = entry.panels.map((panel, n) => new Panel(figures[n], panel, this));
      this.slider?.addEventListener("input", () => this.draw({ k: this.slider.valueAsNumber }));
      this.reset?.addEventListener("click", () => this.draw({ k: null }));
      const toggle = section.querySelector(".coloured input");
      toggle?.addEventListener("change", () => this.draw({ coloured: toggle.checked }));
      this.buttons.forEach((button, n) => {
        button.querySelector(".swatch").style.background = wordColour(n);
        button.addEventListener("click", () => this.draw({ word: this.word === n ? null : n }));
      });
      const bar = section.querySelector(".bar i");
      if (bar) bar.style.background = `linear-gradient(to right, ${data.heat.join(", ")})`;
    }

    isKept(token) {
      return this.k === null ? this.run.has(token) : this.ranks[token] < this.k;
    }

    wordOf(token) {
      return this.speaks_for?.[token] ?? null;
    }

    highlights(token) {
      return this.wordOf(token) === this.word && this.isKept(token);
    }

    describe(token, cell, width) {
      const place = `row ${Math.floor(cell / width) + 1}, column ${(cell % width) + 1}`;
      const lines = [`${place}: ${this.isKept(token) ? "kept" : "dropped"}`];
      const [score, rank] = [this.scores?.[token], this.ranks?.[token] + 1];
      if (score === null) lines.push("no score");
      else if (this.scores) lines.push(`${score.toPrecision(4)} nats, rank ${rank} of ${this.tokens}`);
      const word = this.wordOf(token);
      if (word !== null) lines.push(`speaks for \u201c${this.words[word]}\u201d`);
      return lines.join("\n");
    }

    draw(changes) {
      Object.assign(this, changes);
      if (this.slider) this.writeCount();
      const said = (this.speaks_for ?? []).filter((_, token) => this.isKept(token));
      this.buttons.forEach((button, n) => {
        const count = said.filter((word) => word === n).length;
        button.querySelector("b").textContent = count;
        button.setAttribute("aria-pressed", this.word === n);
        button.parentElement.classList.toggle("silent", count === 0);
      });
      this.panels.forEach((panel) => panel.draw());
    }

    writeCount() {
      const k = this.k ?? this.run.size;
      const share = Number(((100 * k) / this.tokens).toPrecision(3));
      const whose = this.k === null ? "as the run kept them" : "the highest scores";
      const text = `${k} of ${this.tokens} tokens (${share} %), ${whose}`;
      this.slider.value = k;
      this.slider.setAttribute("aria-valuetext", text);
      this.section.querySelector("output").textContent = text;
      this.reset.setAttribute("aria-pressed", this.k === null);
    }
  }

  document.querySelectorAll("section.input").forEach(async (section, n) => {
    const view = new View(section, data.entries[n]);
    await Promise.all(view.panels.map((panel) => panel.load()));
    view.draw();
    section.dataset.drawn = "";
  });
})();
