// An image resized exactly as Pillow's Image.resize(..., BILINEAR) does it: a triangle filter whose support grows with
// the reduction, in two passes of integers. The model's embedding then equals that of the Python package; a canvas
// would resize otherwise, and differently in each browser.

const BITS = 22; // of a weight behind the point, as in Pillow

// The pixels that each new pixel is a mean of, and their integer weights.
function weights(from, to) {
  const scale = from / to;
  const support = Math.max(scale, 1);
  const rows = [];
  for (let i = 0; i < to; i++) {
    const center = (i + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support + 0.5), 0);
    const end = Math.min(Math.trunc(center + support + 0.5), from);
    const parts = [];
    for (let j = first; j < end; j++) parts.push(Math.max(1 - Math.abs((j - center + 0.5) / support), 0));
    const total = parts.reduce((a, b) => a + b, 0);
    rows.push({ first, parts: Int32Array.from(parts, (part) => Math.trunc(0.5 + (part / total) * 2 ** BITS)) });
  }
  return rows;
}

// Each line of `source` is resized from `from` to `to` pixels of three colours.
function resizeLines(source, lines, from, to, { step, line, channels }) {
  const result = new Uint8ClampedArray(lines * to * 3);
  weights(from, to).forEach(({ first, parts }, i) => {
    for (let k = 0; k < lines; k++) {
      let red = 2 ** (BITS - 1), green = red, blue = red;
      let at = (k * line + first * step) * channels;
      for (let j = 0; j < parts.length; j++, at += step * channels) {
        red += source[at] * parts[j];
        green += source[at + 1] * parts[j];
        blue += source[at + 2] * parts[j];
      }
      const into = step === 1 ? (k * to + i) * 3 : (i * lines + k) * 3;
      result[into] = red >> BITS;
      result[into + 1] = green >> BITS;
      result[into + 2] = blue >> BITS;
    }
  });
  return result;
}

// Rows and columns of an image whose longer side is resized to `side` pixels.
export function fittedSize(height, width, side) {
  const scale = side / Math.max(height, width);
  return [Math.max(Math.trunc(height * scale + 0.5), 1), Math.max(Math.trunc(width * scale + 0.5), 1)];
}

// RGBA pixels, height x width x 4, resized to rows x columns x 3.
export function resize(pixels, [height, width], [rows, columns]) {
  const across = resizeLines(pixels, height, width, columns, { step: 1, line: width, channels: 4 });
  return resizeLines(across, columns, height, rows, { step: columns, line: 1, channels: 3 });
}
