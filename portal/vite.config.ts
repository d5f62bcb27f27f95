import react from "@vitejs/plugin-react";
import { defineConfig, loadEnv } from "vite";

// Where `npm run dev` finds a running server; its API is reached under the page's own origin.
const server = loadEnv("development", ".", "STILLROOM_").STILLROOM_URL ?? "http://127.0.0.1:8000";
const proxy = Object.fromEntries(["/v1", "/openai", "/subscriptions"].map((path) => [path, { target: server }]));

export default defineConfig({
  plugins: [react()],
  server: { host: "127.0.0.1", proxy },
  build: {
    outDir: "../src/stillroom/portal",
    emptyOutDir: true,
    // The page's policy allows what comes from its own origin alone, and no data: scripts or fonts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
});
