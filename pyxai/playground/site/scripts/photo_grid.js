// All photos of a set in a grid that holds only what is in view, so that their number does not matter.
"use strict";

const CELL = 68;
const GAP = 4;

class PhotoGrid {
  /**
   * @param {(id: number) => void} choose is called with a photo that was clicked
   */
  constructor(choose) {
    this._choose = choose;
    /** @type {number[]} */
    this._ids = [];
    this._set = 0;
    this._chosen = -1;
    this._current = 0;
    this._columns = 1;
    /** @type {Uint16Array} */
    this._labels = new Uint16Array(0);
    this._inner = make("div", { class: "grid-inner" });
    /** @type {HTMLElement} */
    this.node = make(
      "div",
      {
        class: "grid-view",
        role: "group",
        "aria-label": "Photos of the data set",
        scroll: () => this._draw(),
        keydown: (/** @type {KeyboardEvent} */ event) => this._press(event),
      },
      this._inner,
    );
    this._watch = new ResizeObserver(() => this._layout());
    this._watch.observe(this.node);
  }

  /**
   * @param {number} set
   * @param {number[]} ids in their order
   * @param {Uint16Array} labels of all photos of the set
   */
  show(set, ids, labels) {
    this._set = set;
    this._ids = ids;
    this._labels = labels;
    this._current = Math.max(0, ids.indexOf(this._chosen));
    fill(this._inner);
    this.node.scrollTop = 0;
    this._layout();
  }

  /** @param {number} id */
  mark(id) {
    this._chosen = id;
    const place = this._ids.indexOf(id);
    if (place >= 0) this._current = place;
    this._reveal();
    fill(this._inner);
    this._draw();
  }

  /** Scrolls until the current photo is in view. */
  _reveal() {
    const top = Math.floor(this._current / this._columns) * (CELL + GAP);
    const { scrollTop, clientHeight } = this.node;
    if (top < scrollTop) this.node.scrollTop = top;
    else if (top + CELL > scrollTop + clientHeight) this.node.scrollTop = top + CELL - clientHeight;
  }

  close() {
    this._watch.disconnect();
  }

  _layout() {
    const columns = Math.max(1, Math.floor((this.node.clientWidth + GAP) / (CELL + GAP)));
    if (columns !== this._columns) fill(this._inner);
    this._columns = columns;
    const rows = Math.ceil(this._ids.length / columns);
    this._inner.style.height = `${Math.max(0, rows * (CELL + GAP) - GAP)}px`;
    this._draw();
  }

  _draw() {
    const pitch = CELL + GAP;
    const first = Math.max(0, Math.floor(this.node.scrollTop / pitch) - 2) * this._columns;
    const rows = Math.ceil(this.node.clientHeight / pitch) + 4;
    const last = Math.min(this._ids.length, first + rows * this._columns);
    /** @type {Map<number, HTMLElement>} */
    const there = new Map();
    for (const child of this._inner.children) there.set(Number(child.dataset.place), child);
    for (const [place, child] of there) if (place < first || place >= last) child.remove();
    for (let place = first; place < last; place++) {
      if (!there.has(place)) this._inner.append(this._cell(place));
    }
  }

  /** @param {number} place */
  _cell(place) {
    const id = this._ids[place];
    const title = photoTitle(this._set, id, this._labels[id]);
    const cell = make(
      "button",
      {
        class: "grid-cell",
        type: "button",
        title,
        "data-place": place,
        "data-photo": id,
        "aria-pressed": String(id === this._chosen),
        tabindex: place === this._current ? 0 : -1,
        click: () => this._choose(id),
      },
      picture(thumbOf(this._set, id), title, { width: CELL, height: CELL }),
    );
    cell.style.left = `${(place % this._columns) * (CELL + GAP)}px`;
    cell.style.top = `${Math.floor(place / this._columns) * (CELL + GAP)}px`;
    return cell;
  }

  /** @param {KeyboardEvent} event */
  _press(event) {
    const steps = /** @type {Record<string, number>} */ ({
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -this._columns,
      ArrowDown: this._columns,
      Home: -this._ids.length,
      End: this._ids.length,
    });
    const step = steps[event.key];
    if (step === undefined || !this._ids.length) return;
    event.preventDefault();
    this._current = Math.max(0, Math.min(this._ids.length - 1, this._current + step));
    this._reveal();
    this._draw();
    for (const child of this._inner.children) {
      const here = Number(child.dataset.place) === this._current;
      child.tabIndex = here ? 0 : -1;
      if (here) child.focus({ preventScroll: true });
    }
  }
}

/**
 * Numbers from 0 in an order that looks like chance and is always the same.
 * @param {number} count
 */
function shuffled(count) {
  const order = Array.from({ length: count }, (_, place) => place);
  let state = 1;
  for (let place = count - 1; place > 0; place--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const other = state % (place + 1);
    [order[place], order[other]] = [order[other], order[place]];
  }
  return order;
}
