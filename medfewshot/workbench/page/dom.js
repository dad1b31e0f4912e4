// Small helpers around the document. Text from files is only ever set as text, never as markup.
export const $ = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const { data = {}, aria = {}, ...rest } = properties, element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(name === "role" ? "role" : `aria-${name}`, value);
  element.append(...children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";
export function draw(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

let timer = 0;
// A sentence for the user. Errors stay until they are closed or another sentence comes.
export function say(text, { stay = false } = {}) {
  const box = $("alert");
  box.hidden = !text;
  box.firstElementChild.textContent = text;
  box.classList.toggle("calm", !stay);
  clearTimeout(timer);
  if (!stay) timer = setTimeout(() => { box.hidden = true; }, 6000);
}

// Take back a sentence that is no longer true.
export const unsay = (text) => text && $("alert").firstElementChild.textContent === text && say("");

export const fail = (error) => say(error.message, { stay: true });
export const press = (button, on) => button.setAttribute("aria-pressed", String(on));

export function askDialog(dialog) {
  return new Promise((answer) => {
    dialog.returnValue = "";
    dialog.addEventListener("close", () => answer(dialog.returnValue), { once: true });
    dialog.showModal();
    dialog.scrollTop = 0; // the focus went to the button at the end
  });
}
