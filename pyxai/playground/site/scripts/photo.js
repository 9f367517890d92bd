// One photo: what each network takes it for, and what speaks for that.
"use strict";
{
    const { element, link, heading } = playground;
    const IN_A_FILE = 20;

    /** @param {number} set @param {number} network @param {number} photo @returns {Promise<Explained | null>} */
    async function explained(set, network, photo) {
        /** @type {{ first: number, photos: (Explained | null)[] }} */
        const file = await playground.load(
            `sets/${set}/networks/${network}/explained-${Math.floor(photo / IN_A_FILE)}`,
        );
        return file.photos[photo - file.first];
    }

    playground.screens.photo = playground.page(async (settings) => {
        const choice = playground.choice(settings);
        const { set, photo: id, network } = choice;
        const photoSet = playground.site.sets[set];
        const photo = await playground.photo(set, id);
        const kind = playground.className(set, photo.label);
        const networks = playground.site.networks;
        const asked = photoSet.explained ? networks.map((_, m) => explained(set, m, id)) : [];
        const [found, names] = await Promise.all([
            Promise.all(asked),
            Promise.all(
                networks.map(
                    (_, m) =>
                        /** @type {Promise<{ names: string[] }>} */ (
                            playground.load(`networks/${m}/names`)
                        ),
                ),
            ),
        ]);
        const all = found.flatMap((each) => each || []);
        const has = all.length > 0;
        const maps = has ? all[network].maps : [];
        const chosen = playground.whole(settings, "map", Math.max(1, maps.length), 0);
        const alt = `The photo: ${playground.describe(set, id, photo.label)}`;

        const content = [
            playground.crumbs([photoSet.name, link("search", { set, photo: id })]),
            heading(kind),
            element("p", { class: "muted file" }, photo.name),
            element(
                "p",
                { class: "links" },
                element(
                    "a",
                    {
                        href: link("search", {
                            set,
                            photo: id,
                            network,
                            layer: settings.layer,
                            metric: settings.metric,
                        }),
                    },
                    "Search by this photo",
                ),
                photoSet.maps.length > 0 &&
                    element(
                        "a",
                        { href: link("map", { set, network, layer: settings.layer, photo: id }) },
                        "On the map",
                    ),
                photo.label >= 0 &&
                    element(
                        "a",
                        {
                            href: link("search", {
                                set,
                                photo: id,
                                only: photo.label,
                                order: "class",
                            }),
                        },
                        "Others of its class",
                    ),
            ),
            networks.length > 1 &&
                has &&
                element(
                    "span",
                    { class: "segments", role: "group", "aria-label": "Explained for" },
                    ...networks.map((each, m) =>
                        element(
                            "a",
                            {
                                href: link("photo", { ...settings, network: m, map: null }),
                                "aria-current": m === network ? "true" : null,
                            },
                            each.name,
                        ),
                    ),
                ),
            element(
                "div",
                { class: "photo-columns" },
                playground.explanation(
                    playground.large(set, id),
                    alt,
                    photo.size,
                    maps,
                    names[network].names,
                    chosen,
                    (map) => playground.go("photo", { ...playground.route().settings, map }, true),
                ),
                element(
                    "aside",
                    { class: "photo-side" },
                    !has &&
                        element(
                            "p",
                            { class: "notice" },
                            photoSet.explained
                                ? `Explanations were computed for ${playground.plural(photoSet.explained, "photo", "photos")} of ${photoSet.name}; this one is not among them.`
                                : `No explanations were computed for the photos of ${photoSet.name}.`,
                        ),
                    ...all.flatMap((each, m) => [
                        element("h2", {}, `${networks[m].name} says`),
                        playground.topClasses(each.top, names[m].names),
                    ]),
                    element("h2", {}, "The photo"),
                    playground.facts([
                        ["Class", kind],
                        ["Number", `${playground.count(id)} of ${photoSet.name}`],
                        ["Size", `${photo.size[0]} × ${photo.size[1]} pixels`],
                    ]),
                ),
            ),
        ];
        return {
            title: `Photo: ${kind}`,
            content,
            key(event) {
                const by = /** @type {Record<string, number>} */ ({
                    ArrowLeft: -1,
                    k: -1,
                    ArrowRight: 1,
                    j: 1,
                })[event.key];
                if (by)
                    playground.go("photo", {
                        ...settings,
                        photo: playground.step(choice, "photo", by).photo,
                        map: null,
                    });
                else if (event.key === "[" || event.key === "]") {
                    const next = playground.step(
                        choice,
                        "network",
                        event.key === "[" ? -1 : 1,
                    ).network;
                    playground.go("photo", { ...settings, network: next, map: null });
                } else return false;
                return true;
            },
        };
    });
}
