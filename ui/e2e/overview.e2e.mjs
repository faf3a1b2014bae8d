/** The pipeline: every component in its place, health by colour, rates on edges, drops in red, queues on sinks. */
export const expects = {
  /** Components that are drawn, and what each says. */
  boxes: { "prometheus.scrape.shop": "shop", "loki.write.central": "central", "prometheus.remote_write.mimir": "mimir" },
  /** How many are drawn at least, ends included. */
  count: 59,
  /** Edges with data: a rate in items a second is seen. */
  rates: true,
  unhealthy: [{ id: "loki.write.central", text: "503 Service Unavailable" }],
  drops: [{ id: "prometheus.relabel.shop_cardinality", reason: "rule 2 drop" }],
  /** The end of a sink where data waits. */
  waiting: { id: "loki.write.central#backup", answer: "503" },
  /** A component whose targets fail: what is said of it, and why one fails. */
  failing: { id: "prometheus.scrape.billing", text: "targets of prometheus.scrape.billing fail", error: "500 Internal Server Error" },
  /** What a bad load says. */
  load: "does not exist or is out of scope",
  /** Nothing must be wrong. */
  fine: false,
  /** From which component the arrows lead to which. */
  along: ["prometheus.scrape.shop", "prometheus.relabel.shop_cardinality"],
  search: { text: "mimir", id: "prometheus.remote_write.mimir" },
  /** A module that folds and unfolds, and a component in it. */
  module: { name: "team.media", id: "team.media/loki.process.media_parse" },
  /** How long until the first components are drawn, at best of five; `null` is not measured. */
  firstViewMs: null,
  /** Frames a second while it is zoomed; `null` is not measured. */
  framesMin: null,
  phone: "shop",
};

export default async function (t) {
  const { page, expect } = t;
  const box = (id) => page.locator(`[data-box="${id}"]`);
  const boxes = page.locator("[data-box]");
  const picked = page.getByRole("complementary", { name: "Picked component" });
  const problems = page.getByRole("complementary", { name: "What is wrong" });
  const colour = (locator, property) => locator.evaluate((element, property) => getComputedStyle(element)[property], property);

  await t.check("every component is drawn", async () => {
    await t.open("");
    for (const [id, text] of Object.entries(expect.boxes)) {
      await box(id).waitFor();
      await t.until(`${id} says ${text}`, async () => (await box(id).innerText()).includes(text));
    }
    if (expect.count) await t.until("all of them", async () => (await boxes.count()) >= expect.count);
  });
  await t.check("edges say how much passes", async () => {
    await t.until("a rate", async () => {
      const texts = await page.locator(".graph .items").allInnerTexts();
      return texts.some((text) => /^[\d.]+[kM]?\/s$/.test(text) && text !== "0/s");
    }, 60_000);
  }, expect.rates || null);
  await t.check("what is unhealthy is red, says so, and says why", async () => {
    for (const { id, text } of expect.unhealthy) {
      await t.until(`${id} is unhealthy`, async () => (await box(id).textContent()).includes("unhealthy"), 60_000);
      const [r, g, b] = (await colour(box(id), "borderTopColor")).match(/[\d.]+/g).map(Number);
      if (!(r > 1.5 * g && r > 1.5 * b)) throw new Error(`${id} has the colour ${[r, g, b]}`);
      await t.until(`the list says ${text}`, async () => (await problems.innerText()).replace(/\s+/g, " ").includes(text), 60_000);
    }
  }, expect.unhealthy);
  await t.check("drops are red and have their reason", async () => {
    for (const { id, reason } of expect.drops) {
      await t.until(`${id}: ${reason}`, async () => (await box(id).textContent()).includes(reason.slice(0, 6)), 60_000);
      await t.until(`the list says ${reason}`, async () => (await problems.innerText()).includes(reason), 60_000);
      const [r, g, b] = (await colour(box(id).locator(".box-note"), "color")).match(/[\d.]+/g).map(Number);
      if (!(r > 1.5 * g && r > 1.5 * b)) throw new Error(`${id} has the colour ${[r, g, b]}`);
    }
  }, expect.drops);
  await t.check("targets that fail are said, with the reason of one", async () => {
    const said = async () => (await problems.innerText()).replace(/\s+/g, " ");
    await t.until(expect.failing.text, async () => (await said()).includes(expect.failing.text), 60_000);
    await t.until(expect.failing.error, async () => (await said()).includes(expect.failing.error));
    await t.until("how many, beside the state of all else", async () => /Targets\s+[\d.]+k? fails?/.test((await page.getByRole("region", { name: "State" }).innerText()).replace(/\s+/g, " ")));
  }, expect.failing);
  await t.check("a load that was refused is said", async () => {
    await t.until("why", async () => (await problems.innerText()).replace(/\s+/g, " ").includes(expect.load), 60_000);
  }, expect.load);
  await t.check("where nothing is wrong, that is said", () => t.see("Nothing is wrong.", problems), expect.fine || null);
  await t.shot("overview");

  await t.check("a sink says what waits, since when, and what was last answered", async () => {
    const { id, answer } = expect.waiting;
    await box(id).click();
    await t.see("Waiting", picked);
    await t.until("what waits", async () => /Waiting\s+[\d.]+[kM]? \(.*oldest/.test((await picked.innerText()).replace(/\s+/g, " ")), 60_000);
    if (answer) await t.see(answer, picked);
    await page.keyboard.press("Escape");
  }, expect.waiting);
  await t.check("a component is picked: its health, rates and the way to its page", async () => {
    const [id] = Object.keys(expect.boxes);
    await box(id).click();
    await picked.getByRole("link", { name: "Open" }).waitFor();
  });
  await t.shot("overview-picked", { phone: false });
  await t.check("arrows go along the data, Enter opens the page", async () => {
    const [from, to] = expect.along;
    await page.keyboard.press("Escape");
    await box(from).focus();
    await page.keyboard.press("ArrowRight");
    await t.until(`the focus is on ${to}`, async () => (await page.evaluate(() => document.activeElement?.dataset.box)) === to);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { level: 1, name: to }).waitFor();
    await page.goBack();
    await box(from).waitFor();
  }, expect.along);
  await t.check("one pipeline is highlighted up and down", async () => {
    const [from, to] = expect.along;
    await box(from).focus();
    await page.keyboard.press("h");
    await page.locator(".graph.focus").waitFor();
    for (const id of [from, to]) await page.locator(`[data-box="${id}"].on`).waitFor();
    if ((await page.locator("[data-box]:not(.on)").count()) === 0 && expect.count > 10) throw new Error("everything is highlighted");
    await page.keyboard.press("Escape");
  }, expect.along);
  await t.check("a module folds and unfolds", async () => {
    const { name, id } = expect.module;
    await box(id).waitFor();
    await page.getByRole("button", { name: "Fold modules" }).click();
    await t.until("it is folded", async () => (await box(id).count()) === 0 && (await page.locator(".box-module", { hasText: name }).count()) > 0);
    await page.getByRole("button", { name: "Unfold modules" }).click();
    await box(id).waitFor();
  }, expect.module);
  await t.check("`/` searches, and leads to a component", async () => {
    const { text, id } = expect.search;
    await page.keyboard.press("/");
    await page.keyboard.type(text);
    await page.getByRole("listbox", { name: "Found" }).getByRole("option").filter({ hasText: text }).first().waitFor();
    await page.getByRole("option").filter({ hasText: text }).first().click();
    await t.until("it is shown", async () => page.url().includes(encodeURIComponent(id)) || (await picked.count()) > 0 || (await page.locator(".graph-box.selected, .graph-box.on").count()) > 0);
  }, expect.search);
  await t.check("targets that fail are one press away", async () => {
    await t.open("");
    await problems.getByRole("link").filter({ hasText: expect.failing.id }).first().click();
    await page.getByRole("heading", { level: 1, name: "Targets" }).waitFor();
    await page.getByRole("table", { name: "Targets", exact: true }).locator(".target").filter({ hasText: "down" }).filter({ hasText: expect.failing.error }).first().waitFor();
    const query = new URL(page.url()).searchParams;
    if (query.get("component") !== expect.failing.id || query.get("state") !== "down") throw new Error(page.url());
  }, expect.failing);
  await t.check("keys lead to the pages", async () => {
    await t.open("");
    await boxes.first().waitFor();
    for (const [key, heading] of [["t", "Targets"], ["c", "Configuration"], ["b", "Balance"]]) {
      await page.keyboard.press("g");
      await page.keyboard.press(key);
      await page.getByRole("heading", { level: 1, name: heading }).waitFor();
    }
    await page.keyboard.press("g");
    await page.keyboard.press("g");
    await boxes.first().waitFor();
  });
  await t.check("colours are chosen, and kept", async () => {
    await page.getByRole("button", { name: "Dark colours" }).click();
    const dark = await colour(page.locator("html"), "backgroundColor");
    await page.reload();
    await boxes.first().waitFor();
    if ((await colour(page.locator("html"), "backgroundColor")) !== dark) throw new Error("they were not kept");
    await page.getByRole("button", { name: "Light colours" }).click();
    if ((await colour(page.locator("html"), "backgroundColor")) === dark) throw new Error("they did not change");
  });
  await t.check("on a phone it is a list", async () => {
    await t.open("", "phone");
    await t.see(expect.phone, page.locator("main"));
    if ((await page.locator(".graph").count()) > 0) throw new Error("the graph is there, too");
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    if (wide > 1) throw new Error(`it is ${wide} px wider than the window`);
  }, expect.phone);
  await t.check("the first view is quick", async () => {
    const times = [];
    for (let n = 0; n < 5; n++) {
      const fresh = await t.context.newPage();
      await fresh.addInitScript(() => {
        new MutationObserver((_, observer) => {
          if (document.querySelector("[data-box]") === null) return;
          observer.disconnect();
          // When what was made is drawn.
          requestAnimationFrame(() => setTimeout(() => { window.firstView = performance.now(); }));
        }).observe(document, { childList: true, subtree: true });
      });
      await fresh.goto(t.base);
      times.push(await fresh.waitForFunction(() => window.firstView).then((handle) => handle.jsonValue()));
      await fresh.close();
    }
    const best = Math.min(...times);
    if (best > expect.firstViewMs) throw new Error(`${best.toFixed(0)} ms at best of ${times.map((time) => time.toFixed(0))}`);
  }, expect.firstViewMs);
  await t.check("it is smooth while it is zoomed", async () => {
    await t.open("");
    await boxes.first().waitFor();
    const graph = await page.locator(".graph").boundingBox();
    await page.mouse.move(graph.x + graph.width / 2, graph.y + graph.height / 2);
    await page.evaluate(() => {
      window.frames_ = 0;
      const count = () => {
        window.frames_ += 1;
        requestAnimationFrame(count);
      };
      requestAnimationFrame(count);
    });
    const began = Date.now();
    for (let n = 0; n < 60; n++) await page.mouse.wheel(0, n % 20 < 10 ? -60 : 60);
    const rate = (1000 * (await page.evaluate(() => window.frames_))) / (Date.now() - began);
    if (rate < expect.framesMin) throw new Error(`${rate.toFixed(1)} frames a second`);
  }, expect.framesMin);
}
