// The screen of the map: which photos a layer finds alike, at one glance.
"use strict";
{
    playground.screens.map = (root) => {
        const { element, replace, go, link } = playground;
        /** @type {Record<string, string>} */
        let settings = {};
        /** @type {Choice} */
        let choice;
        /** @type {string | undefined} */
        let viewed;
        const panel = playground.mapPanel({
            address: (id) => link("search", { ...choice, photo: id }),
            moved(view) {
                settings = { ...settings, view };
                viewed = view || undefined;
                go("map", settings, true);
            },
            chosen: (classes) => go("map", { ...settings, classes: classes.join(".") || "none" }),
        });
        const heading = element(
            "h1",
            { tabindex: "-1" },
            "Photos that a layer finds alike lie close together",
        );
        const sentence = playground.sentence(
            (part) => {
                const next = { ...choice, ...part };
                if (part.set !== undefined)
                    go("map", { set: part.set, network: choice.network, layer: choice.layer });
                else if (part.network !== undefined)
                    go("map", { ...settings, ...inDepth(part.network) });
                else goTo(next);
            },
            ["set", "network", "layer"],
        );
        const methods = element("span", {
            class: "segments",
            role: "group",
            "aria-label": "Method",
        });
        const note = element("p", { class: "muted" });
        replace(
            root,
            heading,
            element("div", { class: "bar-line" }, sentence.element, methods),
            panel.element,
            note,
        );

        /** @param {Choice} next */
        function goTo({ set, network, layer }) {
            go("map", { ...settings, set, network, layer, view: null });
        }

        /** @param {number} network */
        function inDepth(network) {
            const next = playground.step(choice, "network", network - choice.network);
            return { set: choice.set, network: next.network, layer: next.layer, view: null };
        }

        return {
            async update(newSettings) {
                const next = playground.choice(newSettings);
                const { maps, name, classes, photos } = playground.site.sets[next.set];
                if (!maps.length) throw new RangeError(`The photos of ${name} have no map.`);
                const method = playground.oneOf(newSettings, "method", maps, maps[0]);
                const photo =
                    newSettings.photo === undefined
                        ? null
                        : playground.whole(newSettings, "photo", photos, 0);
                const picked =
                    newSettings.classes === undefined
                        ? null
                        : newSettings.classes
                              .split(".")
                              .map(Number)
                              .filter((k) => Number.isInteger(k) && k >= 0 && k < classes.length)
                              .slice(0, playground.colours.length);
                choice = next;
                settings = newSettings;
                sentence.show(choice);
                replace(
                    methods,
                    ...maps.map((each) =>
                        element(
                            "a",
                            {
                                href: link("map", { ...settings, method: each, view: null }),
                                "aria-current": each === method ? "true" : null,
                            },
                            each.toUpperCase(),
                        ),
                    ),
                );
                const text = await panel.show(
                    choice.set,
                    choice.network,
                    choice.layer,
                    method,
                    photo,
                    picked,
                );
                if (choice !== next) return "";
                if (settings.view !== viewed) panel.look(settings.view);
                viewed = settings.view;
                const layer = playground.site.networks[choice.network].layers[choice.layer];
                note.textContent = `${playground.plural(photos, "photo", "photos")}. ${text} Drag to move, scroll to zoom; click a photo to search by it.`;
                playground.announce(`Map of ${name}, layer ${layer.name}`);
                return `Map of ${name} · ${layer.name}`;
            },
            key(event) {
                const what = stepKeys(event);
                if (!what) return false;
                goTo(playground.step(choice, what[0], what[1]));
                return true;
            },
            close: () => panel.close(),
        };
    };

    /** @param {KeyboardEvent} event @returns {["layer" | "network", number] | null} */
    function stepKeys(event) {
        if (event.key === "ArrowLeft") return ["layer", -1];
        if (event.key === "ArrowRight") return ["layer", 1];
        if (event.key === "[") return ["network", -1];
        if (event.key === "]") return ["network", 1];
        return null;
    }
}
