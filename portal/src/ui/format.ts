// Numbers, money, times and sizes as the reader's language writes them.

import { useMemo } from "react";
import { type Language, useWords } from "../i18n";

const MICRO = 1_000_000;

export interface Format {
  number: (value: number) => string;
  /** Micro-USD as dollars, with as many digits as the amount needs. */
  money: (microusd: number | null | undefined) => string;
  /** Dollars, the same way. */
  usd: (dollars: number) => string;
  /** 0..1 as a percentage. */
  share: (value: number, digits?: number) => string;
  /** 1,234 ms, 12.3 s, 4 min. */
  duration: (milliseconds: number | null | undefined) => string;
  bytes: (value: number | null | undefined) => string;
  time: (seconds: number) => string;
  day: (seconds: number) => string;
  /** "3 min ago". */
  ago: (seconds: number) => string;
}

export function useFormat(): Format {
  const { language } = useWords();
  return useMemo(() => formatOf(language), [language]);
}

function formatOf(language: Language): Format {
  const number = new Intl.NumberFormat(language);
  const time = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" });
  const day = new Intl.DateTimeFormat(language, { dateStyle: "medium" });
  const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" });
  const unit = (value: number, name: string, digits: number, unitDisplay: "short" | "long" = "short") =>
    new Intl.NumberFormat(language, {
      style: "unit",
      unit: name,
      unitDisplay,
      maximumFractionDigits: digits,
    }).format(value);
  return {
    number: (value) => number.format(value),
    money: (microusd) => (microusd == null ? "–" : money(language, microusd / MICRO)),
    usd: (dollars) => money(language, dollars),
    share: (value, digits = 1) =>
      new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: digits }).format(value),
    duration: (milliseconds) => {
      if (milliseconds == null) return "–";
      if (milliseconds < 1000) return unit(Math.round(milliseconds), "millisecond", 0);
      const seconds = milliseconds / 1000;
      if (seconds < 120) return unit(seconds, "second", seconds < 10 ? 1 : 0);
      const minutes = seconds / 60;
      return minutes < 120 ? unit(minutes, "minute", 0) : unit(minutes / 60, "hour", 1);
    },
    bytes: (value) => {
      if (value == null) return "–";
      const names = ["byte", "kilobyte", "megabyte", "gigabyte"];
      const power = Math.min(names.length - 1, Math.floor(Math.log10(Math.max(1, value)) / 3));
      return power ? unit(value / 1000 ** power, names[power] ?? "byte", 1) : unit(value, "byte", 0, "long");
    },
    time: (seconds) => time.format(seconds * 1000),
    day: (seconds) => day.format(seconds * 1000),
    ago: (seconds) => {
      const past = Math.max(0, Date.now() / 1000 - seconds);
      if (past < 60) return relative.format(-Math.floor(past), "second");
      if (past < 3600) return relative.format(-Math.floor(past / 60), "minute");
      if (past < 86_400) return relative.format(-Math.floor(past / 3600), "hour");
      return past < 7 * 86_400 ? relative.format(-Math.floor(past / 86_400), "day") : day.format(seconds * 1000);
    },
  };
}

function money(language: Language, usd: number): string {
  const size = Math.abs(usd);
  // A single call costs fractions of a cent: three digits that say something, whatever the size.
  const digits = size === 0 || size >= 1 ? 2 : Math.min(8, 2 - Math.floor(Math.log10(size)));
  return new Intl.NumberFormat(language, {
    style: "currency",
    currency: "USD",
    minimumFractionDigits: Math.min(2, digits),
    maximumFractionDigits: digits,
  }).format(usd);
}
