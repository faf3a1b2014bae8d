import { render } from "preact";
import "./style/tokens.css";
import "./style/base.css";
import "./style/shell.css";
import "./style/graph.css";
import "./style/overview.css";
import "./style/pages.css";
import { firstGraph, startStore } from "./live/store";
import { loadPage, loadPages } from "./pages";
import { location, startRouter } from "./router";
import { App } from "./shell";
import { applyTheme } from "./theme";

/** How long the first picture waits for the graph and the code of the page, so that it is drawn once. On the same machine they are there before. */
const WITHIN_MS = 100;

applyTheme();
startRouter();
startStore();
const root = document.getElementById("app");
await Promise.all([firstGraph(WITHIN_MS), loadPage(location.value.path, WITHIN_MS)]);
if (root !== null) render(<App />, root);
// When the first picture is drawn.
requestAnimationFrame(() => setTimeout(() => void loadPages(), 500));
