// What the canvas shows over the image: masks in their colours, the preview under the mouse, the marks of the prompt.

import { isOutline } from "./masks.js";
import { BOX, NEGATIVE, POSITIVE } from "./palette.js";

const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

// A mask as a layer of `screen` pixels: filled half, outlined whole.
export function layerOf(mask, [height, width], color, fill = 0.5) {
  const layer = document.createElement("canvas");
  layer.width = width;
  layer.height = height;
  const context = layer.getContext("2d");
  const image = context.createImageData(width, height);
  const reach = Math.max(1, Math.round(Math.max(width, height) / 600));
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (!mask[at]) continue;
      image.data.set(color, 4 * at);
      image.data[4 * at + 3] = 255 * (isOutline(mask, width, height, x, y, reach) ? 1 : fill);
    }
  }
  context.putImageData(image, 0, 0);
  return layer;
}

// Draw all: layers first, then the marks of the current object and the box that is being dragged.
export function draw(canvas, { layers, preview, steps, dragged, cursor, scale }) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (const layer of layers) context.drawImage(layer, 0, 0);
  if (preview) context.drawImage(preview, 0, 0);
  const unit = canvas.width / (canvas.clientWidth || canvas.width); // canvas pixels in one pixel of the page
  const at = (value) => (value + 0.5) * scale;
  const box = dragged ?? steps.findLast((step) => step.box)?.box;
  if (box) drawBox(context, box.map(at), unit, Boolean(dragged));
  for (const { point, label } of steps) if (point) drawPoint(context, at(point[0]), at(point[1]), label, unit);
  if (cursor) drawCursor(context, at(cursor[0]), at(cursor[1]), unit);
}

function stroke(context, color, width, unit) {
  for (const [style, wide] of [["white", width + 2.5], [color, width]]) {
    context.strokeStyle = style;
    context.lineWidth = wide * unit;
    context.stroke();
  }
}

function drawBox(context, [x0, y0, x1, y1], unit, isDragged) {
  context.setLineDash(isDragged ? [6 * unit, 4 * unit] : []);
  context.beginPath();
  context.rect(x0, y0, x1 - x0, y1 - y0);
  stroke(context, css(BOX), 2, unit);
  context.setLineDash([]);
}

// A click on the object is a plus, one off it a cross: they differ in shape as well as in colour.
function drawPoint(context, x, y, label, unit) {
  const arm = (label ? 9 : 7) * unit;
  const ends = label ? [[-arm, 0, arm, 0], [0, -arm, 0, arm]] : [[-arm, -arm, arm, arm], [-arm, arm, arm, -arm]];
  context.lineCap = "round";
  context.beginPath();
  for (const [a, b, c, d] of ends) {
    context.moveTo(x + a, y + b);
    context.lineTo(x + c, y + d);
  }
  stroke(context, css(label ? POSITIVE : NEGATIVE), 3.5, unit);
}

function drawCursor(context, x, y, unit) {
  context.beginPath();
  context.arc(x, y, 11 * unit, 0, 2 * Math.PI);
  stroke(context, "black", 1.5, unit);
}
