/**
 * Runs within a page: what cannot be read or reached there. Contrast as WCAG AA wants it, names for whatever can be
 * pressed or filled in, no page that is wider than its window, no id twice.
 */
export function faults() {
  const found = new Set();
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const draw = canvas.getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const rgba = (color) => {
    let value = known.get(color);
    if (value === undefined) {
      draw.clearRect(0, 0, 1, 1);
      draw.fillStyle = "#000";
      draw.fillStyle = color;
      draw.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = draw.getImageData(0, 0, 1, 1).data;
      value = [r, g, b, a / 255];
      known.set(color, value);
    }
    return value;
  };
  const over = (top, below) => {
    const a = top[3] + below[3] * (1 - top[3]);
    if (a === 0) return [0, 0, 0, 0];
    const mix = (i) => (top[i] * top[3] + below[i] * below[3] * (1 - top[3])) / a;
    return [mix(0), mix(1), mix(2), a];
  };
  const luminance = (color) => {
    const [r, g, b] = color.slice(0, 3).map((part) => {
      const c = part / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (element) => {
    let color = [0, 0, 0, 0];
    for (let at = element; at !== null && color[3] < 0.999; at = at.parentElement) {
      color = over(color, rgba(getComputedStyle(at).backgroundColor));
    }
    const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark") && matchMedia("(prefers-color-scheme: dark)").matches;
    return over(color, dark ? [18, 18, 18, 1] : [255, 255, 255, 1]);
  };
  const opacity = (element) => {
    let value = 1;
    for (let at = element; at !== null; at = at.parentElement) value *= Number(getComputedStyle(at).opacity);
    return value;
  };
  const name = (element) => {
    const names = typeof element.className === "string" && element.className !== "" ? `.${element.className.trim().split(/\s+/).join(".")}` : "";
    return `${element.tagName.toLowerCase()}${names}`;
  };
  const seen = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true, contentVisibilityAuto: true });

  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let count = 0;
  for (let node = walker.nextNode(); node !== null && count < 4000; node = walker.nextNode()) {
    const text = node.data.trim();
    const element = node.parentElement;
    if (text === "" || element === null || !seen(element) || element.closest("svg, option, [disabled]") !== null) continue;
    // What is not of the highlighted pipeline is dimmed on purpose.
    if (element.closest(".graph.focus") !== null && element.closest(".on") === null) continue;
    const box = element.getBoundingClientRect();
    if (box.width < 2 || box.height < 2) continue;
    count++;
    const style = getComputedStyle(element);
    const back = background(element);
    const front = rgba(style.color);
    const shown = over([front[0], front[1], front[2], front[3] * opacity(element)], back);
    const [a, b] = [luminance(shown), luminance(back)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = Number.parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5) - 0.005) {
      found.add(`contrast ${ratio.toFixed(2)}: ${name(element)} "${text.slice(0, 40)}"`);
    }
  }

  for (const element of document.querySelectorAll("button, a[href], input, select, textarea, [role=button], [role=tab], [role=option]")) {
    if (!seen(element)) continue;
    const labels = element.labels ? [...element.labels].map((label) => label.textContent).join("") : "";
    const referred = (element.getAttribute("aria-labelledby") ?? "")
      .split(/\s+/)
      .map((id) => document.getElementById(id)?.textContent ?? "")
      .join("");
    const said = [element.getAttribute("aria-label"), referred, labels, element.getAttribute("title"), element.matches("input, select, textarea") ? "" : element.textContent];
    const inner = [...element.querySelectorAll("[aria-label], title")].map((one) => one.getAttribute("aria-label") ?? one.textContent);
    if (![...said, ...inner].some((one) => one && one.trim() !== "")) found.add(`no name: ${name(element)}`);
  }

  const ids = new Map();
  for (const element of document.querySelectorAll("[id]")) ids.set(element.id, (ids.get(element.id) ?? 0) + 1);
  for (const [id, n] of ids) if (n > 1) found.add(`the id ${id} is there ${n} times`);

  const wide = document.documentElement.scrollWidth - window.innerWidth;
  if (wide > 1) {
    const widest = [...document.querySelectorAll("main *")]
      .filter((element) => seen(element) && element.getBoundingClientRect().right > window.innerWidth + 1)
      .filter((element) => element.closest(".card-scroll, .code, .tabs, .live-box, .targets-box, .change-lines") === null)
      .slice(0, 3)
      .map(name);
    found.add(`the page is ${wide} px wider than its window: ${widest.join(", ")}`);
  }
  if (document.querySelectorAll("main").length !== 1) found.add("there must be one main");
  if (document.querySelectorAll("h1").length > 1) found.add("there is more than one h1");
  return [...found];
}
