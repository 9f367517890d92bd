// The photos nearest to a photo, found beforehand, and how alike they are in per cent.
"use strict";
{
    playground.neighbors = async ({ set, network, layer, metric, photo }) => {
        const at = `sets/${set}/networks/${network}/layers/${layer}`;
        /** @type {NeighborFile} */
        const file = await playground.load(`${at}/neighbors-${metric}-${Math.floor(photo / 100)}`);
        const ids = playground.unpack(file.ids);
        const distances = playground.unpack(file.distances);
        const k = file.ids.shape[1];
        const first = (photo - file.first) * k;
        const unit = metric === "cosine" || metric === "correlation" ? 1 : file.typical;
        return Array.from({ length: k }, (_, i) => {
            const distance = distances[first + i];
            const similarity =
                unit > 0 ? 100 * Math.max(0, 1 - distance / unit) : distance > 0 ? 0 : 100;
            return { id: ids[first + i], similarity, distance };
        });
    };
}
