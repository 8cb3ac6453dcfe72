// The model's thread: the page stays responsive while it encodes. Nothing leaves this computer: the worker fetches the
// model and its runtime from where the page lies, and gets pixels and prompts from the page.

import * as ort from "../runtime/ort.wasm.bundle.min.mjs";
import { fittedSize, resize } from "./resize.js";

let about, encoder, decoder;
let image = null; // { features, size, inputSize } of the image that was encoded last

// Threads need a page that is isolated from others by its server's headers; few static servers send them.
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;

const jobs = { load, encode, decode };

let queue = Promise.resolve(); // one job after the other: a prompt is for the image that was encoded before it

self.onmessage = ({ data }) => {
  queue = queue.then(() => work(data));
};

async function work({ id, kind, given }) {
  try {
    const { value, transfer = [] } = await jobs[kind](given, (share) => self.postMessage({ id, share }));
    self.postMessage({ id, value }, transfer);
  } catch (error) {
    self.postMessage({ id, error: String(error?.message ?? error) });
  }
}

async function load({ files }, report) {
  const total = Object.values(files).reduce((a, b) => a + b, 0);
  let loaded = 0;
  const count = (bytes) => report((loaded += bytes) / total);
  const [binary, encoderFile, decoderFile, json] = await Promise.all([
    fetchDeflated("../runtime/ort.wasm.zz", count),
    fetchDeflated("../model/encoder.onnx.zz", count),
    fetchDeflated("../model/decoder.onnx.zz", count),
    fetchFile("../model/model.json").then((response) => response.json()),
  ]);
  about = json;
  ort.env.wasm.wasmBinary = binary;
  const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
  encoder = await ort.InferenceSession.create(new Uint8Array(encoderFile), options);
  decoder = await ort.InferenceSession.create(new Uint8Array(decoderFile), options);
  return { value: { threads: ort.env.wasm.numThreads } };
}

async function fetchFile(path) {
  const url = new URL(path, import.meta.url);
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${response.status} ${url.pathname}`);
  return response;
}

async function fetchDeflated(path, count) {
  const response = await fetchFile(path);
  const counting = new TransformStream({
    transform(chunk, controller) {
      count(chunk.byteLength);
      controller.enqueue(chunk);
    },
  });
  const stream = response.body.pipeThrough(counting).pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

async function encode({ pixels, size }) {
  const inputSize = fittedSize(...size, about.long_side);
  const resized = Float32Array.from(resize(new Uint8ClampedArray(pixels), size, inputSize));
  const input = new ort.Tensor("float32", resized, [...inputSize, 3]);
  const { image_embeddings: features } = await encoder.run({ input_image: input });
  input.dispose();
  image?.features.dispose();
  image = { features, size, inputSize };
  return { value: { inputSize } };
}

// Prompts of the same shape: { points: [[x, y, label], ...], box: [x0, y0, x1, y1] or null, maskInput: logits or null }.
async function decode({ prompts }) {
  const feeds = feedsOf(prompts);
  const { low_res_masks: logits, iou_predictions: scores } = await decoder.run(feeds);
  const value = { logits: logits.data.slice(), scores: scores.data.slice() };
  for (const [name, tensor] of Object.entries(feeds)) if (name !== "image_embeddings") tensor.dispose();
  logits.dispose();
  scores.dispose();
  return { value, transfer: [value.logits.buffer] };
}

function feedsOf(prompts) {
  const [height, width] = image.size, [rows, columns] = image.inputSize;
  const points = prompts.map(({ points, box }) =>
    box ? [...points, [box[0], box[1], 2], [box[2], box[3], 3]] : [...points, [0, 0, -1]]
  );
  const count = points[0].length, lowRes = about.low_res_side;
  const coords = points.flat().flatMap(([x, y]) => [(x * columns) / width, (y * rows) / height]);
  const labels = points.flat().map(([, , label]) => label);
  const given = prompts.filter(({ maskInput }) => maskInput);
  const masks = new Float32Array(Math.max(given.length, 1) * lowRes * lowRes);
  given.forEach(({ maskInput }, index) => masks.set(maskInput, index * lowRes * lowRes));
  const tensor = (values, shape) => new ort.Tensor("float32", Float32Array.from(values), shape);
  return {
    image_embeddings: image.features,
    point_coords: tensor(coords, [prompts.length, count, 2]),
    point_labels: tensor(labels, [prompts.length, count]),
    mask_input: tensor(masks, [Math.max(given.length, 1), 1, lowRes, lowRes]),
    has_mask_input: tensor([given.length ? 1 : 0], [1]),
  };
}
