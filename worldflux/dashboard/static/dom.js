// Making elements. Text from files only ever becomes a text node.

/** A new element with properties, children (elements or text), and nothing parsed as markup. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") element.className = value;
    else if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Replace the children of an element only when the data they show has changed. */
export function fill(element, data, render) {
  const key = JSON.stringify(data);
  if (element.shownData === key) return;
  element.shownData = key;
  element.replaceChildren(...render());
}

/** Set an element's text when it differs, so that screen readers hear changes only. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
