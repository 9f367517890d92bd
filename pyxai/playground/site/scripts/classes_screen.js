// Classes: the most convincing pieces of photos for each class of a network.
"use strict";

/** @type {PageScreen} */
const classesScreen = {
  title: "Classes",
  open(main) {
    let turn = 0;

    /** @param {Params} params */
    async function show(params) {
      const mine = ++turn;
      const { set, network } = placeOf(params);
      const count = site.networks[network].classes;
      const chosen = numberOf(params, "class", count, null);
      const head = [
        make("p", { class: "lead" }, "What does each class look like to the network?"),
        make(
          "p",
          { class: "sentence" },
          "Photos of ",
          select("Data set", site.sets.map((each) => each.name), set, (to) => go("classes", { set: to, network })),
          " as ",
          select("Network", site.networks.map((each) => each.name), network, (to) => go("classes", { set, network: to })),
          " sees them",
        ),
      ];
      if (!site.sets[set].galleries) {
        fill(main, head, make("p", {}, "This site was built without galleries."));
        return;
      }
      const base = `sets/${set}/networks/${network}`;
      const [about, names] = await Promise.all([playground.load(`${base}/classes`), classesOf(network)]);
      const row = about.classes.find((/** @type {any} */ each) => each.class === chosen);
      const crops = row && (await playground.load(`${base}/class-${chosen}`));
      if (mine !== turn) return;
      if (chosen === null) fill(main, head, classList(set, network, about, names));
      else if (!row) {
        const back = make("a", { href: addressOf("classes", { set, network }) }, "Classes that have some");
        fill(main, head, make("p", {}, `Nothing in these photos speaks for “${names[chosen]}”. `, back));
      } else fill(main, head, classPage(set, network, row, crops, names[row.class]));
    }
    return {
      update: (params) => {
        show(params).catch((error) => fill(main, failure(error)));
      },
      close: () => {
        turn++;
      },
    };
  },
};

/** @param {number} set @param {number} network @param {any} about @param {string[]} names */
function classList(set, network, about, names) {
  const rows = [...about.classes].sort((a, b) => b.crops - a.crops || a.class - b.class);
  const list = make("div", { class: "class-list" });
  const number = make("p", { class: "quiet", "aria-live": "polite" });
  const filter = make("input", {
    type: "search",
    placeholder: "Class name",
    "aria-label": "Show classes whose name contains",
    input: () => draw(),
  });
  function draw() {
    const text = filter.value.trim().toLowerCase();
    const found = rows.filter((row) => names[row.class].toLowerCase().includes(text));
    number.textContent = `${counted(found.length, "class").replace(/classs$/, "classes")} with crops of ${about.crop} pixels`;
    fill(
      list,
      found.slice(0, 200).map((row) =>
        make(
          "a",
          { class: "class-row", href: addressOf("classes", { set, network, class: row.class }), "data-class": row.class },
          make("b", {}, names[row.class]),
          make("small", {}, `${counted(row.crops, "crop")} from ${counted(row.photos, "photo")}`),
          make(
            "span",
            { class: "class-crops" },
            row.best.slice(0, 5).map((/** @type {number} */ i) =>
              picture(cropOf(set, network, row.class, i), "", { width: 72, height: 72 }),
            ),
          ),
        ),
      ),
    );
  }
  draw();
  return make("section", {}, make("p", { class: "filters" }, filter), number, list);
}

/** @param {number} set @param {number} network @param {number} label @param {number} i */
function cropOf(set, network, label, i) {
  return `data/sets/${set}/networks/${network}/crops/${label}-${i}.jpg`;
}

/** @param {number} set @param {number} network @param {any} row @param {any} crops @param {string} name */
function classPage(set, network, row, crops, name) {
  /** @param {any} crop */
  const figure = (crop) => {
    const image = picture(
      cropOf(set, network, row.class, crop.i),
      crop.photo === null ? "Piece of a photo" : `Piece of photo ${crop.photo}`,
      { width: 128, height: 128 },
    );
    const link = crop.photo !== null && addressOf("photo", { set, network, photo: crop.photo });
    return make(
      "figure",
      { class: "crop" },
      link ? make("a", { href: link }, image) : image,
      make("figcaption", {}, percent(crop.score)),
    );
  };
  /** @param {string} title @param {any[]} group */
  const cluster = (title, group) =>
    group.length > 0 &&
    make("section", {}, make("h3", {}, title), make("div", { class: "crops" }, group.map(figure)));
  return make(
    "section",
    {},
    make("h2", {}, name),
    make(
      "p",
      { class: "quiet" },
      `${counted(row.crops, "crop")} from ${counted(row.photos, "photo")}, in groups of what the network finds alike; below each the probability of the class.`,
    ),
    row.picture &&
      make(
        "figure",
        { class: "class-picture" },
        picture(`data/networks/${network}/classes/${row.class}.jpg`, `Picture that excites ${name} most`, { width: 160, height: 160 }),
        make("figcaption", { class: "quiet" }, "Made by optimisation so that it excites the class."),
      ),
    crops.clusters.map((/** @type {any[]} */ group, /** @type {number} */ at) =>
      cluster(`Group ${at + 1}: ${counted(group.length, "crop")}`, group),
    ),
    cluster("In no group", crops.noise),
    make("p", {}, make("a", { class: "button", href: addressOf("classes", { set, network }) }, "All classes")),
  );
}
