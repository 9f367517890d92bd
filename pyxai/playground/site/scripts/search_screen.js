// Search: click a photo, see what the chosen layer finds alike.
"use strict";

/** @type {PageScreen} */
const searchScreen = {
  title: "Search",
  open(main) {
    /** @type {Place} */
    let place;
    let turn = 0;
    let shownSet = -1;
    let order = "mixed";
    let wanted = -1;
    /** @type {Uint16Array} */
    let labels = new Uint16Array(0);
    /** @param {Partial<Place>} change */
    const choose = (change) => go("search", moved(place, change));
    const grid = new PhotoGrid((photo) => choose({ photo }));
    const controls = make("div", { class: "controls" });
    const advanced = make("details", { class: "more" }, make("summary", {}, "All choices"));
    const advancedBody = make("div");
    advanced.append(advancedBody);
    advanced.addEventListener("toggle", () => advanced.open && fill(advancedBody, tiles(place, choose)));
    const filters = make("div", { class: "filters" });
    const query = make("figure", { class: "query" });
    const summary = make("p", { class: "summary", "aria-live": "polite" });
    const results = make("div", { class: "results-box" });
    const note = make("p", { class: "quiet" });
    fill(
      main,
      make(
        "p",
        { class: "lead" },
        "Click a photo. Shown are those that the layer finds most alike.",
      ),
      controls,
      advanced,
      make(
        "div",
        { class: "search" },
        make(
          "section",
          { class: "found", "aria-label": "Results" },
          make("div", { class: "query-row" }, query, make("div", {}, summary, note)),
          results,
        ),
        make("section", { class: "catalogue", "aria-label": "Data set" }, filters, grid.node),
      ),
    );

    function arrange() {
      const set = site.sets[place.set];
      const counts = set.classes.map((name, label) => `${name} (${grouped(set.sizes[label])})`);
      const classes = select("Class", [`all ${grouped(set.photos)} photos`, ...counts], wanted + 1, (to) => {
        wanted = to - 1;
        arrange();
      });
      const orders = ["mixed", "by class"];
      const sorting = select("Order", orders, orders.indexOf(order), (to) => {
        order = orders[to];
        arrange();
      });
      fill(filters, classes, set.classes.length > 1 && wanted < 0 && sorting);
      let ids = shuffled(set.photos);
      if (wanted >= 0) ids = ids.filter((id) => labels[id] === wanted);
      if (order === "by class") ids.sort((a, b) => labels[a] - labels[b] || a - b);
      grid.show(place.set, ids, labels);
      grid.mark(place.photo);
    }

    async function show() {
      const mine = ++turn;
      fill(controls, sentence(place, choose));
      if (advanced.open) fill(advancedBody, tiles(place, choose));
      grid.mark(place.photo);
      results.classList.add("waiting");
      try {
        const [every, found, about] = await Promise.all([
          labelsOf(place.set),
          neighborsOf(place),
          aboutPhoto(place.set, place.photo),
        ]);
        if (mine !== turn) return;
        labels = every;
        if (shownSet !== place.set) {
          shownSet = place.set;
          wanted = -1;
          arrange();
        }
        const label = labels[place.photo];
        const name = className(place.set, label);
        fill(
          query,
          picture(thumbOf(place.set, place.photo), about.name, { width: 128, height: 128, loading: "eager" }),
          make(
            "figcaption",
            {},
            name && make("b", {}, name),
            make("span", { class: "file", title: about.name }, about.name),
            make("a", { href: addressOf("photo", { ...place }) }, "What speaks for its class?"),
            make("a", { href: addressOf("map", { ...place }) }, "Where is it on the map?"),
          ),
        );
        summary.textContent = classSummary(place.set, label, found.ids, labels);
        note.textContent = "Other layers find other things alike: the keys [ and ] step through them.";
        fill(
          results,
          resultList(place.set, label, found, labels, (id) =>
            addressOf("search", { ...place, photo: id }),
          ),
        );
      } catch (error) {
        if (mine === turn) fill(results, failure(error));
      }
      results.classList.remove("waiting");
    }

    const endKeys = layerKeys(() => place, choose);
    return {
      update(params) {
        place = placeOf(params);
        show();
      },
      close() {
        turn++;
        grid.close();
        endKeys();
      },
    };
  },
};
