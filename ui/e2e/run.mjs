/**
 * Walks through the pages in a headless browser, as a user would, and says of each thing that it looks at whether it is
 * as it should be.
 *
 *   node e2e/run.mjs <file.e2e.mjs>... <url of the pages> [<folder for screenshots>]
 *
 * What a walk expects to see is in the walk, for the made-up pipeline of `fixtures/server.mjs`; other expectations come
 * as JSON in `EXPECT`, or in the file that `EXPECT_FILE` names: an object with a part for each walk, by its file's name
 * without `.e2e.mjs`. An expectation that is `null` skips what it is for. `CHROMIUM` is the browser (the one on the path
 * otherwise), `AUTH` is `user:password`. `BROWSER_MODULES` is a `node_modules` folder with `playwright-core`, where the one
 * beside this folder is not to be used, and with `@sparticuz/chromium`, for machines without a browser.
 *
 * Each line of the output is JSON: `{"walk", "check", "ok", "ms", "error"?, "skipped"?}`, or `{"walk", "figures"}` with what
 * was measured and is no condition, which also goes to a file in the folder for screenshots; the last is the sum. The exit
 * status is 1 if a check failed. After each walk it is checked that no other origin was asked for anything, and that the
 * console had no errors and the content security policy no violations.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { faults } from "./look.mjs";

const VIEWS = {
  wide: { width: 1400, height: 900 },
  phone: { width: 390, height: 844 },
};
/** How long what is looked for may take to appear. */
const WAIT_MS = 60_000;
/** How long a whole walk may take. */
const WALK_MS = 600_000;

function usage(message) {
  console.error(`${message}\nusage: node e2e/run.mjs <file.e2e.mjs>... <url> [<folder for screenshots>]`);
  process.exit(2);
}

const words = process.argv.slice(2);
const at = words.findIndex((word) => /^https?:\/\//.test(word));
if (at < 1 || words.length > at + 2) usage("there must be walks, an address and at most one folder");
const files = words.slice(0, at);
const base = words[at].endsWith("/") ? words[at] : `${words[at]}/`;
const out = words[at + 1] === undefined ? null : resolve(words[at + 1]);
if (out !== null) mkdirSync(out, { recursive: true });
const expected = JSON.parse(
  process.env.EXPECT_FILE ? readFileSync(process.env.EXPECT_FILE, "utf8") : process.env.EXPECT || "{}",
);

/** A module of `BROWSER_MODULES`. */
async function moduleOf(name) {
  const folder = join(resolve(process.env.BROWSER_MODULES), name);
  const { exports, module, main } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  let entry = exports?.["."] ?? exports ?? module ?? main;
  while (typeof entry === "object") entry = entry.import ?? entry.node ?? entry.default;
  return import(pathToFileURL(join(folder, entry)).href);
}

/** The browser, and what it wants to be started with. */
async function browserOf() {
  const known = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
  const places = (process.env.PATH ?? "").split(":").flatMap((folder) => known.map((name) => join(folder, name)));
  const path = process.env.CHROMIUM || places.find((place) => existsSync(place));
  if (path) return { executablePath: path, args: [] };
  if (!process.env.BROWSER_MODULES) usage("there is no chromium on the path");
  const { default: packed } = await moduleOf("@sparticuz/chromium");
  return { executablePath: await packed.executablePath(), args: packed.args };
}

let [passed, failed, skipped] = [0, 0, 0];
function tell(walk, check, result) {
  if (result.skipped) skipped++;
  else if (result.ok) passed++;
  else failed++;
  console.log(JSON.stringify({ walk, check, ...result }));
}

const firstLines = (text) => text.replace(/\u001b\[[0-9;]*m/g, "").split("\n").slice(0, 12).join("\n");

/** What a walk is given. */
class Walk {
  constructor(name, context, page, expect) {
    this.name = name;
    this.context = context;
    this.page = page;
    this.expect = expect;
    this.base = base;
    this.foreign = [];
    this.console = [];
    this.allowed = [];
    page.on("request", (request) => {
      const url = new URL(request.url());
      if (url.protocol !== "data:" && url.protocol !== "blob:" && url.origin !== new URL(base).origin) this.foreign.push(request.url());
    });
    page.on("console", (message) => {
      if (message.type() === "error") this.console.push(`${message.text()} ${message.location().url ?? ""}`.trim());
    });
    page.on("pageerror", (error) => this.console.push(`uncaught: ${error.message}`));
  }

  /** Says that an answer with a status to a path that has a text in it is no error: the browser tells of each. */
  allow(status, path) {
    this.allowed.push([status, path]);
  }

  /** Goes to a path below the base. */
  async open(path, view = "wide") {
    await this.page.setViewportSize(VIEWS[view]);
    await this.page.goto(new URL(path, base).href, { waitUntil: "domcontentloaded" });
  }

  /** Does something and says whether it worked. What is asked with `needs` null is skipped. */
  async check(name, act, needs = true) {
    if (needs === null || needs === undefined) {
      tell(this.name, name, { ok: true, skipped: true });
      return;
    }
    const began = Date.now();
    try {
      await act();
      tell(this.name, name, { ok: true, ms: Date.now() - began });
    } catch (error) {
      tell(this.name, name, { ok: false, ms: Date.now() - began, error: firstLines(String(error?.message ?? error)) });
      if (out !== null) {
        const file = `${this.name}-failed-${failed}.png`;
        await this.page.screenshot({ path: join(out, file) }).catch(() => {});
      }
    }
  }

  /** Waits until a text is seen. */
  async see(text, within = this.page) {
    await within.getByText(text).filter({ visible: true }).first().waitFor({ timeout: WAIT_MS });
  }

  /** Fails unless something holds; tries again until it does. */
  async until(what, ask, wait = WAIT_MS) {
    const end = Date.now() + wait;
    let last;
    for (;;) {
      try {
        last = await ask();
        if (last) return last;
      } catch (error) {
        last = error.message;
      }
      if (Date.now() > end) throw new Error(`${what}: ${JSON.stringify(last)}`);
      await this.page.waitForTimeout(50);
    }
  }

  /** Pictures of the page as it is, light and dark, wide and on a phone; and that all can be read and reached there. */
  async shot(name, { phone = true } = {}) {
    const themes = ["light", "dark"];
    for (const view of phone ? ["wide", "phone"] : ["wide"]) {
      await this.page.setViewportSize(VIEWS[view]);
      for (const theme of themes) {
        await this.page.emulateMedia({ colorScheme: theme, reducedMotion: "reduce" });
        await this.page.waitForTimeout(150);
        if (out !== null) {
          const file = `${name}${view === "phone" ? "-phone" : ""}-${theme}.png`;
          await this.page.screenshot({ path: join(out, file) });
        }
        await this.check(`${name} can be read and reached: ${view}, ${theme}`, async () => {
          const found = await this.page.evaluate(faults);
          if (found.length > 0) throw new Error(found.slice(0, 10).join("\n"));
        });
      }
    }
    await this.page.setViewportSize(VIEWS.wide);
    await this.page.emulateMedia({ colorScheme: "light", reducedMotion: "no-preference" });
  }

  /** Tells what was measured, for whoever wants to know: no check depends on it. */
  figures(figures) {
    console.log(JSON.stringify({ walk: this.name, figures }));
    if (out !== null) writeFileSync(join(out, `${this.name}-figures.json`), `${JSON.stringify(figures, null, 2)}\n`);
  }

  /** What must hold after each walk. */
  async end() {
    await this.check("no other origin is asked", async () => {
      if (this.foreign.length > 0) throw new Error(this.foreign.join("\n"));
    });
    await this.check("the console has no errors and the policy no violations", async () => {
      const wrong = this.console.filter((line) => !this.allowed.some(([status, path]) => line.includes(`status of ${status}`) && line.includes(path)));
      if (wrong.length > 0) throw new Error(wrong.join("\n"));
    });
  }
}

const within = (promise, ms, what) => {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${ms / 1000} s`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

// Whatever it answers: nothing at all would fail every check, one slow wait after the other.
await fetch(base).catch((error) => usage(`${base} does not answer: ${error.cause?.message ?? error.message}`));
const own = process.env.BROWSER_MODULES && existsSync(join(process.env.BROWSER_MODULES, "playwright-core"));
const { chromium } = own ? await moduleOf("playwright-core") : await import("playwright-core");
const { executablePath, args } = await browserOf();
const browser = await chromium.launch({
  executablePath,
  headless: true,
  args: [...args, "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
});
try {
  for (const file of files) {
    const name = basename(file).replace(/\.e2e\.mjs$/, "");
    const walkFile = await import(pathToFileURL(resolve(file)).href);
    const [username, ...rest] = (process.env.AUTH ?? "").split(":");
    const context = await browser.newContext({
      viewport: VIEWS.wide,
      colorScheme: "light",
      permissions: ["clipboard-read", "clipboard-write"],
      ...(username ? { httpCredentials: { username, password: rest.join(":") } } : {}),
    });
    context.setDefaultTimeout(WAIT_MS);
    const page = await context.newPage();
    const walk = new Walk(name, context, page, { ...walkFile.expects, ...expected[name] });
    await walk.check("the walk comes to its end", () => within(walkFile.default(walk), WALK_MS, "the walk"));
    await walk.end();
    await context.close();
  }
} finally {
  await browser.close();
}
console.log(JSON.stringify({ passed, failed, skipped }));
process.exit(failed > 0 ? 1 : 0);
