// Everything-mode: a coarse grid of clicks, three masks each, and three filters, as `sam_nb.segment_everything`; measured
// on the low-res logits.

import { areaOf, boxOf } from "./masks.js";

const PER_SIDE = 10;
const BATCH = 4;

// Masks of what is in the encoded image: [{ point, decoded, index }], the highest-scoring first. `report` gets the share
// that is done and returns whether to stop.
export async function findEverything(model, [height, width], report) {
  const found = [];
  const points = grid(PER_SIDE, height, width);
  for (let start = 0; start < points.length; start += BATCH) {
    if (report(start / points.length)) return [];
    const batch = points.slice(start, start + BATCH);
    const decoded = await model.decodeBatch(batch.map((point) => ({ points: [[...point, 1]], box: null, maskInput: null })));
    decoded.forEach((each, i) => {
      each.scores.forEach((score, index) => {
        const measured = measure(each.logits[index], score, model);
        if (measured) found.push({ point: batch[i], decoded: each, index, score, box: measured });
      });
    });
  }
  return suppress(found.sort((a, b) => b.score - a.score), model.about.thresholds.box_nms_thresh);
}

function grid(perSide, height, width) {
  const shares = Array.from({ length: perSide }, (_, i) => (i + 0.5) / perSide);
  const at = (share, length) => Math.round(share * length * 100) / 100;
  return shares.flatMap((y) => shares.map((x) => [at(x, width), at(y, height)]));
}

// The box of a mask that passes the thresholds, or null.
function measure(logits, score, model) {
  const { low_res_side: lowRes, long_side: side, thresholds } = model.about;
  if (!(score > thresholds.pred_iou_thresh)) return null;
  const [rows, columns] = model.encoded.inputSize.map((length) => Math.round((length * lowRes) / side));
  const cut = (threshold) => {
    const mask = new Uint8Array(rows * columns);
    for (let y = 0; y < rows; y++) for (let x = 0; x < columns; x++) mask[y * columns + x] = logits[y * lowRes + x] > threshold;
    return mask;
  };
  const stability = areaOf(cut(1)) / areaOf(cut(-1));
  return stability >= thresholds.stability_score_thresh ? boxOf(cut(0), [rows, columns]) : null;
}

// Non-maximum suppression: of two masks whose boxes nearly agree, the higher-scoring one stays.
function suppress(found, threshold) {
  const kept = [];
  for (const one of found) if (kept.every((other) => boxIoU(one.box, other.box) <= threshold)) kept.push(one);
  return kept;
}

function boxIoU([x, y, w, h], [u, v, s, t]) {
  const across = Math.max(Math.min(x + w, u + s) - Math.max(x, u), 0);
  const down = Math.max(Math.min(y + h, v + t) - Math.max(y, v), 0);
  return (across * down) / (w * h + s * t - across * down);
}
