// Starts the site and shows the screen that the address asks for.
"use strict";
{
    const { element, replace, link } = playground;
    const root = /** @type {HTMLElement} */ (document.getElementById("screen"));
    const nav = /** @type {HTMLElement} */ (document.getElementById("screens"));
    const dialog = /** @type {HTMLDialogElement} */ (document.getElementById("help"));
    const STORED = "pyxai-playground-keys";

    /** @type {View | null} */
    let view = null;
    let current = "";
    let turn = 0;
    /** @type {Record<string, string>} */
    let last = {};

    /** @param {string} screen */
    function navigation(screen) {
        const { sets } = playground.site;
        const { set, network, layer, metric, photo } = last;
        /** @type {[string, string, boolean, Record<string, string | undefined>, string[]][]} */
        const entries = [
            ["search", "Search", true, { set, photo, network, layer, metric }, ["photo"]],
            ["map", "Map", sets.some(({ maps }) => maps.length), { set, network, layer }, []],
            ["explore", "Explore", true, { network }, ["layer", "unit", "layers"]],
            ["compare", "Compare", sets.some(({ retrieval }) => retrieval), { set }, []],
            [
                "classes",
                "Classes",
                sets.some(({ galleries }) => galleries),
                { set, network },
                ["class"],
            ],
            ["own", "Your photo", playground.live.available, { set, network, layer, metric }, []],
            ["about", "About", true, {}, []],
        ];
        replace(
            nav,
            ...entries
                .filter(([, , there]) => there)
                .map(([name, text, , settings, also]) =>
                    element(
                        "a",
                        {
                            href: link(name, settings),
                            "aria-current":
                                name === screen || also.includes(screen) ? "page" : null,
                        },
                        text,
                    ),
                ),
        );
        const here = nav.querySelector("[aria-current]");
        if (here instanceof HTMLElement) {
            const end = here.offsetLeft - nav.offsetLeft + here.offsetWidth + 30;
            nav.scrollLeft = Math.max(0, end - nav.clientWidth);
        }
    }

    /** @param {unknown} error @param {string} screen */
    function fail(error, screen) {
        view?.close?.();
        view = null;
        current = "";
        const wrong = error instanceof RangeError;
        const text = error instanceof Error ? error.message : String(error);
        replace(
            root,
            element(
                "div",
                { class: "failure", role: "alert" },
                element(
                    "h1",
                    { tabindex: "-1" },
                    wrong ? "This link leads nowhere" : "This could not be shown",
                ),
                element("p", {}, text),
                !wrong &&
                    element(
                        "p",
                        { class: "muted" },
                        "If the site was built again, reload the page. If it was copied, copy it again whole; otherwise build it again with “pyxai playground build”.",
                    ),
                element(
                    "p",
                    { class: "links" },
                    playground.site &&
                        element("a", { href: link("search", {}) }, "To the first page"),
                    !wrong &&
                        element(
                            "button",
                            { type: "button", onclick: () => location.reload() },
                            "Try again",
                        ),
                ),
            ),
        );
        document.title = `Not shown · ${playground.site?.title ?? "Playground"}`;
        if (playground.site) navigation(screen);
    }

    async function show() {
        const { screen, settings } = playground.route();
        const mine = ++turn;
        const fresh = screen !== current;
        root.setAttribute("aria-busy", "true");
        try {
            const make = Object.hasOwn(playground.screens, screen)
                ? playground.screens[screen]
                : null;
            if (!make) throw new RangeError(`There is no page “${screen}”.`);
            if (fresh) {
                const first = current === "" && !view;
                view?.close?.();
                view = null;
                const shown = element("div", { class: `screen ${screen}` });
                const made = make(shown);
                current = screen;
                view = made;
                const title = await made.update(settings);
                if (mine !== turn) {
                    if (view === made && !shown.isConnected) replace(root, shown);
                    return;
                }
                replace(root, shown);
                window.scrollTo(0, 0);
                if (!first) focusHeading();
                named(title);
            } else {
                const title = await /** @type {View} */ (view).update(settings);
                if (mine !== turn) return;
                if (document.activeElement === document.body) focusHeading();
                named(title);
            }
            last = { ...last, ...settings };
            navigation(screen);
        } catch (error) {
            if (mine === turn) fail(error, screen);
        } finally {
            if (mine === turn) root.removeAttribute("aria-busy");
        }
    }

    function focusHeading() {
        const heading = root.querySelector("h1");
        if (heading instanceof HTMLElement) heading.focus({ preventScroll: true });
    }

    /** @param {string} title */
    function named(title) {
        document.title = title ? `${title} · ${playground.site.title}` : playground.site.title;
    }

    playground.help = () => {
        if (!dialog.open) dialog.showModal();
    };

    const allowed = /** @type {HTMLInputElement} */ (document.getElementById("keys"));
    try {
        allowed.checked = localStorage.getItem(STORED) !== "off";
    } catch {
        // No storage: the choice lasts as long as the page.
    }
    allowed.addEventListener("change", () => {
        try {
            localStorage.setItem(STORED, allowed.checked ? "on" : "off");
        } catch {
            // As above.
        }
    });
    document.getElementById("help-button")?.addEventListener("click", playground.help);

    document.addEventListener("keydown", (event) => {
        if (event.altKey || event.ctrlKey || event.metaKey || dialog.open || !allowed.checked)
            return;
        if (event.target instanceof Element && event.target.closest("input, select, textarea"))
            return;
        if (event.key === "?") playground.help();
        else if (!view?.key?.(event)) return;
        event.preventDefault();
    });
    document.querySelector(".skip")?.addEventListener("click", (event) => {
        event.preventDefault(); // the address is the state of the page
        focusHeading();
    });

    async function start() {
        try {
            playground.site = await playground.load("site");
            if (playground.site.format !== 1)
                throw new Error("This site was built for other pages.");
            playground.live = await playground.load("live").then(
                (live) => /** @type {Live} */ (live),
                () => ({ available: false }),
            );
            const brand = document.getElementById("brand");
            if (brand) brand.textContent = playground.site.title;
            window.addEventListener("hashchange", () => void show());
            await show();
        } catch (error) {
            fail(error, "");
        }
    }
    void start();
}
