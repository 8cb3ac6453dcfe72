// What the hand does over the canvas: mouse, finger, pen and keyboard become clicks, boxes and a place to preview.

const MIN_BOX = 4; // pixels of the page; a shorter drag is a click that slipped

// `size()` is height and width of the image, `mode()` what a plain click means: "include", "exclude" or "box"; the
// handlers are click(x, y, label), box(x0, y0, x1, y1), drag(box or null), hover([x, y] or null), cursor([x, y] or null).
export function listen(canvas, { size, mode, handlers }) {
  let down = null;
  let cursor = null;

  // The nearest pixel of the image, to a hundredth.
  const place = ({ clientX, clientY }) => {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    const [rows, columns] = size();
    const within = (value, length) => Math.round(Math.min(Math.max(value - 0.5, 0), length - 1) * 100) / 100;
    return [within(((clientX - left) / width) * columns, columns), within(((clientY - top) / height) * rows, rows)];
  };
  const boxTo = (event) => {
    const [x, y] = place(event), [u, v] = down.place;
    return [Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)];
  };
  const isBox = (event) =>
    Math.min(Math.abs(event.clientX - down.clientX), Math.abs(event.clientY - down.clientY)) >= MIN_BOX;

  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button === 1) return;
    const isExcluding = event.button === 2 || event.shiftKey || mode() === "exclude";
    down = { id: event.pointerId, clientX: event.clientX, clientY: event.clientY, place: place(event), label: isExcluding ? 0 : 1 };
    canvas.setPointerCapture(event.pointerId);
    handlers.cursor((cursor = null));
    handlers.hover(null);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (down) handlers.drag(isBox(event) ? boxTo(event) : null);
    else if (event.pointerType === "mouse") handlers.hover(place(event));
  });
  canvas.addEventListener("pointerup", (event) => {
    if (down?.id !== event.pointerId) return;
    handlers.drag(null);
    if (isBox(event)) handlers.box(...boxTo(event));
    else if (mode() !== "box" || event.button === 2) handlers.click(...down.place, down.label);
    down = null;
  });
  const cancel = () => {
    down = null;
    handlers.drag(null);
  };
  canvas.addEventListener("pointercancel", cancel);
  canvas.addEventListener("pointerleave", () => handlers.hover(null));

  // Without a pointer: the arrows move a place, Enter clicks there.
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const [rows, columns] = size();
    if (event.key in STEPS && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      const far = Math.max(rows, columns) / (event.shiftKey ? 200 : 40);
      const [x, y] = cursor ?? [columns / 2, rows / 2];
      const [dx, dy] = STEPS[event.key];
      const within = (value, length) => Math.round(Math.min(Math.max(value, 0), length - 1) * 100) / 100;
      cursor = [within(x + dx * far, columns), within(y + dy * far, rows)];
      handlers.cursor(cursor);
      handlers.hover(cursor);
    } else if (event.key === "Enter" && cursor) {
      event.preventDefault();
      handlers.click(...cursor, event.shiftKey || mode() === "exclude" ? 0 : 1);
    } else if (event.key === "Escape") cancel();
  });
}
