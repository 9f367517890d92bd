// Photos of a set: their names come in files of 1,000, their classes in one array.
"use strict";
{
    playground.NO_CLASS = 65535;

    /** @param {number} set @param {number} id */
    const address = (set, id) => `sets/${set}/photos-${Math.floor(id / 1000)}`;

    playground.photo = async (set, id) => {
        /** @type {PhotoChunk} */
        const chunk = await playground.load(address(set, id));
        const row = id - chunk.first;
        return { name: chunk.names[row], label: chunk.labels[row], size: chunk.sizes[row] };
    };

    playground.name = (set, id) => {
        /** @type {PhotoChunk | undefined} */
        const chunk = playground.peek(address(set, id));
        return chunk?.names[id - chunk.first];
    };

    playground.labels = async (set) => {
        /** @type {{ labels: PackedArray }} */
        const file = await playground.load(`sets/${set}/labels`);
        return playground.unpack(file.labels);
    };

    playground.thumb = (set, id) =>
        playground.file(`sets/${set}/thumbs/${Math.floor(id / 1000)}/${id}.jpg`);
    playground.large = (set, id) =>
        playground.file(`sets/${set}/photos/${Math.floor(id / 1000)}/${id}.jpg`);

    playground.className = (set, label) =>
        label < 0 || label === playground.NO_CLASS
            ? "no class"
            : (playground.site.sets[set].classes[label] ?? `class ${label}`);

    playground.describe = (set, id, label) => {
        const name = playground.name(set, id);
        const kind = playground.className(set, label);
        return name === undefined ? `Photo ${id}, ${kind}` : `${kind}: ${name}`;
    };
}
