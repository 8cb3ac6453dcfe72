// The lists beside the image: objects, the three masks, samples, notebooks.

import { text } from "./text.js";

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Rows stay while their number does, so that a name can be written while the session changes.
export function showObjects(list, session) {
  if (list.children.length !== session.objects.length) {
    list.replaceChildren(...session.objects.map((_, index) => objectRow(index)));
  }
  list.session = session;
  session.objects.forEach(({ name, color }, index) => {
    const row = list.children[index], [swatch, field, remove] = row.children;
    row.classList.toggle("selected", index === session.selected);
    swatch.style.background = `rgb(${color})`;
    field.value = name;
    field.setAttribute("aria-label", text("rename", name));
    remove.title = text("remove", name);
  });
  list.scrollTop = list.children[session.selected].offsetTop - list.clientHeight / 2;
}

function objectRow(index) {
  const field = element("input", { maxLength: 60 });
  const remove = element("button", { type: "button", textContent: "✕" });
  const row = element("li", {}, element("span", { className: "swatch" }), field, remove);
  const session = () => row.parentElement.session;
  field.addEventListener("focus", () => index !== session().selected && session().select(index));
  field.addEventListener("change", () => session().rename(index, field.value));
  remove.addEventListener("click", () => session().remove(index));
  return row;
}

// `thumbnail(decoded, index)` returns a canvas.
export function showChoice(section, list, decoded, thumbnail, choose) {
  section.hidden = !decoded || decoded.logits.length < 2;
  if (section.hidden) return;
  const buttons = decoded.logits.map((_, index) => {
    const score = decoded.scores[index].toFixed(2);
    const button = element("button", { type: "button", title: text("mask", index + 1, score) });
    button.append(thumbnail(decoded, index), `${index + 1} · ${score}`);
    button.setAttribute("aria-pressed", index === decoded.index);
    button.addEventListener("click", () => index !== decoded.index && choose(index));
    return button;
  });
  list.replaceChildren(...buttons);
}

export function showSamples(list, names, open) {
  const buttons = names.map((name) => {
    const image = element("img", { src: `samples/${name}_small.jpg`, alt: name });
    const button = element("button", { type: "button", title: name }, image);
    button.addEventListener("click", () => open(name));
    return button;
  });
  list.replaceChildren(...buttons);
}

export function showNotebooks(list, notebooks) {
  const rows = notebooks.map(({ file, title }) =>
    element("li", {}, element("a", { href: `notebooks/${file}`, download: file, textContent: title }))
  );
  list.replaceChildren(...rows);
}
