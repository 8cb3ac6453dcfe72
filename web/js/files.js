// Files that the reader takes home: a mask, a cut-out, COCO JSON, and the prompts, which a notebook can load.

import { areaOf, boxOf, runLengths } from "./masks.js";

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function png(data, [height, width]) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

// White inside, black outside.
export function maskPng(mask, size) {
  const data = new Uint8ClampedArray(4 * mask.length);
  mask.forEach((inside, i) => data.set(inside ? [255, 255, 255, 255] : [0, 0, 0, 255], 4 * i));
  return png(data, size);
}

// The object in its own colours, transparent around it.
export function cutoutPng(pixels, mask, size) {
  const data = new Uint8ClampedArray(4 * mask.length);
  mask.forEach((inside, i) => inside && data.set(pixels.subarray(4 * i, 4 * i + 4), 4 * i));
  return png(data, size);
}

// `segments`: [{ name, mask, score }].
export function cocoJson(segments, [height, width], fileName, model) {
  const annotations = segments.map(({ name, mask, score }, i) => ({
    id: i + 1,
    image_id: 1,
    category_id: 1,
    segmentation: { size: [height, width], counts: runLengths(mask, [height, width]) },
    area: areaOf(mask),
    bbox: boxOf(mask, [height, width]),
    iscrowd: 0,
    name,
    score,
  }));
  return jsonBlob({
    info: { description: `masks by ${model}` },
    images: [{ id: 1, file_name: fileName, height, width }],
    categories: [{ id: 1, name: "object" }],
    annotations,
  });
}

export function jsonBlob(value) {
  return new Blob([JSON.stringify(value)], { type: "application/json" });
}
