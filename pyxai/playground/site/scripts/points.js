// Many points on a plane: WebGL where there is any, a plain canvas elsewhere.
"use strict";

const TWEEN = 800; // milliseconds
const CELLS = 128; // a side of the grid that finds the nearest point

const VERTEX = `
attribute vec2 from; attribute vec2 to; attribute vec4 color;
uniform vec2 scale; uniform vec2 offset; uniform float share; uniform float size;
varying vec4 shade;
void main() {
  gl_Position = vec4(mix(from, to, share) * scale + offset, 0.0, 1.0);
  gl_PointSize = size;
  shade = color;
}`;
const FRAGMENT = `
precision mediump float;
varying vec4 shade;
void main() {
  float far = length(gl_PointCoord - 0.5) * 2.0;
  float cover = 1.0 - smoothstep(0.75, 1.0, far);
  gl_FragColor = vec4(shade.rgb, 1.0) * (shade.a * cover);
}`;

class Points {
  /**
   * @param {(id: number | null) => void} look is called with the point under the pointer
   * @param {(id: number) => void} choose is called with a point that was clicked
   * @param {() => void} rest is called when a movement has ended
   */
  constructor(look, choose, rest) {
    this._look = look;
    this._choose = choose;
    this._rest = rest;
    /** @type {Uint16Array} */
    this._from = new Uint16Array(0);
    /** @type {Uint16Array} */
    this._to = new Uint16Array(0);
    /** @type {Uint8Array} */
    this._colors = new Uint8Array(0);
    this._started = -Infinity;
    this._view = { x: 0.5, y: 0.5, zoom: 1 };
    this._frame = 0;
    this._chosen = -1;
    /** @type {Int32Array[]} */
    this._cells = [];
    this.canvas = make("canvas", { class: "points", tabindex: 0, role: "application" });
    this._ring = make("span", { class: "ring", "aria-hidden": "true", hidden: true });
    /** @type {HTMLElement} */
    this.node = make("div", { class: "points-box" }, this.canvas, this._ring);
    this._gl = this.canvas.getContext("webgl", { antialias: false, premultipliedAlpha: true });
    this._plain = this._gl ? null : this.canvas.getContext("2d");
    if (this._gl) this._prepare(this._gl);
    this._listen();
    this._watch = new ResizeObserver(() => this.draw());
    this._watch.observe(this.node);
  }

  /**
   * Shows points; those that were there move to their new places.
   * @param {Uint16Array} points x and y of each, 0 to 65535
   * @param {Uint8Array} colors red, green, blue, opacity of each
   */
  show(points, colors) {
    const moves = this._to.length === points.length && this._to !== points;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this._from = moves ? this._to : points;
    this._to = points;
    this._started = moves && !still ? performance.now() : -Infinity;
    this._cells = [];
    this._colors = colors;
    this._upload();
    this.draw();
  }

  /** @param {Uint8Array} colors */
  paint(colors) {
    this._colors = colors;
    this._upload();
    this.draw();
  }

  /** @param {number} id */
  mark(id) {
    this._chosen = id;
    this.draw();
  }

  draw() {
    if (!this._frame) this._frame = requestAnimationFrame(() => this._draw());
  }

  close() {
    cancelAnimationFrame(this._frame);
    this._watch.disconnect();
    const lost = this._gl && this._gl.getExtension("WEBGL_lose_context");
    if (lost) lost.loseContext();
  }

  /**
   * The points nearest to the middle of what is in view.
   * @param {number} count
   * @returns {number[]}
   */
  amidst(count) {
    const { x, y, zoom } = this._view;
    const reach = 0.75 / zoom;
    /** @type {[number, number][]} */
    const found = [];
    for (let id = 0; id * 2 < this._to.length; id++) {
      const across = this._to[2 * id] / 65535 - x;
      const down = this._to[2 * id + 1] / 65535 - y;
      const far = across * across + down * down;
      if (far < reach * reach) found.push([far, id]);
    }
    return found
      .sort((a, b) => a[0] - b[0])
      .slice(0, count)
      .map(([, id]) => id);
  }

  /**
   * @param {number} dx in widths of the view
   * @param {number} dy
   * @param {number} factor of the zoom
   */
  move(dx, dy, factor = 1) {
    this._zoom(factor, 0.5, 0.5);
    this._view.x += dx / this._view.zoom;
    this._view.y += dy / this._view.zoom;
    this._settle();
  }

  reset() {
    this._view = { x: 0.5, y: 0.5, zoom: 1 };
    this._settle();
  }

  // ---- drawing ----

  /** @param {WebGLRenderingContext} gl */
  _prepare(gl) {
    const program = gl.createProgram();
    for (const [kind, text] of /** @type {[number, string][]} */ ([
      [gl.VERTEX_SHADER, VERTEX],
      [gl.FRAGMENT_SHADER, FRAGMENT],
    ])) {
      const shader = /** @type {WebGLShader} */ (gl.createShader(kind));
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this._buffers = [gl.createBuffer(), gl.createBuffer(), gl.createBuffer()];
    this._attributes = ["from", "to", "color"].map((name) => gl.getAttribLocation(program, name));
    this._uniforms = ["scale", "offset", "share", "size"].map((name) =>
      gl.getUniformLocation(program, name),
    );
  }

  _upload() {
    const gl = this._gl;
    if (!gl || !this._buffers || !this._attributes) return;
    const arrays = [this._from, this._to, this._colors];
    arrays.forEach((array, place) => {
      const [width, kind] = place < 2 ? [2, gl.UNSIGNED_SHORT] : [4, gl.UNSIGNED_BYTE];
      gl.bindBuffer(gl.ARRAY_BUFFER, /** @type {WebGLBuffer[]} */ (this._buffers)[place]);
      gl.bufferData(gl.ARRAY_BUFFER, array, gl.STATIC_DRAW);
      const at = /** @type {number[]} */ (this._attributes)[place];
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, width, kind, true, 0, 0);
    });
  }

  _draw() {
    this._frame = 0;
    const ratio = Math.min(2, devicePixelRatio || 1);
    const width = Math.round(this.node.clientWidth * ratio);
    const height = Math.round(this.node.clientHeight * ratio);
    if (!width || !height) return;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    const passed = (performance.now() - this._started) / TWEEN;
    const share = passed >= 1 ? 1 : passed * passed * (3 - 2 * passed);
    const count = this._to.length / 2;
    const size = Math.max(4, Math.min(11, 220 / Math.sqrt(count + 1))) * ratio * this._growth();
    const side = Math.min(width, height) * 0.94;
    const { x, y, zoom } = this._view;
    if (this._gl && this._uniforms) {
      const gl = this._gl;
      const [scale, offset, mixed, dot] = this._uniforms;
      const across = (2 * side * zoom) / width;
      const down = (2 * side * zoom) / height;
      gl.viewport(0, 0, width, height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2f(scale, across, down);
      gl.uniform2f(offset, -x * across, -y * down);
      gl.uniform1f(mixed, share);
      gl.uniform1f(dot, size);
      gl.drawArrays(gl.POINTS, 0, count);
    } else if (this._plain) {
      this._drawPlain(this._plain, width, height, side * zoom, size, share);
    }
    this._drawRing(share);
    if (passed < 1) this.draw();
  }

  /**
   * @param {CanvasRenderingContext2D} pen @param {number} width @param {number} height
   * @param {number} side of the square of all points in pixels @param {number} size
   * @param {number} share of the movement
   */
  _drawPlain(pen, width, height, side, size, share) {
    pen.clearRect(0, 0, width, height);
    const { x, y } = this._view;
    for (let id = 0; id * 2 < this._to.length; id++) {
      const [px, py] = this._at(id, share);
      const left = width / 2 + (px - x) * side;
      const top = height / 2 - (py - y) * side;
      if (left < -size || top < -size || left > width + size || top > height + size) continue;
      const [r, g, b, a] = this._colors.subarray(4 * id, 4 * id + 4);
      pen.fillStyle = `rgba(${r},${g},${b},${a / 255})`;
      pen.fillRect(left - size / 2, top - size / 2, size, size);
    }
  }

  /** @param {number} share */
  _drawRing(share) {
    const there = this._chosen >= 0 && this._chosen * 2 < this._to.length;
    this._ring.hidden = !there;
    if (!there) return;
    const [px, py] = this._at(this._chosen, share);
    const [left, top] = this._onScreen(px, py);
    const inside = left > 0 && top > 0;
    this._ring.hidden =
      !inside || left > this.node.clientWidth || top > this.node.clientHeight;
    this._ring.style.transform = `translate(${left - 9}px, ${top - 9}px)`;
  }

  _growth() {
    return Math.min(2.5, Math.sqrt(this._view.zoom));
  }

  /** @param {number} id @param {number} share @returns {[number, number]} */
  _at(id, share) {
    /** @param {number} axis */
    const one = (axis) => {
      const from = this._from[2 * id + axis];
      return (from + (this._to[2 * id + axis] - from) * share) / 65535;
    };
    return [one(0), one(1)];
  }

  _side() {
    return Math.min(this.node.clientWidth, this.node.clientHeight) * 0.94 * this._view.zoom;
  }

  /** @param {number} px @param {number} py @returns {[number, number]} */
  _onScreen(px, py) {
    const side = this._side();
    return [
      this.node.clientWidth / 2 + (px - this._view.x) * side,
      this.node.clientHeight / 2 - (py - this._view.y) * side,
    ];
  }

  /** @param {number} left @param {number} top @returns {[number, number]} */
  _onPlane(left, top) {
    const side = this._side();
    return [
      this._view.x + (left - this.node.clientWidth / 2) / side,
      this._view.y - (top - this.node.clientHeight / 2) / side,
    ];
  }

  // ---- finding ----

  /**
   * The point nearest to a place on the screen, within a few pixels.
   * @param {number} left @param {number} top
   * @returns {number | null}
   */
  _nearest(left, top) {
    if (!this._cells.length) this._sort();
    const [x, y] = this._onPlane(left, top);
    const reach = 14 / this._side();
    /** @param {number} value */
    const cell = (value) => Math.max(0, Math.min(CELLS - 1, Math.floor(value * CELLS)));
    let best = null;
    let least = reach * reach;
    for (let row = cell(y - reach); row <= cell(y + reach); row++) {
      for (let column = cell(x - reach); column <= cell(x + reach); column++) {
        for (const id of this._cells[row * CELLS + column]) {
          const [px, py] = this._at(id, 1);
          const far = (px - x) ** 2 + (py - y) ** 2;
          if (far < least) [best, least] = [id, far];
        }
      }
    }
    return best;
  }

  _sort() {
    const count = this._to.length / 2;
    const cells = new Int32Array(count);
    const sizes = new Int32Array(CELLS * CELLS);
    for (let id = 0; id < count; id++) {
      const column = Math.min(CELLS - 1, (this._to[2 * id] * CELLS) >> 16);
      const row = Math.min(CELLS - 1, (this._to[2 * id + 1] * CELLS) >> 16);
      cells[id] = row * CELLS + column;
      sizes[cells[id]]++;
    }
    this._cells = Array.from(sizes, (size) => new Int32Array(size));
    sizes.fill(0);
    for (let id = 0; id < count; id++) this._cells[cells[id]][sizes[cells[id]]++] = id;
  }

  // ---- moving ----

  /** @param {number} factor @param {number} left share of the width @param {number} top */
  _zoom(factor, left, top) {
    const [width, height] = [this.node.clientWidth, this.node.clientHeight];
    const [x, y] = this._onPlane(left * width, top * height);
    this._view.zoom = Math.max(0.5, Math.min(200, this._view.zoom * factor));
    const [nowX, nowY] = this._onPlane(left * width, top * height);
    this._view.x += x - nowX;
    this._view.y += y - nowY;
  }

  _settle() {
    this._view.x = Math.max(-0.2, Math.min(1.2, this._view.x));
    this._view.y = Math.max(-0.2, Math.min(1.2, this._view.y));
    this.draw();
    clearTimeout(this._timer);
    this._timer = setTimeout(this._rest, 150);
  }

  _listen() {
    /** @type {Map<number, [number, number]>} */
    const down = new Map();
    let travelled = 0;
    /** @param {PointerEvent} event @returns {[number, number]} */
    const place = (event) => {
      const box = this.canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const spread = () => {
      const [a, b] = [...down.values()];
      return Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
    };
    this.canvas.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
      this.canvas.setPointerCapture(event.pointerId);
      down.set(event.pointerId, place(event));
      travelled = 0;
    });
    this.canvas.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      const [left, top] = place(event);
      const before = down.get(event.pointerId);
      if (!before) {
        this._look(this._nearest(left, top));
        return;
      }
      const old = down.size === 2 ? spread() : 0;
      down.set(event.pointerId, [left, top]);
      travelled += Math.hypot(left - before[0], top - before[1]);
      if (down.size === 2) {
        const [a, b] = [...down.values()];
        const middle = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
        const { clientWidth, clientHeight } = this.node;
        this._zoom(spread() / old, middle[0] / clientWidth, middle[1] / clientHeight);
      } else {
        this._view.x -= (left - before[0]) / this._side();
        this._view.y += (top - before[1]) / this._side();
      }
      this._settle();
    });
    /** @param {PointerEvent} event */
    const up = (event) => {
      if (down.delete(event.pointerId) && travelled < 5 && event.type === "pointerup") {
        const found = this._nearest(...place(event));
        if (found !== null) this._choose(found);
      }
    };
    this.canvas.addEventListener("pointerup", up);
    this.canvas.addEventListener("pointercancel", up);
    this.canvas.addEventListener("pointerleave", () => this._look(null));
    this.canvas.addEventListener(
      "wheel",
      (/** @type {WheelEvent} */ event) => {
        event.preventDefault();
        const box = this.canvas.getBoundingClientRect();
        const left = (event.clientX - box.left) / box.width;
        const top = (event.clientY - box.top) / box.height;
        this._zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)), left, top);
        this._settle();
      },
      { passive: false },
    );
    this.canvas.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      const moves = /** @type {Record<string, [number, number, number]>} */ ({
        ArrowLeft: [-0.1, 0, 1],
        ArrowRight: [0.1, 0, 1],
        ArrowUp: [0, 0.1, 1],
        ArrowDown: [0, -0.1, 1],
        "+": [0, 0, 1.3],
        "=": [0, 0, 1.3],
        "-": [0, 0, 1 / 1.3],
      });
      if (event.key === "0") this.reset();
      else if (moves[event.key]) this.move(...moves[event.key]);
      else return;
      event.preventDefault();
    });
  }
}
