// One photo: its classes, and what speaks for them.
"use strict";

const EXPLAINED_PER_FILE = 20;

/** @type {PageScreen} */
const photoScreen = {
  title: "Photo",
  within: "search",
  open(main) {
    let turn = 0;
    let shown = "";
    /** @type {Place} */
    let place;
    let map = 0;
    const view = new OverlayView((chosen) =>
      go("photo", { ...place, map: chosen < 0 ? null : chosen, plain: chosen < 0 ? 1 : null }, true),
    );

    /** @param {Params} params */
    async function show(params) {
      const mine = ++turn;
      place = placeOf(params);
      const count = site.sets[place.set].photos;
      map = params.plain ? -1 : numberOf(params, "map", 1000, 0);
      const key = [place.set, place.network, place.photo].join();
      if (key === shown) {
        view.mark(map);
        return;
      }
      const [about, names] = await Promise.all([
        aboutPhoto(place.set, place.photo),
        classesOf(place.network),
      ]);
      const explained = site.sets[place.set].explained > 0;
      const part = Math.floor(place.photo / EXPLAINED_PER_FILE);
      const base = `sets/${place.set}/networks/${place.network}`;
      const [found, photo] = await Promise.all([
        explained ? playground.load(`${base}/explained-${part}`) : null,
        loadPicture(photoOf(place.set, place.photo)),
      ]);
      if (mine !== turn) return;
      shown = key;
      const one = found && found.photos[place.photo - found.first];
      const maps = one ? one.maps : [];
      const own = className(place.set, about.label);
      view.show(photo, about.size, own ? `${own}: ${about.name}` : about.name, maps, names, map);
      /** @param {number} step */
      const other = (step) =>
        addressOf("photo", { ...place, photo: (place.photo + step + count) % count });
      fill(
        main,
        make(
          "p",
          { class: "sentence" },
          "What speaks for its class, as ",
          select("Network", site.networks.map((each) => each.name), place.network, (to) =>
            go("photo", moved(place, { network: to })),
          ),
          " sees it",
        ),
        make("h1", { class: "photo-title" }, own || `Photo ${place.photo}`),
        make("p", { class: "file" }, about.name),
        make(
          "div",
          { class: "photo" },
          view.node,
          make(
            "aside",
            {},
            make("h2", {}, "Top classes"),
            one
              ? classBars(place, one.top, names, about.label)
              : make("p", { class: "quiet" }, "This site was built without explanations of this photo."),
            make(
              "p",
              { class: "buttons" },
              make("a", { class: "button", href: addressOf("search", { ...place }) }, "What is alike?"),
              make("a", { class: "button", href: addressOf("map", { ...place }) }, "On the map"),
            ),
            make(
              "p",
              { class: "buttons" },
              make("a", { class: "button", href: other(-1) }, "← Previous photo"),
              make("a", { class: "button", href: other(1) }, "Next photo →"),
            ),
            maps.length > 0 &&
              make(
                "p",
                { class: "quiet" },
                "Bright: it speaks for the class (undesirable pixels: it stands in its way). The network does not see what is dimmed. Click a map to lay it over the photo.",
              ),
          ),
        ),
      );
    }
    return {
      update: (params) => {
        show(params).catch((error) => {
          shown = "";
          fill(main, failure(error));
        });
      },
      close: () => {
        turn++;
      },
    };
  },
};

/**
 * The top classes with their probabilities; links to their galleries.
 * @param {{set: number, network: number}} place @param {[number, number][]} top
 * @param {string[]} names @param {number} label of the photo
 */
function classBars(place, top, names, label) {
  const own = className(place.set, label);
  return make(
    "ol",
    { class: "top" },
    top.map(([index, share]) =>
      make(
        "li",
        {},
        make(
          "a",
          { href: addressOf("classes", { set: place.set, network: place.network, class: index }) },
          names[index],
          names[index] === own && make("span", { class: "mark same", role: "img", "aria-label": "its class" }, " ✓"),
        ),
        bar(100 * share),
        make("span", { class: "number" }, percent(share)),
      ),
    ),
  );
}
