"use strict";
// Read values out of a picture under the pointer, or by the arrow keys. Without it the page is whole.
for (const figure of document.querySelectorAll("figure")) {
  const source = figure.querySelector("script");
  if (!source) continue;
  const { box: [left, top, width, height], x: [low, high], unit, lines } =
    JSON.parse(source.textContent);
  const picture = figure.querySelector(".picture");
  const svg = picture.querySelector("svg");
  const output = figure.querySelector("output");
  const view = svg.viewBox.baseVal;
  const cursor = document.createElementNS(svg.namespaceURI, "line");
  cursor.setAttribute("class", "cursor");
  let share = null; // where the cursor is, 0 to 1 of the axis

  const number = (value) =>
    value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e7)
      ? value.toLocaleString("en", { maximumSignificantDigits: 4 })
      : value.toExponential(2);

  const nearest = (xs, at) => {
    let first = 0;
    let last = xs.length - 1;
    while (last - first > 1) {
      const middle = (first + last) >> 1;
      if (xs[middle] < at) first = middle;
      else last = middle;
    }
    return Math.abs(xs[first] - at) <= Math.abs(xs[last] - at) ? first : last;
  };

  const show = (to) => {
    share = Math.min(1, Math.max(0, to));
    const at = low + share * (high - low);
    const place = view.x + view.width * (left + share * width);
    for (const [name, value] of Object.entries({
      x1: place, x2: place,
      y1: view.y + view.height * top, y2: view.y + view.height * (top + height),
    })) cursor.setAttribute(name, value);
    svg.append(cursor);
    const parts = [document.createElement("span")];
    parts[0].textContent = `${unit} ${number(at)}:`;
    for (const line of lines) {
      const reach = (high - low) / 50; // a line that ended before says nothing here
      if (!line.x.length || at > line.x.at(-1) + reach) continue;
      const value = line.y[nearest(line.x, at)];
      if (value === null) continue;
      const part = document.createElement("span");
      const dot = document.createElement("i");
      dot.style.background = `var(${line.colour})`;
      part.append(dot, `${line.label} ${number(value)}${line.unit}`);
      parts.push(" ", part);
    }
    output.replaceChildren(...parts);
  };

  const hide = () => {
    share = null;
    cursor.remove();
    output.replaceChildren();
  };

  picture.addEventListener("pointermove", (event) => {
    const place = svg.getBoundingClientRect();
    show(((event.clientX - place.left) / place.width - left) / width);
  });
  picture.addEventListener("pointerleave", hide);
  picture.addEventListener("blur", hide);
  picture.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    show(share === null ? (by > 0 ? 0 : 1) : share + by);
  });
}
