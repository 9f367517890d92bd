// Data files. Each is a script that hands its value over by `playground.receive`, because a page
// that was opened from disk may load scripts and nothing else.
"use strict";
globalThis.playground = /** @type {Playground} */ ({ screens: {} });
{
    const KEPT = 160; // files; the least recently used go first

    // A site that is built again has its data in another folder, which its new page names. What
    // a page of before asks for is then missing, and never something else.
    const folder = document.querySelector('meta[name="data"]')?.getAttribute("content") ?? "data";
    playground.folder = folder;
    playground.file = (address) => `${folder}/${address}`;

    /** @type {Map<string, unknown>} */
    const values = new Map();
    /** @type {Map<string, Promise<any>>} */
    const coming = new Map();
    /** @type {Map<string, unknown>} */
    const received = new Map();

    /** @param {string} address */
    function request(address) {
        return new Promise((resolve, reject) => {
            const script = document.createElement("script");
            const file = playground.file(`${address}.js`);
            script.src = file;
            script.addEventListener("load", () => {
                script.remove();
                if (!received.has(address)) {
                    reject(new Error(`The file ${file} is damaged.`));
                    return;
                }
                const value = received.get(address);
                received.delete(address);
                values.set(address, value);
                while (values.size > KEPT)
                    values.delete(/** @type {string} */ (values.keys().next().value));
                resolve(value);
            });
            script.addEventListener("error", () => {
                script.remove();
                reject(new Error(`The file ${file} is missing.`));
            });
            document.head.append(script);
        });
    }

    playground.receive = (address, value) => {
        if (coming.has(address)) received.set(address, value);
    };

    playground.load = (address) => {
        if (values.has(address)) {
            const value = values.get(address);
            values.delete(address); // to the end of the queue
            values.set(address, value);
            return Promise.resolve(/** @type {any} */ (value));
        }
        let promise = coming.get(address);
        if (!promise) {
            promise = request(address).finally(() => coming.delete(address));
            coming.set(address, promise);
        }
        return promise;
    };

    playground.peek = (address) => /** @type {any} */ (values.get(address));

    /** @type {WeakMap<PackedArray, Numbers>} */
    const unpacked = new WeakMap();

    playground.unpack = (packed) => {
        const known = unpacked.get(packed);
        if (known) return known;
        const text = atob(packed.data);
        const bytes = new Uint8Array(text.length);
        for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
        const kinds = {
            uint8: Uint8Array,
            uint16: Uint16Array,
            uint32: Uint32Array,
            float32: Float32Array,
        };
        const kind = kinds[packed.type];
        const wanted = packed.shape.reduce((product, length) => product * length, 1);
        if (bytes.length !== wanted * kind.BYTES_PER_ELEMENT) {
            throw new Error(
                "A data file holds another number of values than it says: it is damaged.",
            );
        }
        const numbers = new kind(bytes.buffer);
        unpacked.set(packed, numbers);
        return numbers;
    };
}
