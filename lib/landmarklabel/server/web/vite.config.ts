import { defineConfig } from "vitest/config";

// All files lie side by side with their content's hash in the name: the server looks names up and joins no path.
export default defineConfig({
  base: "./",
  build: {
    assetsDir: "",
    assetsInlineLimit: 0, // the content policy allows no script and no style in the page itself
    modulePreload: { polyfill: false },
    target: "es2022",
    rollupOptions: { input: ["index.html", "quality.html"] },
  },
  test: { environment: "jsdom", include: ["tests/**/*.test.ts"] },
});
