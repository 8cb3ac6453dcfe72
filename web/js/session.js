// Objects and their steps, with undo and redo: sam_nb's Session in JavaScript. Masks follow from the steps, so undo
// leaves no stale mask behind, and the steps as JSON give the same masks in a notebook (`Session.load_json`).

import { PALETTE } from "./palette.js";

const FORMAT = 1;

export class Session extends EventTarget {
  #decode;
  #kept = new Map(); // what was decoded, by the steps that led to it
  #done = [];
  #undone = [];
  #state;

  // `decode` takes { points, box, maskInput } and promises { logits, scores, best }; `size` is height and width.
  constructor(decode, size, model) {
    super();
    this.#decode = decode;
    this.size = size;
    this.model = model;
    this.#state = { objects: [fresh([])], selected: 0 };
  }

  get objects() {
    return this.#state.objects;
  }

  get selected() {
    return this.#state.selected;
  }

  get current() {
    return this.objects[this.selected];
  }

  get canUndo() {
    return this.#done.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  // What the model decodes from an object's steps: { logits, scores, index }, or null where they make no prompt.
  decoded(object = this.current) {
    return this.#decoded(object.steps);
  }

  addPoint(x, y, label) {
    this.#add({ point: [x, y], label });
  }

  setBox(x0, y0, x1, y1) {
    this.#add({ box: [x0, y0, x1, y1] });
  }

  choose(index) {
    this.#add({ choose: index });
  }

  newObject() {
    if (!this.current.steps.length) return;
    const objects = [...this.objects, fresh(this.objects)];
    this.#change({ objects, selected: objects.length - 1 });
  }

  // Add objects that were decoded already: a click each, and which of its three masks. One step to undo.
  addFound(found) {
    let objects = this.objects.filter(({ steps }) => steps.length);
    for (const { point, decoded, index } of found) {
      const steps = [{ point, label: 1 }];
      this.#keep(steps, Promise.resolve({ ...decoded, index: decoded.best }));
      if (index !== decoded.best) steps.push({ choose: index });
      objects = [...objects, { ...fresh(objects), steps }];
    }
    if (found.length) this.#change({ objects, selected: objects.length - 1 });
  }

  // Undo does not take this back.
  select(index) {
    this.#state = { ...this.#state, selected: index };
    this.#notify();
  }

  rename(index, name) {
    const others = this.objects.filter((_, i) => i !== index).map((object) => object.name);
    if (name.trim() && !others.includes(name.trim())) this.#replace(index, { ...this.objects[index], name: name.trim() });
    else this.#notify(); // the field shows the old name again
  }

  remove(index = this.selected) {
    const left = this.objects.filter((_, i) => i !== index);
    const objects = left.length ? left : [fresh([])];
    const selected = Math.min(this.selected - (index < this.selected ? 1 : 0), objects.length - 1);
    this.#change({ objects, selected });
  }

  undo() {
    this.#travel(this.#done, this.#undone);
  }

  redo() {
    this.#travel(this.#undone, this.#done);
  }

  toJSON() {
    const [height, width] = this.size;
    const objects = this.objects.map(({ name, color, steps }) => ({ name, category: "object", color, steps }));
    return { sam_nb_session: FORMAT, model: this.model, image: { width, height }, selected: this.selected, objects };
  }

  #add(step) {
    this.#replace(this.selected, { ...this.current, steps: [...this.current.steps, step] });
  }

  #replace(index, object) {
    this.#change({ ...this.#state, objects: this.objects.map((other, i) => (i === index ? object : other)) });
  }

  #change(state) {
    this.#done.push(this.#state);
    this.#undone = [];
    this.#state = state;
    this.#notify();
  }

  #travel(origin, target) {
    if (!origin.length) return;
    target.push(this.#state);
    this.#state = origin.pop();
    this.#notify();
  }

  #notify() {
    this.dispatchEvent(new Event("change"));
  }

  #decoded(steps) {
    if (!steps.length) return Promise.resolve(null);
    return this.#kept.get(JSON.stringify(steps)) ?? this.#keep(steps, this.#fromSteps(steps));
  }

  #keep(steps, promise) {
    const key = JSON.stringify(steps);
    this.#kept.set(key, promise);
    promise.catch(() => this.#kept.delete(key)); // tried again next time
    return promise;
  }

  // A further click is decoded together with all earlier ones and with the logits of the mask in use; a box starts over.
  async #fromSteps(steps) {
    const last = steps.at(-1), before = steps.slice(0, -1);
    if ("choose" in last) return { ...(await this.#decoded(before)), index: last.choose };
    const points = steps.filter((step) => step.point).map(({ point, label }) => [...point, label]);
    const box = steps.findLast((step) => step.box)?.box ?? null;
    if (!box && !points.some(([, , label]) => label)) return null;
    const fedBack = last.point ? await this.#decoded(before) : null;
    const decoded = await this.#decode({ points, box, maskInput: fedBack?.logits[fedBack.index] ?? null });
    return { ...decoded, index: decoded.best };
  }
}

// An object without steps, with a name of its own and the colour that is used least.
function fresh(objects) {
  const names = new Set(objects.map(({ name }) => name));
  let number = objects.length + 1;
  while (names.has(`object ${number}`)) number++;
  const uses = PALETTE.map((color) => objects.filter((object) => String(object.color) === String(color)).length);
  return { name: `object ${number}`, color: PALETTE[uses.indexOf(Math.min(...uses))], steps: [] };
}
