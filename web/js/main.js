// The page: an image, a session of clicking on it, and what the reader sees of both.

import { draw, layerOf } from "./draw.js";
import { findEverything } from "./everything.js";
import { cocoJson, cutoutPng, download, jsonBlob, maskPng } from "./files.js";
import { LoadError, loadImage, pixelsOf } from "./images.js";
import { areaOf, upscale } from "./masks.js";
import { canRun, Model } from "./model.js";
import { showChoice, showNotebooks, showObjects, showSamples } from "./panel.js";
import { listen } from "./pointer.js";
import { Session } from "./session.js";
import { number, switchLanguage, text, translate } from "./text.js";

const $ = (id) => document.getElementById(id);
const canvas = $("canvas");
const layers = new WeakMap(); // what was decoded -> its layer

let about, model, image, session;
let isReady = false; // the image is encoded
let dragged = null, cursor = null, preview = null;
let isSearching = false, mustStop = false;
let said = [() => "", false]; // the line under the image: its words, and whether it is an error

// Words ---------------------------------------------------------------------------------------------------------------

// Show a line under the image; it is written again when the language changes.
function say(words, isError = false) {
  said = [words, isError];
  $("status").textContent = words();
  $("status").classList.toggle("error", isError);
}

function sayFailed(error) {
  showProgress(null);
  say(() => (error instanceof LoadError ? text("notAnImage", error.message) : text("failed", error.message)), true);
}

function sayReady() {
  const isTouch = matchMedia("(pointer: coarse)").matches;
  const isReduced = image.wasReduced ? () => `${text("reduced", image.size[1], image.size[0])} ` : () => "";
  say(() => isReduced() + text(isTouch ? "readyTouch" : "ready"));
}

function sayDecoded({ name, steps }, decoded) {
  if (!steps.length) return sayReady();
  if (!decoded) return say(() => text("onlyBackground"));
  const area = areaOf(maskOf(decoded)), share = (100 * area) / (image.size[0] * image.size[1]);
  const key = decoded.logits.length > 1 ? "aboutThree" : "about";
  const score = decoded.scores[decoded.index].toFixed(2);
  say(() => text(key, name, number(area), share.toFixed(1), score, about.model, decoded.index + 1));
}

function showProgress(share) {
  $("progress").hidden = share === null;
  if (share !== null) $("progress").value = share;
}

// Images --------------------------------------------------------------------------------------------------------------

async function open(blob, name) {
  const opened = await loadImage(blob, name);
  image = opened;
  isReady = false;
  mustStop = true;
  preview = cursor = null;
  session = new Session((prompt) => model.decode(prompt), image.size, about.model);
  session.addEventListener("change", refresh);
  showImage();
  refresh();
  await encode(opened);
}

function showImage() {
  const { screen } = image;
  for (const each of [$("image"), canvas]) [each.width, each.height] = [screen.width, screen.height];
  $("image").getContext("2d").drawImage(screen, 0, 0);
  $("frame").style.setProperty("--ratio", `${screen.width} / ${screen.height}`);
  $("frame").style.setProperty("--ratio-number", screen.width / screen.height);
  for (const button of $("samples").children) button.setAttribute("aria-pressed", button.title === image.name);
}

async function encode(opened) {
  if (!model?.isLoaded) return;
  say(() => text("encoding", about.model));
  const pixels = pixelsOf(opened).buffer;
  await model.encode(pixels, opened.size);
  if (image !== opened) return;
  isReady = true;
  document.body.dataset.encoded = opened.name;
  refresh();
}

async function openSample(name) {
  const response = await fetch(`samples/${name}.jpg`);
  await open(await response.blob(), name);
}

// Masks ---------------------------------------------------------------------------------------------------------------

function maskOf(decoded, size = image.size) {
  const geometry = { lowRes: about.low_res_side, side: about.long_side, inputSize: model.encoded.inputSize };
  return upscale(decoded.logits[decoded.index], geometry, size);
}

const screenSize = () => [image.screen.height, image.screen.width];

function layer(decoded, color) {
  if (!layers.has(decoded)) {
    const mask = maskOf(decoded, screenSize());
    layers.set(decoded, Object.assign(layerOf(mask, screenSize(), color), { area: areaOf(mask) }));
  }
  return layers.get(decoded);
}

let shown = []; // [object, decoded] of all objects
let generation = 0;

async function refresh() {
  const mine = ++generation;
  preview = null;
  showButtons();
  showObjects($("objects"), session);
  paint();
  if (!isReady) return;
  if (session.current.steps.length) say(() => text("decoding"));
  try {
    const { objects, current } = session;
    const decoded = await Promise.all(objects.map((object) => session.decoded(object)));
    if (mine !== generation) return;
    shown = objects.map((object, i) => [object, decoded[i]]);
    sayDecoded(current, decoded[session.selected]);
    showChoice($("choice"), $("masks"), decoded[session.selected], thumbnail, (index) => session.choose(index));
    showButtons();
    paint();
    document.body.dataset.shown = generation; // all steps so far are on the canvas
  } catch (error) {
    sayFailed(error);
  }
}

function paint() {
  const order = shown.filter(([object, decoded]) => decoded && session.objects.includes(object));
  // Small ones on larger ones, the current one on top.
  const size = ([object, decoded]) => (object === session.current ? -1 : layer(decoded, object.color).area);
  order.sort((a, b) => size(b) - size(a));
  draw(canvas, {
    layers: order.map(([object, decoded]) => layer(decoded, object.color)),
    preview,
    steps: session.current.steps,
    dragged,
    cursor,
    scale: image.screen.width / image.size[1],
  });
}

// A small image of one of the three masks.
function thumbnail(decoded, index) {
  const scale = 160 / Math.max(...screenSize());
  const size = screenSize().map((length) => Math.max(Math.round(length * scale), 1));
  const small = layerOf(maskOf({ ...decoded, index }, size), size, session.current.color, 0.75);
  const made = document.createElement("canvas");
  [made.height, made.width] = size;
  const context = made.getContext("2d");
  context.globalAlpha = 0.45;
  context.drawImage(image.screen, 0, 0, size[1], size[0]);
  context.globalAlpha = 1;
  context.drawImage(small, 0, 0);
  return made;
}

// The mask that a click would give, under the mouse: the newest place when the one before is decoded.
let hovered = null, isPreviewing = false;

async function hover(place) {
  hovered = place;
  if (!place && preview) {
    preview = null;
    paint();
  }
  if (isPreviewing || !place || !isReady || isSearching || session.current.steps.length || mode() === "box") return;
  isPreviewing = true;
  const mine = generation, [x, y] = place;
  try {
    const decoded = await model.decode({ points: [[x, y, 1]], box: null, maskInput: null });
    if (mine === generation && hovered) {
      const mask = maskOf({ ...decoded, index: decoded.best }, screenSize());
      preview = layerOf(mask, screenSize(), session.current.color, 0.3);
      paint();
    }
  } catch (error) {
    sayFailed(error);
  }
  isPreviewing = false;
  if (hovered && hovered !== place) hover(hovered);
}

// Everything ----------------------------------------------------------------------------------------------------------

async function everything() {
  if (isSearching) return void (mustStop = true);
  const opened = image, mine = session;
  [isSearching, mustStop] = [true, false];
  showButtons();
  try {
    const found = await findEverything(model, image.size, (share) => {
      showProgress(share);
      say(() => text("searching", about.model, Math.round(100 * share)));
      return mustStop;
    });
    if (image === opened && !mustStop) {
      mine.addFound(found);
      await refresh();
      say(() => (found.length ? text("found", found.length) : text("foundNothing")));
    } else if (image === opened) await refresh();
  } catch (error) {
    sayFailed(error);
  }
  isSearching = false;
  showProgress(null);
  showButtons();
}

// Files ---------------------------------------------------------------------------------------------------------------

// Call `make` with the current object's mask of the image's size, and download what it makes.
async function saveCurrent(suffix, make) {
  const decoded = await session.decoded();
  if (decoded) download(await make(maskOf(decoded)), `${stem()}_${session.current.name.replaceAll(/[^\p{L}\p{N}]+/gu, "_")}${suffix}`);
}

async function saveCoco() {
  const segments = [];
  for (const object of session.objects) {
    const decoded = await session.decoded(object);
    const mask = decoded && maskOf(decoded);
    if (mask && areaOf(mask)) segments.push({ name: object.name, mask, score: decoded.scores[decoded.index] });
  }
  download(cocoJson(segments, image.size, image.name, about.model), `${stem()}_coco.json`);
}

const stem = () => image.name.replace(/\.\w+$/, "");

// Controls ------------------------------------------------------------------------------------------------------------

const mode = () => document.querySelector("input[name=mode]:checked").value;

function setMode(value) {
  document.querySelector(`input[name=mode][value=${value}]`).checked = true;
  canvas.classList.toggle("dragging", value === "box");
  hover(null);
}

function showButtons() {
  const hasMask = shown.some(([object, decoded]) => decoded && object === session.current);
  $("undo").disabled = !session.canUndo;
  $("redo").disabled = !session.canRedo;
  $("new").disabled = !session.current.steps.length;
  $("everything").disabled = !isReady;
  $("everything").textContent = text(isSearching ? "stop" : "everything");
  $("everything").classList.toggle("running", isSearching);
  for (const id of ["save-mask", "save-cutout"]) $(id).disabled = !hasMask;
  for (const id of ["save-coco", "save-prompts"]) $(id).disabled = !shown.some(([, decoded]) => decoded);
}

const ACTIONS = {
  undo: () => session.undo(),
  redo: () => session.redo(),
  new: () => session.newObject(),
  everything,
  "save-mask": () => saveCurrent(".png", (mask) => maskPng(mask, image.size)),
  "save-cutout": () => saveCurrent("_cutout.png", (mask) => cutoutPng(pixelsOf(image), mask, image.size)),
  "save-coco": saveCoco,
  "save-prompts": () => download(jsonBlob(session), `${stem()}_prompts.json`),
};

const KEYS = { z: "undo", y: "redo", n: "new", e: "everything" };
const MODES = { i: "include", x: "exclude", b: "box" };

async function onKey(event) {
  if (event.target.matches("input:not([type=radio])") || event.altKey) return;
  const key = event.key.toLowerCase(), isCommand = event.ctrlKey || event.metaKey;
  if (isCommand && !["z", "y"].includes(key)) return;
  const id = key === "z" && event.shiftKey ? "redo" : KEYS[key];
  if (id && !$(id).disabled) ACTIONS[id]();
  else if (MODES[key]) setMode(MODES[key]);
  else if ("123".includes(key) && key) chooseMask(Number(key) - 1);
  else if (key === "delete" || key === "backspace") session.remove();
  else return;
  event.preventDefault();
}

async function chooseMask(index) {
  const decoded = isReady ? await session.decoded() : null;
  if (decoded && index < decoded.logits.length && index !== decoded.index) session.choose(index);
}

function connect() {
  for (const [id, action] of Object.entries(ACTIONS)) $(id).addEventListener("click", action);
  document.addEventListener("keydown", onKey);
  $("mode").addEventListener("change", () => setMode(mode()));
  $("language").addEventListener("click", () => {
    switchLanguage();
    say(...said);
    refresh();
  });
  const take = (file) => file && open(file, file.name).catch(sayFailed);
  $("file").addEventListener("change", () => take($("file").files[0]));
  for (const type of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(type, (event) => {
      event.preventDefault();
      $("frame").classList.toggle("dropping", type === "dragover");
      if (type === "drop") take(event.dataTransfer.files[0]);
    });
  }
  const guard = (step) => (...given) => isReady && !isSearching && step(...given);
  listen(canvas, {
    size: () => image.size,
    mode,
    handlers: {
      click: guard((x, y, label) => session.addPoint(x, y, label)),
      box: guard((...box) => session.setBox(...box)),
      drag: (box) => {
        dragged = box;
        paint();
      },
      cursor: (place) => {
        cursor = place;
        paint();
      },
      hover,
    },
  });
}

async function start() {
  translate();
  about = await (await fetch("model/model.json")).json();
  showSamples($("samples"), about.samples, (name) => openSample(name).catch(sayFailed));
  showNotebooks($("notebooks"), about.notebooks);
  await openSample(about.samples[0]);
  connect();
  if (!canRun()) return say(() => text("cannotRun"), true);
  model = new Model(about);
  const total = Object.values(about.downloads).reduce((a, b) => a + b, 0) / 1e6;
  await model.load((share) => {
    showProgress(share);
    say(() => (share < 1 ? text("loading", (share * total).toFixed(1), total.toFixed(1)) : text("preparing")));
  });
  model.isLoaded = true;
  showProgress(null);
  await encode(image);
}

start().catch(sayFailed);
