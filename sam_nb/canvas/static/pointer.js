// Listens on the <canvas> that ipycanvas draws on and reports pointer and keys, in canvas pixels.
//
// ipycanvas itself reports neither the button nor the Shift key, loses the release outside the canvas, swallows every
// key and the wheel, and sends every movement of the mouse. So its own listeners are kept from hearing these events,
// and it goes on as what it is good at: the drawing surface.

const KEYS = {
  z: "undo", y: "redo", n: "new", m: "next", Delete: "delete", Backspace: "delete", Escape: "cancel",
  "+": "zoom_in", "=": "zoom_in", "-": "zoom_out", 0: "fit",
};
const FAST = 1; // pixels a millisecond: a mouse on its way
const SWALLOWED = ["mousedown", "mousemove", "mouseup", "mouseout", "touchstart", "touchmove", "touchend", "touchcancel"];

function keyName(event) {
  const command = event.ctrlKey || event.metaKey;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.altKey || (command && key !== "z" && key !== "y")) return undefined;
  return command && key === "z" && event.shiftKey ? "redo" : KEYS[key];
}

function attach(model, canvas) {
  if (canvas.dataset.samNb) return;
  canvas.dataset.samNb = "listening";
  const stage = canvas.parentElement ?? canvas;
  const abort = new AbortController();
  const on = (target, type, listener) =>
    target.addEventListener(type, listener, { capture: true, passive: false, signal: abort.signal });

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) * canvas.width) / box.width,
      y: ((event.clientY - box.top) * canvas.height) / box.height,
    };
  };
  const queue = [];
  const send = () => model.send({ events: queue.splice(0) });
  const remember = (type, event, more = {}) => queue.push({ type, ...place(event), ...more });
  const report = (...what) => {
    remember(...what);
    send();
  };

  // Movements are thinned out; the last one always arrives.
  let waiting = null;
  let timer = null;
  const flush = () => {
    timer = null;
    if (waiting) report(...waiting);
    waiting = null;
  };
  const soon = (type, event) => {
    waiting = [type, event];
    timer ??= setTimeout(flush, model.get("interval"));
  };
  const forget = () => {
    clearTimeout(timer);
    waiting = timer = null;
  };

  let held = null; // the pointer that is down
  let moved = 0; // when the mouse last moved
  on(canvas, "pointerdown", (event) => {
    if (held !== null) return;
    held = event.pointerId;
    canvas.setPointerCapture(held); // the release is heard wherever it happens
    stage.focus({ preventScroll: true });
    if (event.pointerType === "mouse") event.preventDefault();
    forget();
    // Sent together with what follows, at the latest the release: every message costs a click some milliseconds.
    remember("down", event, { button: event.button, shift: event.shiftKey, pointer: event.pointerType });
  });
  on(canvas, "pointermove", (event) => {
    if (event.pointerId === held) soon("move", event);
    else if (held === null && event.pointerType !== "touch" && model.get("hover")) {
      // Where the mouse only passes by, nobody looks; a mask for that place would delay the one for where it stops.
      const speed = Math.hypot(event.movementX, event.movementY) / (event.timeStamp - moved);
      moved = event.timeStamp;
      if (speed > FAST) forget();
      soon("hover", event);
    }
  });
  on(canvas, "pointerup", (event) => {
    if (event.pointerId !== held) return;
    held = null;
    forget();
    report("up", event);
  });
  on(canvas, "pointercancel", (event) => {
    if (event.pointerId !== held) return; // the browser took over, to scroll
    held = null;
    forget();
    report("cancel", event);
  });
  on(canvas, "pointerleave", (event) => {
    if (held !== null || !model.get("hover")) return;
    forget();
    report("leave", event);
  });
  on(canvas, "contextmenu", (event) => {
    event.preventDefault();
    event.stopImmediatePropagation();
  });
  on(canvas, "wheel", (event) => {
    event.stopImmediatePropagation(); // the notebook scrolls
    if (!event.ctrlKey) return;
    event.preventDefault();
    report("wheel", event, { turn: Math.sign(event.deltaY) });
  });
  for (const type of SWALLOWED) on(canvas, type, (event) => event.stopImmediatePropagation());

  // The box around the canvas takes the focus, not the canvas: ipycanvas swallows every key there, Tab included.
  canvas.tabIndex = -1;
  stage.tabIndex = 0;
  stage.style.outlineOffset = "-2px";
  stage.setAttribute("role", "application");
  stage.setAttribute("aria-label", model.get("label"));
  stage.addEventListener(
    "keydown",
    (event) => {
      const name = keyName(event);
      if (!name || event.target !== stage) return;
      event.preventDefault();
      event.stopPropagation(); // or the notebook would undo, delete or insert cells
      if (name === "cancel") stage.blur();
      if (event.repeat && name !== "undo" && name !== "redo") return;
      queue.push({ type: "key", name });
      send();
    },
    { signal: abort.signal },
  );

  const touch = () => {
    canvas.style.touchAction = model.get("touch_draws") ? "none" : "pan-x pan-y";
  };
  model.on("change:touch_draws", touch);
  touch();
  return () => {
    forget();
    abort.abort();
    model.off("change:touch_draws", touch);
    delete canvas.dataset.samNb;
  };
}

// After the kernel is gone, what is left on the screen still looks alive: say that it is not.
function showLoss(target, canvas) {
  const stage = canvas.parentElement;
  if (!stage || stage.querySelector(".sam-nb-lost")) return;
  const note = document.createElement("div");
  note.className = "sam-nb-lost";
  note.textContent = "The kernel was restarted: run this cell again.";
  note.style.cssText =
    "position:absolute;left:0;right:0;top:0;padding:8px 12px;background:#7c2d12;color:#fff;font-weight:600";
  stage.style.position = "relative";
  stage.append(note);
}

// ipycanvas draws for all canvases of a page in one queue, which a command that fails stops for good: a canvas that is
// closed while its last drawing waits there would take all others along.
function keepDrawing(manager) {
  if (!manager?.onCommand || manager.samNb) return;
  manager.samNb = "keeps drawing";
  const { onCommand, switchCanvas } = manager;
  manager.onCommand = (...command) =>
    onCommand.call(manager, ...command).catch((error) => console.debug("sam_nb: not drawn,", error));
  manager.switchCanvas = async (name) => {
    // JupyterLab would wait two seconds for it. One that is yet to come is drawn when it is there.
    if (!manager.widget_manager.has_model(modelId(name))) throw new Error(`${name} is closed`);
    await switchCanvas.call(manager, name);
  };
  manager.currentProcessing = Promise.resolve(manager.currentProcessing).catch(() => {});
}

function modelId(name) {
  return name.slice("IPY_MODEL_".length);
}

export default {
  async initialize({ model }) {
    const target = await model.widget_manager.get_model(modelId(model.get("target"))).catch(() => null);
    if (!target) return; // closed before the page came to it
    keepDrawing(target.get("_canvases")?.[0]?.get("_canvas_manager"));
    const cleanups = [];
    const canvases = async () =>
      (await Promise.all(Object.values(target.views ?? {}))).map((view) => view.el).filter((el) => el?.getContext);
    const scan = async () => {
      for (const canvas of await canvases()) {
        // The view is created before it is put on the page.
        if (!canvas.parentElement) requestAnimationFrame(scan);
        else cleanups.push(attach(model, canvas));
      }
    };
    const lost = async () => {
      if (target.comm_live === false) for (const canvas of await canvases()) showLoss(target, canvas);
    };
    // A model that counts its views reports a new one.
    if (typeof target.get("_view_count") !== "number") target.set("_view_count", 0);
    target.on("change:_view_count", scan);
    target.on("comm_live_update", lost);
    await scan();
    return () => {
      target.off("change:_view_count", scan);
      target.off("comm_live_update", lost);
      for (const cleanup of cleanups) cleanup?.();
    };
  },
};
