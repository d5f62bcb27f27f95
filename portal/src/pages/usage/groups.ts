// What usage is grouped by, and the figures that are told of a group.

import type { Usage } from "../../api/types";

export const GROUPS = ["day", "model", "deployment", "key", "kind"] as const;
export type Group = (typeof GROUPS)[number];

export const MEASURES = ["money", "tokens", "calls"] as const;
export type Measure = (typeof MEASURES)[number];

export interface UsageRow extends Usage {
  cost_usd: number;
}

/** What tells a group's rows from the others'; "" for rows that have none, such as hosting that nobody's key asked for. */
export const groupIn = (row: UsageRow, group: Group): string =>
  (group === "key" ? row.key_id : (row[group] as string | null | undefined)) ?? "";

/** What the group is called; null for none. */
export const nameIn = (row: UsageRow, group: Group): string | null =>
  (group === "key" ? row.key : (row[group] as string | null | undefined)) ?? null;

export function measured(row: UsageRow, measure: Measure): number {
  if (measure === "money") return row.cost_usd * 1e6;
  if (measure === "calls") return row.events;
  return row.prompt_tokens + row.completion_tokens + row.trained_tokens;
}

/** All rows in one; money is summed unrounded. */
export function summed(rows: UsageRow[]): UsageRow {
  const all = (
    field:
      | "events"
      | "prompt_tokens"
      | "cached_tokens"
      | "completion_tokens"
      | "saved_prompt_tokens"
      | "trained_tokens",
  ) => rows.reduce((sum, row) => sum + row[field], 0);
  const usd = rows.reduce((sum, row) => sum + row.cost_usd, 0);
  return {
    events: all("events"),
    prompt_tokens: all("prompt_tokens"),
    cached_tokens: all("cached_tokens"),
    completion_tokens: all("completion_tokens"),
    saved_prompt_tokens: all("saved_prompt_tokens"),
    trained_tokens: all("trained_tokens"),
    hosted_seconds: rows.reduce((sum, row) => sum + row.hosted_seconds, 0),
    cost_microusd: Math.round(usd * 1e6),
    cost_usd: usd,
  };
}
