// The map: all photos of a set as points, alike ones close together.
"use strict";

const COLORED = 8; // classes that have a colour at a time
const AMIDST = 12;

/** @type {Record<string, string>} */
const ABOUT_MAPS = {
  umap: "UMAP keeps neighbours together; large distances say nothing.",
  pca: "The two directions of largest variance; what differs in others lies on top of each other.",
};

/**
 * Colours of points: the chosen classes have one each, others are grey.
 * @param {Uint16Array} labels
 * @param {Map<number, string>} colors
 */
function pointColors(labels, colors) {
  const found = new Uint8Array(4 * labels.length);
  /** @param {string} text @param {number} opacity */
  const bytes = (text, opacity) => [
    ...[1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)),
    opacity,
  ];
  const grey = bytes(GREY, colors.size ? 90 : 190);
  /** @type {Map<number, number[]>} */
  const known = new Map([...colors].map(([label, color]) => [label, bytes(color, 225)]));
  labels.forEach((label, id) => found.set(known.get(label) || grey, 4 * id));
  return found;
}

/** @type {PageScreen} */
const mapScreen = {
  title: "Map",
  open(main) {
    /** @type {Place} */
    let place;
    let method = "";
    let turn = 0;
    let shownSet = -1;
    /** @type {Uint16Array} */
    let labels = new Uint16Array(0);
    /** @type {Map<number, string>} */
    let colors = new Map();
    /** @param {Partial<Place>} change */
    const choose = (change) => go("map", { ...moved(place, change), map: method });
    const points = new Points(
      (id) => look(id === null ? place.photo : id),
      (photo) => choose({ photo }),
      () => amidst(),
    );
    points.canvas.setAttribute(
      "aria-label",
      "Map of the photos. Arrow keys move it, plus and minus zoom, 0 shows all. " +
        "The photos in its middle are listed below.",
    );
    const controls = make("div", { class: "controls" });
    const legend = make("div", { class: "legend", role: "group", "aria-label": "Classes" });
    const card = make("figure", { class: "card" });
    const middle = make("ol", { class: "strip" });
    const note = make("p", { class: "quiet" });
    const problem = make("div");
    /** @param {string} text @param {string} label @param {() => void} click */
    const tool = (text, label, click) =>
      make("button", { type: "button", class: "tool", "aria-label": label, title: label, click }, text);
    fill(
      main,
      make("p", { class: "lead" }, "Every point is a photo. Alike ones lie together."),
      controls,
      problem,
      make(
        "div",
        { class: "map" },
        make(
          "div",
          { class: "map-view" },
          points.node,
          make(
            "div",
            { class: "tools" },
            tool("+", "Zoom in", () => points.move(0, 0, 1.5)),
            tool("−", "Zoom out", () => points.move(0, 0, 1 / 1.5)),
            tool("⤢", "Show all", () => points.reset()),
          ),
        ),
        make("aside", { class: "map-side" }, card, legend, note),
      ),
      make("h3", {}, "In the middle of the map"),
      middle,
    );

    let seen = 0;
    /** @param {number} id */
    async function look(id) {
      const mine = ++seen;
      points.mark(id);
      const title = photoTitle(place.set, id, labels[id]);
      const about = await aboutPhoto(place.set, id).catch(() => null);
      if (mine !== seen) return;
      fill(
        card,
        picture(thumbOf(place.set, id), title, { width: 128, height: 128, loading: "eager" }),
        make(
          "figcaption",
          {},
          make("b", {}, className(place.set, labels[id]) || `photo ${id}`),
          about && make("span", { class: "file", title: about.name }, about.name),
          make("a", { href: addressOf("search", { ...place, photo: id }) }, "What is alike?"),
          make("a", { href: addressOf("photo", { ...place, photo: id }) }, "What speaks for its class?"),
        ),
      );
    }

    function amidst() {
      fill(
        middle,
        points.amidst(AMIDST).map((id) => {
          const title = photoTitle(place.set, id, labels[id]);
          return make(
            "li",
            {},
            make(
              "a",
              { href: addressOf("map", { ...place, photo: id, map: method }), title },
              picture(thumbOf(place.set, id), title, { width: 72, height: 72 }),
            ),
          );
        }),
      );
    }

    function drawLegend() {
      const set = site.sets[place.set];
      const rows = set.classes.map((name, label) => {
        const color = colors.get(label);
        const dot = make("span", { class: "dot" });
        dot.style.background = color || "transparent";
        return make(
          "button",
          {
            type: "button",
            class: "legend-row",
            "aria-pressed": String(color !== undefined),
            click: () => toggle(label),
          },
          dot,
          make("span", {}, name),
          make("small", {}, grouped(set.sizes[label])),
        );
      });
      fill(legend, set.classes.length > COLORED && make("p", { class: "quiet" }, "Up to eight classes have a colour; click to choose."), rows);
    }

    /** @param {number} label */
    function toggle(label) {
      if (!colors.delete(label)) {
        const free = COLORS.filter((color) => ![...colors.values()].includes(color));
        if (!free.length) {
          const [oldest] = colors.keys();
          free.push(/** @type {string} */ (colors.get(oldest)));
          colors.delete(oldest);
        }
        colors.set(label, free[0]);
      }
      drawLegend();
      points.paint(pointColors(labels, colors));
    }

    async function show() {
      const mine = ++turn;
      const set = site.sets[place.set];
      const methods = set.maps.map((each) => each.toUpperCase());
      const chooser = select("Method", methods, set.maps.indexOf(method), (to) =>
        go("map", { ...place, map: set.maps[to] }),
      );
      fill(
        controls,
        sentence(place, choose, { metric: false, more: [make("span", {}, "laid out by "), chooser] }),
      );
      note.textContent = ABOUT_MAPS[method] || "";
      try {
        const base = `sets/${place.set}/networks/${place.network}/layers/${place.layer}`;
        const [every, found] = await Promise.all([
          labelsOf(place.set),
          playground.load(`${base}/map-${method}`),
        ]);
        if (mine !== turn) return;
        labels = every;
        if (!found.numbers) found.numbers = unpacked(found.points);
        if (shownSet !== place.set) {
          shownSet = place.set;
          const largest = set.sizes.map((size, label) => [size, label]).sort((a, b) => b[0] - a[0]);
          colors = new Map(largest.slice(0, COLORED).map(([, label], at) => [label, COLORS[at]]));
          drawLegend();
        }
        fill(problem);
        points.show(found.numbers, pointColors(labels, colors));
        if (found.explained) {
          const [across, up] = found.explained;
          note.textContent = `${ABOUT_MAPS.pca} Across ${percent(across)} of the variance, up ${percent(up)}.`;
        }
        look(place.photo);
        amidst();
      } catch (error) {
        if (mine === turn) fill(problem, failure(error));
      }
    }

    const endKeys = layerKeys(() => place, choose);
    return {
      update(params) {
        place = placeOf(params);
        const maps = site.sets[place.set].maps;
        method = wordOf(params, "map", maps, maps[0]);
        show();
      },
      close() {
        turn++;
        points.close();
        endKeys();
      },
    };
  },
};
