// Links. The part of the address after # is the whole state of a page, so that any view can be
// sent to somebody: `#/search?set=0&photo=12&network=0&layer=3&metric=cosine`.
"use strict";
{
    playground.route = () => {
        const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
        /** @type {Record<string, string>} */
        const settings = Object.create(null);
        for (const [name, value] of new URLSearchParams(query)) settings[name] = value;
        return { screen: path || "search", settings };
    };

    playground.link = (screen, settings) => {
        const query = new URLSearchParams();
        for (const [name, value] of Object.entries(settings)) {
            if (value !== null && value !== undefined && value !== "")
                query.set(name, String(value));
        }
        const text = query.toString();
        return `#/${screen}${text ? `?${text}` : ""}`;
    };

    playground.go = (screen, settings, quietly) => {
        const address = playground.link(screen, settings);
        if (address === location.hash) return;
        if (quietly) history.replaceState(null, "", address);
        else location.hash = address;
    };

    playground.whole = (settings, name, below, otherwise) => {
        const text = settings[name];
        if (text === undefined) return otherwise;
        const number = /^\d{1,9}$/.test(text) ? Number(text) : NaN;
        if (!(number < below)) {
            throw new RangeError(
                below > 0
                    ? `The link asks for ${name} “${text}”, but this site has 0 to ${below - 1}.`
                    : `The link asks for ${name} “${text}”, but this site has none.`,
            );
        }
        return number;
    };

    playground.oneOf = (settings, name, all, otherwise) => {
        const text = settings[name];
        if (text === undefined) return otherwise;
        if (!all.includes(text)) {
            throw new RangeError(
                `The link asks for ${name} “${text}”, but this site has ${all.length ? all.join(", ") : "none"}.`,
            );
        }
        return text;
    };

    playground.choice = (settings) => {
        const { sets, networks, metrics } = playground.site;
        const set = playground.whole(settings, "set", sets.length, 0);
        const { start, photos } = sets[set];
        const network = playground.whole(settings, "network", networks.length, start.network);
        const layers = networks[network].layers.length;
        const usual = network === start.network ? start.layer : layers - 1;
        return {
            set,
            network,
            layer: playground.whole(settings, "layer", layers, usual),
            metric: playground.oneOf(settings, "metric", metrics, start.metric),
            photo: playground.whole(settings, "photo", photos, start.photo),
        };
    };
}
