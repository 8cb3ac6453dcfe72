// Images: the samples, a file of the reader's own, and what the page needs of each.

const MAX_SIDE = 4096; // pixels; phones draw nothing larger
const MIN_SCREEN = 1000, MAX_SCREEN = 1400; // pixels of the canvas: masks on screen are of this size, files of the image's

export class LoadError extends Error {}

// An image file as { canvas, size, screen, wasReduced }: RGB on white, turned upright, at most MAX_SIDE pixels.
export async function loadImage(blob, name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    throw new LoadError(name);
  }
  const longer = Math.max(bitmap.width, bitmap.height);
  const canvas = drawn(bitmap, Math.min(1, MAX_SIDE / longer));
  bitmap.close();
  const size = [canvas.height, canvas.width];
  const screenSide = Math.min(Math.max(...size, MIN_SCREEN), MAX_SCREEN);
  const screen = drawn(canvas, screenSide / Math.max(...size));
  return { canvas, size, screen, name, wasReduced: longer > MAX_SIDE };
}

function drawn(source, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(Math.round(source.width * scale), 1);
  canvas.height = Math.max(Math.round(source.height * scale), 1);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}

export function pixelsOf({ canvas }) {
  return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
}
