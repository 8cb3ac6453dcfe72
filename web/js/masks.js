// Masks: from low-res logits to pixels, and what is counted in them.

// Bilinear interpolation of one axis, corners not aligned, as PyTorch's `interpolate`: two neighbours and a share.
function neighbours(from, to) {
  const low = new Int32Array(to), high = new Int32Array(to), share = new Float32Array(to);
  for (let i = 0; i < to; i++) {
    const at = Math.max(((i + 0.5) * from) / to - 0.5, 0);
    low[i] = Math.floor(at);
    high[i] = Math.min(low[i] + 1, from - 1);
    share[i] = at - low[i];
  }
  return { low, high, share };
}

function interpolate(source, stride, [height, width], [rows, columns], crop = [rows, columns]) {
  const x = neighbours(width, columns), y = neighbours(height, rows);
  const result = new Float32Array(crop[0] * crop[1]);
  const blended = new Float32Array(width);
  for (let r = 0; r < crop[0]; r++) {
    const top = y.low[r] * stride, bottom = y.high[r] * stride, share = y.share[r];
    for (let c = 0; c < width; c++) blended[c] = source[top + c] * (1 - share) + source[bottom + c] * share;
    for (let c = 0; c < crop[1]; c++) {
      result[r * crop[1] + c] = blended[x.low[c]] * (1 - x.share[c]) + blended[x.high[c]] * x.share[c];
    }
  }
  return result;
}

// Low-res logits of the padded square as a mask of `size` (height, width): 1 where the object is. Two steps, as in
// `segment_anything`: to the square of the encoder, of which the image takes `inputSize`, then to the image.
export function upscale(logits, { lowRes, side, inputSize }, size) {
  const fitted = interpolate(logits, lowRes, [lowRes, lowRes], [side, side], inputSize);
  const full = interpolate(fitted, inputSize[1], inputSize, size);
  return Uint8Array.from(full, (logit) => (logit > 0 ? 1 : 0));
}

export function areaOf(mask) {
  let area = 0;
  for (const pixel of mask) area += pixel;
  return area;
}

// The tightest box [x, y, width, height] around a mask, or null.
export function boxOf(mask, [height, width]) {
  let x0 = width, y0 = height, x1 = -1, y1 = -1;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!mask[y * width + x]) continue;
      if (x < x0) x0 = x;
      if (x > x1) x1 = x;
      if (y < y0) y0 = y;
      y1 = y;
    }
  }
  return x1 < 0 ? null : [x0, y0, x1 - x0 + 1, y1 - y0 + 1];
}

// COCO's run-length encoding: lengths of runs, column by column, background first.
export function runLengths(mask, [height, width]) {
  const counts = [];
  let value = 0, run = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      if (mask[y * width + x] !== value) {
        counts.push(run);
        value = 1 - value;
        run = 0;
      }
      run++;
    }
  }
  counts.push(run);
  return counts;
}

// Whether a pixel of the mask lies on its outline, `reach` pixels wide.
export function isOutline(mask, width, height, x, y, reach) {
  const left = x - reach, right = x + reach, top = y - reach, bottom = y + reach;
  const row = y * width;
  return !(
    (left < 0 || mask[row + left]) && (right >= width || mask[row + right]) &&
    (top < 0 || mask[top * width + x]) && (bottom >= height || mask[bottom * width + x])
  );
}
