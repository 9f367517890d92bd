// A photo with a map over it, drawn in the browser, so that one may look through it.
"use strict";

/**
 * @typedef {{kind: string, method: string, title: string, target: number,
 *   region: [number, number, number, number], values: Packed, low: number, high: number,
 *   facts: [string, string][]}} Explanation
 */

// Dark violet to light yellow, lighter all the way: it reads without colour vision.
const STOPS = [
  [24, 12, 60], [104, 24, 112], [188, 44, 88], [240, 110, 40], [252, 196, 60], [255, 250, 190],
];

/**
 * Red, green, blue of a value in [0, 1].
 * @param {number} value
 * @returns {[number, number, number]}
 */
function heat(value) {
  const at = Math.max(0, Math.min(1, value)) * (STOPS.length - 1);
  const low = Math.min(STOPS.length - 2, Math.floor(at));
  const [a, b] = [STOPS[low], STOPS[low + 1]];
  const [r, g, blue] = a.map((from, k) => Math.round(from + (b[k] - from) * (at - low)));
  return [r, g, blue];
}

/**
 * The map as a small picture; low values are see-through.
 * @param {Explanation} map
 */
function heatPicture(map) {
  const [rows, columns] = map.values.shape;
  const values = unpacked(map.values);
  // Where a map has negative values, these speak against the class and are not shown.
  const floor = Math.max(map.low, Math.min(0, map.high));
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const pixels = pen.createImageData(columns, rows);
  values.forEach((value, place) => {
    const number = map.low + (value / 255) * (map.high - map.low);
    const share = map.high > floor ? Math.max(0, (number - floor) / (map.high - floor)) : 0;
    pixels.data.set([...heat(share), Math.round(255 * Math.min(1, share / 0.5))], 4 * place);
  });
  pen.putImageData(pixels, 0, 0);
  return canvas;
}

/**
 * Draws a photo and a map over it onto a canvas of the photo's proportions.
 * @param {HTMLCanvasElement} canvas
 * @param {CanvasImageSource} photo
 * @param {[number, number]} size of the photo as the map's region counts
 * @param {Explanation | null} map
 * @param {number} opacity
 */
function drawOverlay(canvas, photo, size, map, opacity) {
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(photo, 0, 0, canvas.width, canvas.height);
  if (!map || !opacity) return;
  const [x0, y0, x1, y1] = map.region;
  const [across, down] = [canvas.width / size[0], canvas.height / size[1]];
  pen.save();
  pen.imageSmoothingEnabled = true;
  pen.imageSmoothingQuality = "high";
  // What the network did not see is dimmed.
  pen.fillStyle = "rgba(20, 22, 26, 0.45)";
  pen.beginPath();
  pen.rect(0, 0, canvas.width, canvas.height);
  pen.rect(x0 * across, y0 * down, (x1 - x0) * across, (y1 - y0) * down);
  pen.fill("evenodd");
  pen.globalAlpha = opacity;
  pen.beginPath();
  pen.rect(0, 0, canvas.width, canvas.height);
  pen.clip();
  pen.drawImage(
    heatPicture(map),
    x0 * across,
    y0 * down,
    (x1 - x0) * across,
    (y1 - y0) * down,
  );
  pen.restore();
}

/**
 * A photo that was loaded.
 * @param {string} source
 * @returns {Promise<HTMLImageElement>}
 */
function loadPicture(source) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error(`${source} is missing`));
    image.src = source;
  });
}

/** A photo on a canvas with all its maps to choose from. */
class OverlayView {
  /** @param {(map: number) => void} choose is called with a map that was clicked, -1 for none */
  constructor(choose) {
    this._choose = choose;
    /** @type {Explanation[]} */
    this._maps = [];
    this._chosen = 0;
    /** @type {HTMLImageElement | null} */
    this._photo = null;
    /** @type {[number, number]} */
    this._size = [1, 1];
    this._canvas = make("canvas", { class: "overlay-canvas", role: "img" });
    this._slider = make("input", {
      type: "range",
      min: 0,
      max: 100,
      value: 70,
      "aria-label": "Opacity of the map",
      input: () => this._draw(),
    });
    this._facts = make("dl", { class: "facts" });
    this._list = make("div", { class: "map-list" });
    this.node = make(
      "div",
      { class: "overlay" },
      make(
        "div",
        { class: "overlay-main" },
        this._canvas,
        make("label", { class: "slider" }, make("span", {}, "opacity"), this._slider),
        this._facts,
      ),
      this._list,
    );
  }

  /**
   * @param {HTMLImageElement} photo
   * @param {[number, number]} size of the photo in its file
   * @param {string} alt
   * @param {Explanation[]} maps
   * @param {string[]} names of the network's classes
   * @param {number} chosen
   */
  show(photo, size, alt, maps, names, chosen) {
    this._photo = photo;
    this._size = size;
    this._maps = maps;
    this._alt = alt;
    this._names = names;
    this._canvas.width = photo.naturalWidth;
    this._canvas.height = photo.naturalHeight;
    const widest = Math.min(640, 3 * photo.naturalWidth);
    const ratio = photo.naturalWidth / photo.naturalHeight;
    this._canvas.style.maxWidth = `min(${widest}px, ${68 * ratio}vh)`;
    /** @param {number} place @param {string} title @param {string} target */
    const button = (place, title, target) => {
      const small = make("canvas", { width: 96, height: 96 });
      const [w, h] = [photo.naturalWidth, photo.naturalHeight];
      const scale = 96 / Math.max(w, h);
      small.width = Math.max(1, Math.round(w * scale));
      small.height = Math.max(1, Math.round(h * scale));
      drawOverlay(small, photo, size, maps[place] || null, 0.75);
      return make(
        "button",
        {
          type: "button",
          class: "map-choice",
          "data-map": place,
          click: () => this._choose(place),
        },
        make("span", { class: "map-thumb" }, small),
        make("b", {}, title),
        make("small", {}, target),
      );
    };
    fill(
      this._list,
      button(-1, "Photo", ""),
      maps.map((map, place) => button(place, map.title, names[map.target])),
    );
    this.mark(chosen);
  }

  /** @param {number} chosen */
  mark(chosen) {
    this._chosen = chosen;
    for (const button of this._list.children) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.map) === chosen));
    }
    const map = this._maps[chosen];
    const names = this._names || [];
    const facts = map ? [["explanation", map.title], ["for the class", names[map.target]], ...map.facts] : [];
    fill(
      this._facts,
      facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
    );
    const told = map ? `, with ${map.title} for ${names[map.target]} over it` : "";
    this._canvas.setAttribute("aria-label", `${this._alt}${told}`);
    this._slider.disabled = !map;
    this._draw();
  }

  _draw() {
    if (!this._photo) return;
    const opacity = Number(this._slider.value) / 100;
    drawOverlay(this._canvas, this._photo, this._size, this._maps[this._chosen] || null, opacity);
  }
}
