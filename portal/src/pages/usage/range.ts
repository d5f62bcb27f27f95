// The span of time that is looked at, as the address says it. Days are of UTC, as the ledger's are.

import { DAY_SECONDS } from "../../ui";

export const PRESETS = ["7d", "30d", "90d", "month", "all"] as const;
type Preset = (typeof PRESETS)[number];

export interface Range {
  /** What was chosen; "custom" has dates of its own. */
  chosen: Preset | "custom";
  /** The first second, and the first one after; none for what is still going on. */
  since: number;
  until: number | null;
  /** The dates that the fields show, `2026-11-23`. */
  from: string;
  to: string;
}

const USUAL: Preset = "30d";
const DATE = /^\d{4}-\d\d-\d\d$/;

export function rangeOf(params: URLSearchParams, now: number): Range {
  const today = Math.floor(now / DAY_SECONDS) * DAY_SECONDS;
  const from = secondsOf(params.get("from"));
  const to = secondsOf(params.get("to"));
  if (from !== null || to !== null) {
    const since = from ?? 0;
    const last = to ?? today;
    return { chosen: "custom", since, until: last + DAY_SECONDS, from: dateOf(since), to: dateOf(last) };
  }
  const asked = params.get("range") as Preset;
  const chosen = PRESETS.includes(asked) ? asked : USUAL;
  const since = begin(chosen, today);
  return { chosen, since, until: null, from: since ? dateOf(since) : "", to: dateOf(today) };
}

const dateOf = (seconds: number): string => new Date(seconds * 1000).toISOString().slice(0, 10);

/** Every day from the first to the last, as their first seconds. */
export function daysBetween(first: number, last: number): number[] {
  const days = Math.max(0, Math.floor((last - first) / DAY_SECONDS)) + 1;
  return Array.from({ length: days }, (_, at) => first + at * DAY_SECONDS);
}

function begin(preset: Preset, today: number): number {
  if (preset === "all") return 0;
  if (preset === "month") {
    const now = new Date(today * 1000);
    return Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), 1) / 1000;
  }
  return today - (Number.parseInt(preset, 10) - 1) * DAY_SECONDS;
}

export function secondsOf(date: string | null): number | null {
  if (!date || !DATE.test(date)) return null;
  const seconds = Date.parse(`${date}T00:00:00Z`) / 1000;
  return Number.isFinite(seconds) && seconds >= 0 ? seconds : null;
}
