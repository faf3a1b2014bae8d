/** A large pipeline: all of it is drawn, can be moved, read and searched. How quick that is is told, and is no condition. */
export const expects = {
  /** How many components there are at least. */
  count: 500,
  /** Components whose boxes must be there. */
  ids: ["prometheus.remote_write.mimir", "loki.write.central"],
  search: { text: "prometheus.scrape.search_2", id: "prometheus.scrape.search_2" },
  /** A component, and some of its pipeline and of no other. */
  pipeline: { id: "prometheus.scrape.shop", on: ["prometheus.relabel.shop_cardinality"], off: ["prometheus.scrape.search"] },
};

/** Counts the frames that are drawn, and the longest time between two. */
const countFrames = () => {
  window.drawn = { frames: 0, longest: 0, last: performance.now() };
  const next = (now) => {
    window.drawn.frames += 1;
    window.drawn.longest = Math.max(window.drawn.longest, now - window.drawn.last);
    window.drawn.last = now;
    window.drawing = requestAnimationFrame(next);
  };
  window.drawing = requestAnimationFrame(next);
};
const framesDrawn = () => {
  cancelAnimationFrame(window.drawing);
  return window.drawn;
};

export default async function (t) {
  const { page, expect } = t;
  const boxes = page.locator("[data-box]");
  const box = (id) => page.locator(`[data-box="${id}"]`);
  const figures = {};
  /** Frames a second while something is done. */
  const smooth = async (name, act) => {
    await page.evaluate(countFrames);
    const began = performance.now();
    await act();
    const seconds = (performance.now() - began) / 1000;
    const { frames, longest } = await page.evaluate(framesDrawn);
    figures[name] = { framesPerSecond: Math.round((10 * frames) / seconds) / 10, longestMs: Math.round(longest) };
  };
  const transform = () => page.locator(".world").evaluate((world) => world.style.transform);
  const heightOf = (locator) => locator.evaluate((element) => Number.parseFloat(getComputedStyle(element).fontSize) * (element.getBoundingClientRect().height / element.offsetHeight));

  await t.check("every component is drawn, and none upon another", async () => {
    await page.addInitScript(() => {
      new MutationObserver((_, observer) => {
        if (document.querySelector("[data-box]") === null) return;
        observer.disconnect();
        requestAnimationFrame(() => setTimeout(() => { window.firstView = performance.now(); }));
      }).observe(document, { childList: true, subtree: true });
    });
    await t.open("");
    await boxes.first().waitFor({ timeout: 60_000 });
    figures.firstBoxesMs = Math.round(await page.waitForFunction(() => window.firstView, null, { timeout: 60_000 }).then((handle) => handle.jsonValue()));
    await t.until(`${expect.count} boxes`, async () => (await boxes.count()) >= expect.count, 60_000);
    for (const id of expect.ids) await box(id).waitFor();
    const [count, overlaps] = await page.evaluate(() => {
      const all = [...document.querySelectorAll("[data-box]")].map((element) => [element.dataset.box, element.getBoundingClientRect()]);
      const found = [];
      for (let i = 0; i < all.length; i++) {
        for (let j = i + 1; j < all.length; j++) {
          const [a, b] = [all[i][1], all[j][1]];
          if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1) found.push(`${all[i][0]} on ${all[j][0]}`);
        }
      }
      return [all.length, found];
    });
    figures.boxes = count;
    if (overlaps.length > 0) throw new Error(overlaps.slice(0, 5).join("\n"));
  });
  await t.check("all of it is in the window", async () => {
    const outside = await page.evaluate(() => {
      const graph = document.querySelector(".graph").getBoundingClientRect();
      return [...document.querySelectorAll("[data-box]")].filter((element) => {
        const box = element.getBoundingClientRect();
        return box.left < graph.left - 1 || box.right > graph.right + 1 || box.top < graph.top - 1 || box.bottom > graph.bottom + 1;
      }).length;
    });
    if (outside > 0) throw new Error(`${outside} boxes are outside`);
  });
  // Sections of a page that large are looked at as pictures; on a phone it is a list.
  await t.shot("large");

  const middle = async () => {
    const graph = await page.locator(".graph").boundingBox();
    return [graph.x + graph.width / 2, graph.y + graph.height / 2];
  };
  await t.check("it is zoomed with the wheel", async () => {
    const [x, y] = await middle();
    await page.mouse.move(x, y);
    const before = await transform();
    await smooth("zoom", async () => {
      for (let n = 0; n < 60; n++) await page.mouse.wheel(0, n % 20 < 14 ? -80 : 80);
    });
    await t.until("another part is seen", async () => (await transform()) !== before);
  });
  await t.check("it is moved with the pointer", async () => {
    const [x, y] = await middle();
    const before = await transform();
    await smooth("pan", async () => {
      await page.mouse.move(x, y);
      await page.mouse.down();
      for (let n = 0; n < 60; n++) await page.mouse.move(x + 4 * (n % 40), y + 2 * (n % 30));
      await page.mouse.up();
    });
    if ((await transform()) === before) throw new Error("it did not move");
    await page.getByRole("button", { name: "Fit" }).click();
  });
  await t.check("a component is found by its name, and brought into view where it can be read", async () => {
    const { text, id } = expect.search;
    await page.keyboard.press("/");
    await page.keyboard.type(text);
    await page.getByRole("listbox", { name: "Found" }).getByRole("option").first().waitFor();
    await page.getByRole("listbox", { name: "Found" }).getByRole("option").first().click();
    await page.locator(`[data-box="${id}"].selected`).waitFor();
    await t.until("it is in the window, and its texts can be read", async () => {
      const [graph, own] = [await page.locator(".graph").boundingBox(), await box(id).boundingBox()];
      const inside = own.x >= graph.x && own.x + own.width <= graph.x + graph.width && own.y >= graph.y && own.y + own.height <= graph.y + graph.height;
      return inside && (await heightOf(box(id).locator(".box-name"))) >= 10;
    });
  });
  await t.check("at its natural size all texts are 10 px high at least", async () => {
    await t.until("the natural size", async () => {
      const k = Number(/scale\(([\d.]+)\)/.exec(await transform())[1]);
      if (k < 0.95) await page.getByRole("button", { name: "Zoom in" }).click();
      return k >= 0.95;
    });
    await t.until("the names are there", async () => (await page.locator(".graph-box:not(.out) .box-title").count()) > 0);
    await page.waitForTimeout(400);
    const small = await page.evaluate(() => {
      const graph = document.querySelector(".graph").getBoundingClientRect();
      const texts = [...document.querySelectorAll(".graph .box-name, .graph .box-title, .graph .box-note, .graph .link-label .items, .graph .link-label .size")];
      return texts.flatMap((element) => {
        const own = element.getBoundingClientRect();
        const seen = element.textContent !== "" && own.width > 0 && own.right > graph.left && own.left < graph.right && own.bottom > graph.top && own.top < graph.bottom;
        const size = Number.parseFloat(getComputedStyle(element).fontSize) * (own.height / element.offsetHeight);
        return seen && size < 10 ? [`${element.className} ${element.textContent}: ${size.toFixed(1)} px`] : [];
      });
    });
    if (small.length > 0) throw new Error(small.slice(0, 5).join("\n"));
  });
  await t.shot("large-near", { phone: false });
  await t.check("one pipeline is brought out, and all else steps back", async () => {
    const { id, on, off } = expect.pipeline;
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Fit" }).click();
    await box(id).focus();
    await page.keyboard.press("h");
    await page.locator(".graph.focus").waitFor();
    for (const one of [id, ...on]) await page.locator(`[data-box="${one}"].on`).waitFor();
    for (const one of off) await page.locator(`[data-box="${one}"]:not(.on)`).waitFor();
  });
  await t.shot("large-pipeline", { phone: false });
  t.figures(figures);
}
