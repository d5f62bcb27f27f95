// Light or dark: what the system says, unless the reader has chosen.

import { createContext, type ReactNode, useContext, useEffect, useMemo, useState } from "react";

export type Theme = "system" | "light" | "dark";
export const THEMES: Theme[] = ["system", "light", "dark"];

interface Choice {
  theme: Theme;
  /** What is seen now. */
  shade: "light" | "dark";
  choose: (theme: Theme) => void;
}

const KEPT_AS = "stillroom.theme";
const Context = createContext<Choice | null>(null);

export function useTheme(): Choice {
  const choice = useContext(Context);
  if (!choice) throw new Error("useTheme outside ThemeProvider");
  return choice;
}

export function ThemeProvider({ children }: { children: ReactNode }) {
  const [theme, setTheme] = useState<Theme>(() => (localStorage.getItem(KEPT_AS) as Theme | null) ?? "system");
  const dark = useSystemDark();
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  const choice = useMemo<Choice>(() => {
    const choose = (chosen: Theme) => {
      localStorage.setItem(KEPT_AS, chosen);
      setTheme(chosen);
    };
    const shade = theme === "system" ? (dark ? "dark" : "light") : theme;
    return { theme, shade, choose };
  }, [theme, dark]);
  return <Context value={choice}>{children}</Context>;
}

function useSystemDark(): boolean {
  const [dark, setDark] = useState(() => matchMedia("(prefers-color-scheme: dark)").matches);
  useEffect(() => {
    const query = matchMedia("(prefers-color-scheme: dark)");
    const change = () => setDark(query.matches);
    query.addEventListener("change", change);
    return () => query.removeEventListener("change", change);
  }, []);
  return dark;
}
