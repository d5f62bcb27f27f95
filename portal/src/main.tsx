import { QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { LanguageProvider } from "./i18n";
import { makeClient } from "./shell/client";
import { SessionGate } from "./shell/gate";
import { Shell } from "./shell/shell";
import { ThemeProvider } from "./ui/theme";
import { ToastProvider } from "./ui/toast";
import "./styles/tokens.css";
import "./styles/base.css";
import "./ui/ui.css";

const root = document.getElementById("root");
if (!root) throw new Error("index.html has no #root");
createRoot(root).render(
  <StrictMode>
    <LanguageProvider>
      <ThemeProvider>
        <QueryClientProvider client={makeClient()}>
          <SessionGate>
            <ToastProvider>
              <Shell />
            </ToastProvider>
          </SessionGate>
        </QueryClientProvider>
      </ThemeProvider>
    </LanguageProvider>
  </StrictMode>,
);
