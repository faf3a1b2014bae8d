import { defineConfig, type Plugin } from "vite";

/** Serves the program's API from the fixtures, so that the pages can be worked on without the program. */
function fake(): Plugin {
  return {
    name: "fake-api",
    apply: "serve",
    async configureServer(server) {
      const { createFake } = await import("./fixtures/server.mjs");
      const handle = createFake({ size: Number(process.env.SIZE ?? 60) });
      server.middlewares.use((request, response, next) => {
        if (!handle(request, response)) next();
      });
    },
  };
}

export default defineConfig({
  // The program serves the page below any prefix and writes it into `<base href>`.
  base: "./",
  plugins: [fake()],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    target: ["chrome123", "firefox120", "safari17.5"],
    sourcemap: false,
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    rollupOptions: {
      output: {
        entryFileNames: "assets/[name]-[hash].js",
        chunkFileNames: "assets/[name]-[hash].js",
        assetFileNames: "assets/[name]-[hash][extname]",
        // Small parts that the first page needs and others, too, come in one file.
        codeSplitting: { includeDependenciesRecursively: false, groups: [{ name: "parts", test: /src\/parts\/(kinds|more|sparkline)\.ts/ }] },
      },
    },
  },
});
