/**
 * Walks through all pages of the built bundle against the made-up pipeline, so that pages can be worked on without the
 * program: node e2e/fake.mjs [<folder of the bundle>, `dist` otherwise] [<folder for screenshots>]
 */
import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { createFake } from "../fixtures/server.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const [dist = here("../dist"), out] = process.argv.slice(2);

/** Runs walks against a server of its own. */
async function walk(names, options, path = "") {
  const handle = createFake({ size: 60, dist, ...options });
  const server = createServer((request, response) => {
    if (!handle(request, response)) response.writeHead(404).end();
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const files = names.map((name) => here(`${name}.e2e.mjs`));
  const url = `http://127.0.0.1:${server.address().port}${path}/`;
  const child = spawn(process.execPath, [here("run.mjs"), ...files, url, ...(out ? [out] : [])], { stdio: "inherit" });
  const code = await new Promise((done) => child.on("exit", done));
  server.closeAllConnections();
  server.close();
  return code === 0;
}

const all = await walk(["overview", "component", "live", "targets", "config", "balance"], { prefix: "/a/b" }, "/a/b");
const disabled = await walk(["live-disabled"], { liveDebugging: false });
process.exit(all && disabled ? 0 : 1);
