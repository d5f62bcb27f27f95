// Every word the portal shows. One catalogue a language, in parts named for the page that uses them.
// Keys are "part.name"; `{name}` in a text is filled in; "name_one"/"name_other" are chosen by `count`.

import { createContext, type ReactNode, useContext, useEffect, useMemo, useState } from "react";
import english from "./en";

export type Language = "en" | "ja";
export const LANGUAGES: Record<Language, string> = { en: "English", ja: "日本語" };

type Catalogue = typeof english;
type Bare<K extends string> = K extends `${infer Name}_one` | `${infer Name}_other` ? Name : K;
type KeysOf<Part extends keyof Catalogue> = `${Part}.${Bare<Extract<keyof Catalogue[Part], string>>}`;
export type TextKey = { [Part in keyof Catalogue]: KeysOf<Part> }[keyof Catalogue];
export type Values = Record<string, string | number>;
export type Translate = (key: TextKey, values?: Values) => string;

interface Words {
  language: Language;
  choose: (language: Language) => void;
  t: Translate;
}

const Context = createContext<Words | null>(null);
const KEPT_AS = "stillroom.language";

export function useWords(): Words {
  const words = useContext(Context);
  if (!words) throw new Error("useWords outside LanguageProvider");
  return words;
}

/** The function that gives a text in the reader's language. */
export const useText = (): Translate => useWords().t;

export function LanguageProvider({ children }: { children: ReactNode }) {
  const [language, setLanguage] = useState<Language>(preferred);
  const catalogue = useCatalogue(language);
  useEffect(() => {
    document.documentElement.lang = language;
  }, [language]);
  const words = useMemo<Words | null>(() => {
    if (!catalogue) return null;
    const choose = (chosen: Language) => {
      localStorage.setItem(KEPT_AS, chosen);
      setLanguage(chosen);
    };
    return { language, choose, t: translator(catalogue, language) };
  }, [catalogue, language]);
  return words && <Context value={words}>{children}</Context>;
}

/** The catalogue of a language; until a language other than English is loaded, the one before. */
function useCatalogue(language: Language): Catalogue | null {
  const [loaded, setLoaded] = useState<Catalogue | null>(language === "en" ? english : null);
  useEffect(() => {
    let current = true;
    const load = language === "en" ? Promise.resolve(english) : import("./ja").then((module) => module.default);
    load.then((found) => current && setLoaded(found));
    return () => {
      current = false;
    };
  }, [language]);
  return loaded;
}

function translator(catalogue: Catalogue, language: Language): Translate {
  const plural = new Intl.PluralRules(language);
  const number = new Intl.NumberFormat(language);
  return (key, values = {}) => {
    const [part = "", name = ""] = key.split(/\.(.*)/s);
    const texts = catalogue[part as keyof Catalogue] as Record<string, string>;
    const form = typeof values.count === "number" ? texts[`${name}_${plural.select(values.count)}`] : undefined;
    const text = form ?? texts[name] ?? texts[`${name}_other`] ?? key;
    return text.replace(/\{(\w+)\}/g, (whole, field: string) => {
      const value = values[field];
      if (value === undefined) return whole;
      return typeof value === "number" ? number.format(value) : value;
    });
  };
}

function preferred(): Language {
  const kept = localStorage.getItem(KEPT_AS);
  if (kept === "en" || kept === "ja") return kept;
  return navigator.language.startsWith("ja") ? "ja" : "en";
}
