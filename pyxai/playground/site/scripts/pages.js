// Screens that are made anew for each of their states: a function from settings to content.
"use strict";
{
    playground.page = (make) => (root) => {
        let turn = 0;
        /** @type {((event: KeyboardEvent) => boolean) | undefined} */
        let key;
        return {
            async update(settings) {
                const mine = ++turn;
                const made = await make(settings);
                if (mine !== turn) return "";
                playground.replace(root, ...made.content);
                key = made.key;
                playground.announce(made.title);
                return made.title;
            },
            key: (event) => Boolean(key?.(event)),
        };
    };

    playground.crumbs = (...links) =>
        playground.element(
            "nav",
            { class: "crumbs", "aria-label": "Where this is" },
            ...links.map(([text, address]) => playground.element("a", { href: address }, text)),
        );

    playground.beside = (what, address) =>
        playground.element(
            "span",
            { class: "segments" },
            playground.element(
                "a",
                { href: address(-1), "aria-label": `Previous ${what}` },
                "← Previous",
            ),
            playground.element("a", { href: address(1), "aria-label": `Next ${what}` }, "Next →"),
        );

    playground.heading = (text) => playground.element("h1", { tabindex: "-1" }, text);

    playground.table = (heads, rows, caption) => {
        const { element } = playground;
        return element(
            "div",
            { class: "table-box", tabindex: "0", role: "region", "aria-label": caption },
            element(
                "table",
                {},
                element("caption", { class: "unseen" }, caption),
                element(
                    "thead",
                    {},
                    element(
                        "tr",
                        {},
                        ...heads.map((text) =>
                            element(
                                "th",
                                { scope: "col", class: text.startsWith("#") ? "numeric" : null },
                                text.replace("#", ""),
                            ),
                        ),
                    ),
                ),
                element(
                    "tbody",
                    {},
                    ...rows.map((cells) =>
                        element(
                            "tr",
                            {},
                            ...cells.map((cell, i) =>
                                element(
                                    i ? "td" : "th",
                                    {
                                        scope: i ? null : "row",
                                        class: heads[i].startsWith("#") ? "numeric" : null,
                                    },
                                    cell,
                                ),
                            ),
                        ),
                    ),
                ),
            ),
        );
    };
}
