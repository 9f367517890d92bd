// Opens the screen that the address names.
"use strict";

/** @type {Record<string, PageScreen>} */
const SCREENS = {
  search: searchScreen,
  map: mapScreen,
  layers: layersScreen,
  compare: compareScreen,
  classes: classesScreen,
  photo: photoScreen,
  try: tryScreen,
  about: aboutScreen,
};
const KEPT = ["set", "network", "layer", "metric", "photo"]; // what other screens go on with

/** @type {{name: string, opened: Opened} | null} */
let current = null;

/** @param {string} id */
function part(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/** @param {string} name @param {Params} params */
function drawNavigation(name, params) {
  const carried = Object.fromEntries(Object.entries(params).filter(([key]) => KEPT.includes(key)));
  const shown = Object.entries(SCREENS).filter(
    ([key, screen]) => !screen.within && (key !== "try" || live.available),
  );
  const here = SCREENS[name] && SCREENS[name].within ? SCREENS[name].within : name;
  fill(
    part("nav"),
    shown.map(([key, screen]) =>
      make("a", { href: addressOf(key, carried), "aria-current": key === here && "page" }, screen.title),
    ),
  );
}

function route() {
  if (["#main"].includes(location.hash)) return;
  const { screen: name, params } = readAddress();
  const main = part("main");
  drawNavigation(name, params);
  try {
    if (!SCREENS[name]) throw new BadLink(`there is no screen “${name}” here`);
    if (!current || current.name !== name) {
      if (current && current.opened.close) current.opened.close();
      current = null;
      main.className = `screen-${name}`;
      fill(main);
      const opened = SCREENS[name].open(main);
      current = { name, opened };
      scrollTo(0, 0);
    }
    document.title = `${SCREENS[name].title} – ${site.title}`;
    current.opened.update(params);
  } catch (error) {
    if (current && current.opened.close) current.opened.close();
    current = null;
    const start = make("a", { href: "#/search" }, "To the start");
    fill(main, failure(error), make("p", {}, start));
  }
}

async function start() {
  try {
    await loadSite();
  } catch (error) {
    fill(part("main"), failure(error));
    return;
  }
  part("title").textContent = site.title;
  const photos = site.sets.reduce((sum, set) => sum + set.photos, 0);
  part("footer").textContent = `${counted(photos, "photo")}, ${counted(site.networks.length, "network")} · made by pyxai ${site.pyxai} on ${site.made}`;
  addEventListener("hashchange", route);
  document.querySelector(".skip")?.addEventListener("click", (event) => {
    event.preventDefault();
    part("main").focus();
  });
  route();
}

start();
