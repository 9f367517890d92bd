// What the scripts of the playground share: the data of a site (docs/playground_files.md) and
// the parts of the one global, `playground`. Checked, never shipped:
//   npx -p typescript tsc -p tools/playground

type Box = [number, number, number, number];
type PackedArray = {
    type: "uint8" | "uint16" | "uint32" | "float32";
    shape: number[];
    data: string;
};
type Numbers = Uint8Array | Uint16Array | Uint32Array | Float32Array;
type Floats = Float32Array<ArrayBuffer>;
type Bytes = Uint8Array<ArrayBuffer>;

interface SiteMap {
    kind: "cam" | "windows" | "undesirable";
    method: string;
    title: string;
    target: number;
    region: Box;
    values: PackedArray;
    low: number;
    high: number;
    facts: [string, string][];
}

interface Start {
    photo: number;
    network: number;
    layer: number;
    metric: string;
}

interface PhotoSet {
    name: string;
    photos: number;
    classes: string[];
    sizes: number[];
    unreadable: number;
    maps: string[];
    explained: number;
    retrieval: boolean;
    galleries: boolean;
    start: Start;
}

interface Layer {
    name: string;
    type: string;
    index: number;
    channels: number;
    positions: [number, number];
    width: number;
    parameters: number;
    parameters_so_far: number;
    units: number;
    thumbnail: number | null;
}

interface Network {
    name: string;
    parameters: number;
    classes: number;
    modules: number;
    layers: Layer[];
}

interface Site {
    format: number;
    title: string;
    made: string;
    pyxai: string;
    k: number;
    metrics: string[];
    measures: string[];
    sets: PhotoSet[];
    networks: Network[];
}

interface PhotoChunk {
    first: number;
    names: string[];
    labels: number[];
    sizes: [number, number][];
}
interface NeighborFile {
    first: number;
    ids: PackedArray;
    distances: PackedArray;
    typical: number;
}
interface MapFile {
    points: PackedArray;
    explained: [number, number] | null;
}
interface UnitCrop {
    set: number;
    photo: number;
    box: Box;
    response: number;
}
interface Unit {
    channel: number;
    dead: boolean;
    responses: [number, number];
    crops: UnitCrop[];
}
interface UnitsFile {
    units: Unit[];
    size: number;
    steps: number;
    seed: number;
}
interface Module {
    name: string;
    type: string;
    parameters: number;
    shape: number[] | null;
    layer: number | null;
}
type Interval = [number, number, number];
interface RetrievalRow {
    network: number;
    layer: number;
    metric: string;
    class: number | null;
    queries: number;
    measures: Interval[];
}
interface RetrievalFile {
    chance: number;
    confidence: number;
    queries: number;
    skipped: number;
    rows: RetrievalRow[];
}
interface Explained {
    top: [number, number][];
    maps: SiteMap[];
}
interface ClassEntry {
    class: number;
    crops: number;
    photos: number;
    clusters: number;
    label: number | null;
    best: number[];
    picture: boolean;
}
interface ClassesFile {
    crop: number;
    evidence: string;
    classes: ClassEntry[];
}
interface ClassCrop {
    i: number;
    photo: number | null;
    box: Box;
    score: number;
}
interface ClassFile {
    class: number;
    note: string;
    clusters: ClassCrop[][];
    noise: ClassCrop[];
}
interface Live {
    available: boolean;
    max_bytes?: number;
    sets?: number[];
    networks?: number[];
}
interface LiveAnswer {
    ids: number[];
    distances: number[];
    similarity: number[];
    size: [number, number];
    top: [number, number][];
    maps: SiteMap[];
    seconds: number;
}

/** What a link says: the screen and its settings, as text. */
interface Route {
    screen: string;
    settings: Record<string, string>;
}
/** What to search with, checked against the site. */
interface Choice {
    set: number;
    network: number;
    layer: number;
    metric: string;
    photo: number;
}

/** A screen that is shown: told about every change of its settings. */
interface View {
    update(settings: Record<string, string>): Promise<string> | string; // answers with the title
    key?(event: KeyboardEvent): boolean; // whether the key was of use
    close?(): void;
}
type PageMaker = (root: HTMLElement) => View;

type Child = Node | string | number | null | undefined | false;
type Properties = Record<string, unknown>;

interface Tile {
    id: number;
    similarity: number;
    distance: number;
}

interface Playground {
    // data.js
    folder: string;
    file(address: string): string;
    receive(address: string, value: unknown): void;
    load<T>(address: string): Promise<T>;
    peek<T>(address: string): T | undefined;
    unpack(packed: PackedArray): Numbers;
    site: Site;
    live: Live;
    // elements.js
    element<K extends keyof HTMLElementTagNameMap>(
        tag: K,
        properties?: Properties,
        ...children: Child[]
    ): HTMLElementTagNameMap[K];
    drawing(
        tag: string,
        attributes: Record<string, string | number>,
        ...children: Child[]
    ): SVGElement;
    replace(parent: Element, ...children: Child[]): void;
    picture(source: string, alt: string, properties?: Properties): HTMLImageElement;
    announce(text: string): void;
    count(number: number): string;
    amount(number: number): string;
    short(number: number): string;
    percent(share: number): string;
    plural(number: number, one: string, many: string): string;
    facts(rows: [string, Child][]): HTMLDListElement;
    bar(share: number, kind?: string): HTMLElement;
    // routes.js
    route(): Route;
    link(screen: string, settings: Record<string, string | number | null | undefined>): string;
    go(
        screen: string,
        settings: Record<string, string | number | null | undefined>,
        quietly?: boolean,
    ): void;
    whole(settings: Record<string, string>, name: string, below: number, otherwise: number): number;
    oneOf(settings: Record<string, string>, name: string, all: string[], otherwise: string): string;
    choice(settings: Record<string, string>): Choice;
    // colours.js
    colours: string[];
    others: string;
    rgb(colour: string): [number, number, number];
    scale(low: number, high: number): (byte: number) => [number, number, number];
    // photos.js
    photo(
        set: number,
        id: number,
    ): Promise<{ name: string; label: number; size: [number, number] }>;
    name(set: number, id: number): string | undefined;
    labels(set: number): Promise<Numbers>;
    thumb(set: number, id: number): string;
    large(set: number, id: number): string;
    className(set: number, label: number): string;
    describe(set: number, id: number, label: number): string;
    NO_CLASS: number;
    // neighbors.js
    neighbors(choice: Choice): Promise<Tile[]>;
    // grid.js
    photoGrid(chosen: (id: number) => void): {
        element: HTMLElement;
        fill(
            set: number,
            labels: Numbers,
            groups: { title: string | null; ids: ArrayLike<number> }[],
        ): void;
        mark(id: number): void;
        close(): void;
    };
    // results.js
    results(): {
        element: HTMLElement;
        show(
            set: number,
            tiles: Tile[],
            labels: Numbers,
            label: number,
            address: (id: number) => string,
        ): void;
    };
    // choices.js
    sentence(
        change: (choice: Partial<Choice>) => void,
        parts: string[],
    ): {
        element: HTMLElement;
        show(choice: Choice): void;
    };
    tiles(change: (choice: Partial<Choice>) => void): {
        element: HTMLElement;
        show(choice: Choice): void;
    };
    networkTiles(address: (network: number) => string, current: number | null): HTMLElement;
    layerTiles(
        network: number,
        address: (layer: number) => string,
        current: number | null,
    ): HTMLElement;
    step(choice: Choice, what: "layer" | "network" | "metric" | "photo", by: number): Choice;
    // points.js
    pointRenderer(canvas: HTMLCanvasElement): {
        kind: "webgl" | "canvas";
        set(from: Floats, to: Floats, colours: Bytes): void;
        draw(view: { x: number; y: number; scale: number }, mix: number, radius: number): void;
        close(): void;
    };
    // cells.js
    cells(points: Floats): (x: number, y: number, k: number, within: number) => number[];
    // scatter.js
    scatter(events: {
        chosen(id: number): void;
        focused(id: number | null): void;
        moved?(view: string): void;
    }): {
        element: HTMLElement;
        show(points: Floats, colours: Bytes, still: boolean): void;
        mark(id: number | null): void;
        look(view: string | undefined): void;
        near(id: number, k: number): number[];
        zoom(factor: number): void;
        reset(): void;
        close(): void;
    };
    // map_panel.js
    mapPanel(options: {
        address: (id: number) => string;
        moved?: (view: string) => void;
        chosen?: (classes: number[]) => void;
    }): {
        element: HTMLElement;
        show(
            set: number,
            network: number,
            layer: number,
            method: string,
            photo: number | null,
            classes: number[] | null,
        ): Promise<string>;
        look(view: string | undefined): void;
        close(): void;
    };
    // overlay.js
    overlay(map: SiteMap, size: [number, number], width: number): HTMLCanvasElement;
    scaleBar(map: SiteMap): HTMLElement;
    explanation(
        source: string,
        alt: string,
        size: [number, number],
        maps: SiteMap[],
        names: string[],
        chosen: number,
        change: (map: number) => void,
    ): HTMLElement;
    topClasses(top: [number, number][], names: string[]): HTMLElement;
    // pages.js
    page(
        make: (settings: Record<string, string>) => Promise<{
            title: string;
            content: Child[];
            key?: (event: KeyboardEvent) => boolean;
        }>,
    ): PageMaker;
    crumbs(...links: [string, string][]): HTMLElement;
    /** Links to the one before and the one after, of things called `what`. */
    beside(what: string, address: (by: number) => string): HTMLElement;
    heading(text: string): HTMLHeadingElement;
    table(heads: string[], rows: Child[][], caption: string): HTMLElement;
    // app.js
    screens: Record<string, PageMaker>;
    help(): void;
}

declare var playground: Playground;
