// Try: a photo of one's own, looked at by the server that serves this page.
"use strict";

/** @type {PageScreen} */
const tryScreen = {
  title: "Try",
  open(main) {
    /** @type {Place} */
    let place;
    let turn = 0;
    /** @type {Blob | null} */
    let photo = null;
    let address = "";
    const controls = make("div", { class: "controls" });
    const out = make("div", { "aria-live": "polite" });
    const view = new OverlayView((chosen) => view.mark(chosen));
    const input = make("input", {
      type: "file",
      accept: "image/*",
      id: "file",
      change: () => input.files[0] && take(input.files[0]),
    });
    const drop = make(
      "div",
      {
        class: "drop",
        dragover: (/** @type {DragEvent} */ event) => event.preventDefault(),
        drop: (/** @type {DragEvent} */ event) => {
          event.preventDefault();
          const file = event.dataTransfer && event.dataTransfer.files[0];
          if (file) take(file);
        },
      },
      make("label", { for: "file" }, "Choose a photo, drop it here, or paste it"),
      input,
      make("p", { class: "quiet" }, "It goes to the computer that serves this page, is looked at and forgotten."),
    );
    fill(
      main,
      make("p", { class: "lead" }, "A photo of your own: its classes, and what is alike."),
      controls,
      live.available ? drop : make("p", {}, "This site answers no questions about new photos: it was not served with --live."),
      out,
    );
    /** @param {Partial<Place>} change */
    const choose = (change) => go("try", moved(place, change));

    /** @param {ClipboardEvent} event */
    const paste = (event) => {
      const file = event.clipboardData && event.clipboardData.files[0];
      if (file && live.available) take(file);
    };
    addEventListener("paste", paste);

    /** @param {Blob} file */
    function take(file) {
      photo = file;
      URL.revokeObjectURL(address);
      address = URL.createObjectURL(file);
      ask();
    }

    async function ask() {
      if (!photo) return;
      const mine = ++turn;
      fill(out, make("p", { class: "quiet" }, "Looking…"));
      try {
        if (live.max_bytes && photo.size > live.max_bytes) {
          throw new Error(`the photo has more than ${grouped(live.max_bytes)} bytes`);
        }
        const { set, network, layer, metric } = place;
        const query = new URLSearchParams({ set: `${set}`, network: `${network}`, layer: `${layer}`, metric, k: `${site.k}` });
        const answer = await fetch(`api/search?${query}`, {
          method: "POST",
          headers: { "Content-Type": "application/octet-stream" },
          body: photo,
        });
        const found = await answer.json().catch(() => ({ error: `the server failed (${answer.status})` }));
        if (found.error) throw new Error(found.error);
        const [labels, names, image] = await Promise.all([
          labelsOf(set),
          classesOf(network),
          loadPicture(address).catch(() => null),
        ]);
        if (mine !== turn) return;
        if (image) view.show(image, found.size, "Your photo", found.maps, names, found.maps.length ? 0 : -1);
        fill(
          out,
          make(
            "div",
            { class: "photo" },
            image ? view.node : make("p", { class: "quiet" }, "The browser cannot show this kind of photo."),
            make(
              "aside",
              {},
              make("h2", {}, "Top classes"),
              classBars(place, found.top, names, -1),
              make("p", { class: "quiet" }, `In ${found.seconds} seconds.`),
            ),
          ),
          make("h2", {}, "Most alike"),
          resultList(set, NO_CLASS, found, labels, (id) => addressOf("search", { ...place, photo: id })),
        );
      } catch (error) {
        if (mine === turn) fill(out, failure(error));
      }
    }
    return {
      update(params) {
        place = placeOf(params);
        fill(controls, sentence(place, choose));
        ask();
      },
      close() {
        turn++;
        removeEventListener("paste", paste);
        URL.revokeObjectURL(address);
      },
    };
  },
};
