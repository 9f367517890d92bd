// Draws many points: by WebGL in one call, or by the 2D canvas where there is no WebGL. Knows
// nothing of photos; positions are in any plane, y up, and `mix` moves between two of them.
"use strict";
{
    const VERTEX = `
    attribute vec2 from;
    attribute vec2 to;
    attribute vec4 colour;
    uniform vec2 centre;
    uniform vec2 stretch;
    uniform float share;
    uniform mediump float size;
    varying vec4 paint;
    void main() {
      gl_Position = vec4((mix(from, to, share) - centre) * stretch, 0.0, 1.0);
      gl_PointSize = size;
      paint = colour;
    }`;
    const FRAGMENT = `
    precision mediump float;
    varying vec4 paint;
    uniform float size;
    void main() {
      float edge = (0.5 - distance(gl_PointCoord, vec2(0.5))) * size;
      float alpha = paint.a * clamp(edge, 0.0, 1.0);
      if (alpha <= 0.0) discard;
      gl_FragColor = vec4(paint.rgb * alpha, alpha);
    }`;

    /** @param {WebGLRenderingContext} gl */
    function program(gl) {
        const made = gl.createProgram();
        for (const [kind, source] of /** @type {[number, string][]} */ ([
            [gl.VERTEX_SHADER, VERTEX],
            [gl.FRAGMENT_SHADER, FRAGMENT],
        ])) {
            const shader = gl.createShader(kind);
            if (!shader || !made) return null;
            gl.shaderSource(shader, source);
            gl.compileShader(shader);
            gl.attachShader(made, shader);
        }
        gl.linkProgram(made);
        return gl.getProgramParameter(made, gl.LINK_STATUS) ? made : null;
    }

    /** @param {HTMLCanvasElement} canvas */
    function byWebGL(canvas) {
        const gl = canvas.getContext("webgl", { antialias: false, premultipliedAlpha: true });
        const linked = gl && program(gl);
        if (!gl || !linked) return null;
        gl.useProgram(linked);
        gl.enable(gl.BLEND);
        gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
        const buffers = ["from", "to", "colour"].map((name, i) => {
            const buffer = gl.createBuffer();
            const place = gl.getAttribLocation(linked, name);
            gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
            gl.enableVertexAttribArray(place);
            if (i < 2) gl.vertexAttribPointer(place, 2, gl.FLOAT, false, 0, 0);
            else gl.vertexAttribPointer(place, 4, gl.UNSIGNED_BYTE, true, 0, 0);
            return buffer;
        });
        const [centre, stretch, share, size] = ["centre", "stretch", "share", "size"].map((name) =>
            gl.getUniformLocation(linked, name),
        );
        let n = 0;
        return {
            kind: /** @type {"webgl"} */ ("webgl"),
            /** @param {Floats} from @param {Floats} to @param {Bytes} colours */
            set(from, to, colours) {
                [from, to, colours].forEach((values, i) => {
                    gl.bindBuffer(gl.ARRAY_BUFFER, buffers[i]);
                    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
                });
                n = from.length / 2;
            },
            /** @param {{ x: number, y: number, scale: number }} view @param {number} mix @param {number} radius */
            draw(view, mix, radius) {
                gl.viewport(0, 0, canvas.width, canvas.height);
                gl.clearColor(0, 0, 0, 0);
                gl.clear(gl.COLOR_BUFFER_BIT);
                gl.uniform2f(centre, view.x, view.y);
                gl.uniform2f(
                    stretch,
                    (2 * view.scale) / canvas.width,
                    (2 * view.scale) / canvas.height,
                );
                gl.uniform1f(share, mix);
                gl.uniform1f(size, 2 * radius + 1);
                gl.drawArrays(gl.POINTS, 0, n);
            },
            close: () => gl.getExtension("WEBGL_lose_context")?.loseContext(),
        };
    }

    /** @param {HTMLCanvasElement} canvas */
    function byCanvas(canvas) {
        const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
        let from = new Float32Array();
        let to = from;
        let colours = new Uint8Array();
        return {
            kind: /** @type {"canvas"} */ ("canvas"),
            /** @param {Floats} newFrom @param {Floats} newTo @param {Bytes} newColours */
            set(newFrom, newTo, newColours) {
                [from, to, colours] = [newFrom, newTo, newColours];
            },
            /** @param {{ x: number, y: number, scale: number }} view @param {number} mix @param {number} radius */
            draw(view, mix, radius) {
                const { width, height } = canvas;
                pen.clearRect(0, 0, width, height);
                const many = from.length > 40000;
                for (let i = 0, c = 0; i < from.length; i += 2, c += 4) {
                    const x = (from[i] + (to[i] - from[i]) * mix - view.x) * view.scale + width / 2;
                    const y =
                        height / 2 -
                        (from[i + 1] + (to[i + 1] - from[i + 1]) * mix - view.y) * view.scale;
                    if (x < -radius || y < -radius || x > width + radius || y > height + radius)
                        continue;
                    pen.fillStyle = `rgba(${colours[c]},${colours[c + 1]},${colours[c + 2]},${colours[c + 3] / 255})`;
                    if (many) pen.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
                    else {
                        pen.beginPath();
                        pen.arc(x, y, radius, 0, 2 * Math.PI);
                        pen.fill();
                    }
                }
            },
            close() {},
        };
    }

    // A canvas has one kind of context for life, so WebGL is tried on another one first.
    function works() {
        const gl = document.createElement("canvas").getContext("webgl");
        const linked = gl && program(gl);
        gl?.getExtension("WEBGL_lose_context")?.loseContext();
        return Boolean(linked);
    }

    playground.pointRenderer = (canvas) => (works() && byWebGL(canvas)) || byCanvas(canvas);
}
