// The model as the page uses it: promises in place of the worker's messages.

// A module with one SIMD instruction: browsers without SIMD refuse it.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];

export function canRun() {
  return typeof WebAssembly === "object" && WebAssembly.validate(new Uint8Array(SIMD)) && "DecompressionStream" in self;
}

export class Model {
  #worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  #waiting = new Map();
  #count = 0;

  constructor(about) {
    this.about = about;
    this.#worker.onmessage = ({ data }) => this.#on(data);
    this.#worker.onerror = (event) => this.#fail(new Error(event.message || "the model's thread did not start"));
  }

  load(onShare) {
    return this.#ask("load", { files: this.about.downloads }, { onShare });
  }

  // Encode RGBA pixels of `size` (height, width); the prompts that follow are for this image.
  async encode(pixels, size) {
    this.encoded = await this.#ask("encode", { pixels, size }, { transfer: [pixels] });
    return this.encoded;
  }

  // Three masks for a lone click, which can mean the whole, a part or a subpart; one for every other prompt.
  async decode(prompt) {
    return (await this.decodeBatch([prompt]))[0];
  }

  // Prompts of the same shape.
  async decodeBatch(prompts) {
    const { logits, scores } = await this.#ask("decode", { prompts });
    const pixels = this.about.low_res_side ** 2;
    const { points, box, maskInput } = prompts[0];
    const [first, end] = points.length === 1 && !box && !maskInput ? [1, 4] : [0, 1];
    return prompts.map((_, p) => {
      const of = (m) => logits.slice((4 * p + m) * pixels, (4 * p + m + 1) * pixels);
      const indices = Array.from({ length: end - first }, (_, i) => first + i);
      const own = indices.map((m) => scores[4 * p + m]);
      return { logits: indices.map(of), scores: own, best: own.indexOf(Math.max(...own)) };
    });
  }

  #ask(kind, given, { transfer = [], onShare } = {}) {
    const id = ++this.#count;
    const start = performance.now();
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { kind, start, resolve, reject, onShare });
      this.#worker.postMessage({ id, kind, given }, transfer);
    });
  }

  #on({ id, value, error, share }) {
    const { kind, start, resolve, reject, onShare } = this.#waiting.get(id);
    if (share !== undefined) return onShare?.(share);
    this.#waiting.delete(id);
    performance.measure(kind, { start }); // for the browser's developer tools
    return error === undefined ? resolve(value) : reject(new Error(error));
  }

  #fail(error) {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}
